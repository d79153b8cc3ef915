"""What happens to an order of images. Free of torch, for the event loop's thread."""

from __future__ import annotations

from dataclasses import dataclass

from inference.job import Failed


@dataclass(frozen=True, slots=True)
class Waiting:
    """The order waits for a place."""

    position: int
    """Orders before it."""
    eta_s: float | None


@dataclass(frozen=True, slots=True)
class Stepped:
    """A picture is a step further."""

    index: int
    step: int
    steps: int
    eta_s: float
    preview: bytes | None = None
    """JPEG."""


@dataclass(frozen=True, slots=True)
class Made:
    """A picture is done."""

    index: int
    data: bytes
    format: str
    width: int
    height: int
    receipt: ReceiptFacts


@dataclass(frozen=True, slots=True)
class ReceiptFacts:
    """What is needed to make a picture again, beside the request."""

    revision: str
    scheduler: str
    seed: int
    steps: int
    guidance: float
    bucket: str
    engine: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Done:
    """All pictures are done."""

    images: int


Event = Waiting | Stepped | Made | Done | Failed
