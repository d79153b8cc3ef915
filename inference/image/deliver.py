"""From a picture's last latents to its file: decoded one at a time, encoded in a worker."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor

import torch
from torch import Tensor

from inference import metrics
from inference.image import codec
from inference.image.events import Made, ReceiptFacts
from inference.image.families import Family
from inference.image.families.base import pixels_of
from inference.image.order import Order, Picture
from inference.image.schedulers import name_of
from services.common import logs
from services.common.errors import Internal, MoaError

_log = logs.get("image")

Finish = Callable[[Order, Made | MoaError], None]
"""Told what became of a picture, from a worker's thread."""


class Delivery:
    """Decodes and encodes for one engine.

    Args:
        name: The model's catalogue id.
        family: The pipeline.
        workers: Where files are encoded.
        receipt: Fills in what the engine knows: (ask's size, scheduler, seed) to facts without a digest.
        finish: Where files go.
    """

    def __init__(
        self,
        name: str,
        family: Family,
        workers: Executor,
        *,
        receipt: Callable[[Picture, str], ReceiptFacts],
        finish: Finish,
    ) -> None:
        self._name = name
        self._family = family
        self._workers = workers
        self._receipt = receipt
        self._finish = finish
        self.decodes = 0

    def deliver(self, picture: Picture) -> None:
        """Decode a picture and hand it to a worker. Raises Internal when it has no finite pixels."""
        if not torch.isfinite(picture.latents).all():
            raise Internal("the model returned NaN instead of an image; try again with another seed or other settings")
        ask = picture.order.ask
        decoded = self._decoded(picture.latents, ask.width, ask.height)
        self.decodes += 1
        metrics.DECODES.labels(self._name).inc()
        self._workers.submit(self._encode, picture, pixels_of(decoded))

    def _decoded(self, latents: Tensor, width: int, height: int) -> Tensor:
        """Decode; where half precision overflows, once more in float32."""
        family = self._family
        decoded = family.decode(latents, width, height)
        if torch.isfinite(decoded).all():
            return decoded
        before = family.vae.dtype
        _log.warning("image.decode_overflowed", model=self._name, dtype=str(before))
        family.vae.to(torch.float32)
        try:
            decoded = family.decode(latents, width, height)
        finally:
            family.vae.to(before)
        if not torch.isfinite(decoded).all():
            raise Internal("the model returned NaN instead of an image; try again with another seed or other settings")
        return decoded

    def _encode(self, picture: Picture, pixels: codec.Pixels) -> None:
        ask = picture.order.ask
        try:
            data = codec.encoded(pixels, ask.format)
        except Exception:
            _log.exception("image.encode_failed", model=self._name)
            self._finish(picture.order, Internal("the image could not be encoded"))
            return
        receipt = self._receipt(picture, codec.sha256(data))
        self._finish(picture.order, Made(picture.index, data, ask.format, ask.width, ask.height, receipt))


def facts(
    picture: Picture, sha256: str, *, revision: str, lanes: Callable[[int, int], int], engine: str
) -> ReceiptFacts:
    """Return a picture's receipt; `lanes` says whose bits a size's pictures have."""
    ask = picture.order.ask
    return ReceiptFacts(
        revision=revision,
        scheduler=name_of(picture.scheduler),
        seed=picture.seed,
        steps=ask.steps,
        guidance=ask.guidance,
        bucket=f"{ask.width}x{ask.height}x{lanes(ask.width, ask.height)}",
        engine=engine,
        sha256=sha256,
    )
