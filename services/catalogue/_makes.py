"""What models make, by the names of the operations, and the requests that ask for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from google.protobuf.message import Message

from moa.embedding.v1.embedding_service_pb2 import EmbedTextsRequest
from moa.image.v1.image_service_pb2 import GenerateImageRequest
from moa.text.v1.text_service_pb2 import GenerateTextRequest

Makes = Literal["text", "image", "embedding", "vision"]
"""`vision`: nothing for callers, who do not see such models; they look at images for Moa's own services."""

REQUESTS: Final[Mapping[Makes, type[Message]]] = {
    "text": GenerateTextRequest,
    "image": GenerateImageRequest,
    "embedding": EmbedTextsRequest,
}
"""Whose limits say what capabilities there are."""
