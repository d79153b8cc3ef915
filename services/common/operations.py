"""The operations: what models make, as catalogue rows say it, and the contracts by which callers ask for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from google.protobuf.message import Message

from moa.embedding.v1.embedding_service_pb2 import EmbedTextsRequest
from moa.image.v1.image_service_pb2 import GenerateImageRequest
from moa.text.v1.text_service_pb2 import GenerateTextRequest

Makes = Literal["text", "image", "embedding", "vision"]
"""`vision`: nothing for callers, who do not see such models; they look at images for Moa's own services."""


@dataclass(frozen=True, kw_only=True)
class Contract:
    """What callers ask of an operation by.

    Args:
        request: What asks for it, in the file of its one service; its limits say what capabilities there are.
        made: What its models make, in a sentence.
    """

    request: type[Message]
    made: str

    @property
    def service(self) -> str:
        """The full name of the gRPC service."""
        (service,) = self.request.DESCRIPTOR.file.services_by_name.values()
        return str(service.full_name)


CONTRACTS: Final[Mapping[str, Contract]] = {
    "text": Contract(request=GenerateTextRequest, made="text"),
    "image": Contract(request=GenerateImageRequest, made="images"),
    "embedding": Contract(request=EmbedTextsRequest, made="embeddings"),
}
"""Of those that callers may ask for: what the edge lets in, the catalogue knows and the router serves."""
