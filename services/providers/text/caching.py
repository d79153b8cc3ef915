"""What callers mark as worth keeping in a provider's cache."""

from __future__ import annotations

from moa.text.v1.text_service_pb2 import GenerateTextRequest


def is_marked(request: GenerateTextRequest) -> bool:
    """Return whether any part or tool of a request is marked."""
    return any(part.cache for message in request.messages for part in message.parts) or any(
        tool.cache for tool in request.tools
    )
