"""What a provider of each protocol is sent for a body of a dialect."""

from __future__ import annotations

import json
from typing import Any

from services.catalogue import Model
from services.providers.google.text import request as gemini
from services.providers.openai.text import request as openai
from services.providers.text.ignored import Ignored
from services.router.dialects.google import requests as google_requests
from services.router.dialects.openai import chat_request
from services.router.dialects.reply import encode
from services.text import capable
from services.text.targets import ADAPTERS

Json = dict[str, Any]

ABLE = frozenset(
    ("files", "tools", "vision", "json", "json_schema", "seed", "candidates", "reasoning", "logprobs", "search")
)
MODEL = Model(id="m", provider="p", upstream="u", capabilities=ABLE)


def to_openai(body: Json, ignored: Ignored | None = None, *, passes: Any = "all", adapter: str = "openai") -> Json:
    """Return what a provider of OpenAI's protocol is sent for a body of the dialect."""
    request = chat_request.request_from(encode(body)).request
    noted = ignored if ignored is not None else Ignored()
    capable.check(request, MODEL, ADAPTERS[adapter], noted)
    made: Json = json.loads(encode(openai.body_from(request, MODEL, openai.Options(passes=passes), noted)))
    return made


def to_gemini(body: Json, ignored: Ignored | None = None) -> Json:
    """Return what Gemini is sent for a body of the dialect."""
    asked = google_requests.asked(encode(body), "m", "text", stream=False)
    assert asked.text is not None
    noted = ignored if ignored is not None else Ignored()
    capable.check(asked.text, MODEL, ADAPTERS["gemini"], noted)
    made: Json = json.loads(encode(gemini.body_from(asked.text, MODEL, noted)))
    return made


CHAT: Json = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
