"""What the answers of several dialects hold, as OpenAPI tells it; the router renders answers as plain objects."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

Whole = Annotated[int, Meta(ge=0)]


class UsageMetadata(Struct, rename="camel"):
    """Tokens, as Google counts them."""

    prompt_token_count: Whole
    candidates_token_count: Whole
    total_token_count: Whole
