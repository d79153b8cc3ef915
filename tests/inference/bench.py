"""An engine without its server: ticked by hand, so that a test decides what happens in which tick."""

from __future__ import annotations

import functools
import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inference import machine
from inference.fair import Flow
from inference.image.ask import ImageAsk
from services.catalogue import Load, Model

TINY = Path("inference/models/moa-tiny-image")


def model_at(folder: Path, **options: Any) -> Model:
    """Return a catalogue model that is loaded from `folder`."""
    return Model(id=folder.name, provider="local-image", load=Load(source=str(folder), options=options))


@functools.cache
def _loaded(folder: Path, loras: tuple[tuple[str, str], ...]) -> Any:
    machine.bring_up(1)
    from inference.image.load import load

    return load(model_at(folder, max_sequence_length=32, loras=dict(loras)), lambda stage, fraction: None)


@dataclass
class Taken:
    """What one order gave."""

    events: list[Any] = field(default_factory=list)

    def of(self, kind: str) -> list[Any]:
        """Return the events of one kind, by its class's name."""
        return [event for event in self.events if type(event).__name__ == kind]

    @property
    def files(self) -> dict[int, bytes]:
        """The files by index."""
        return {made.index: made.data for made in self.of("Made")}


class Bench:
    """One engine over a folder's model, shared weights, ticked by hand."""

    def __init__(
        self, folder: Path = TINY, *, loras: tuple[tuple[str, str], ...] = (), kept: Path | None = None, **options: Any
    ) -> None:
        from inference.image.engine import ImageEngine

        self.sources = loras
        self.loaded = _loaded(folder, loras)
        from inference.image.checkpoints import Checkpoints

        self.workers = ThreadPoolExecutor(1)
        options.setdefault("revision", self.loaded.revision)
        if kept is not None:
            every, revision = 2, self.loaded.revision
            options["checkpoints"] = Checkpoints(kept, every=every, revision=revision, workers=self.workers)
        self.engine = ImageEngine(
            "bench",
            self.loaded.family,
            adapters=self.loaded.adapters,
            size_bytes=0,
            workers=self.workers,
            **options,
        )

    def submit(self, ask: ImageAsk, **fields: Any) -> tuple[Any, Taken]:
        """Queue an ask; give the order and what it will give."""
        flow = Flow(str(fields.pop("tenant", "")), str(fields.pop("priority", "normal")))
        order = self.engine.prepare(ask, flow=flow, key=str(fields.pop("key", "")))
        for name, value in fields.items():
            setattr(order, name, value)
        taken = Taken()
        self.engine.submit(order, taken.events.append)
        return order, taken

    def drain(self) -> None:
        """Tick until nothing is left, and wait for the encoders."""
        while self.engine.busy:
            self.engine.tick()
        self.workers.submit(int).result()

    def make(self, *asks: ImageAsk) -> list[Taken]:
        """Make asks together."""
        taken = [self.submit(ask)[1] for ask in asks]
        self.drain()
        return taken


def pixels(file: bytes) -> NDArray[Any]:
    """Decode a file."""
    return np.asarray(Image.open(io.BytesIO(file)).convert("RGB")).astype(int)
