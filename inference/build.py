"""Load a catalogue model into an engine. Runs in the loader's thread: what it imports takes seconds."""

from __future__ import annotations

from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any

from inference import machine, sources
from inference.engine import Engine, Report
from inference.settings import InferenceSettings
from services.catalogue import Model, Watched
from services.common.errors import Unavailable

if TYPE_CHECKING:
    from inference.text.language import LanguageModel


class Builder:
    """Builds engines.

    Args:
        settings: The process's settings.
        catalogue: Says what a model's provider makes.
        workers: Where images are encoded.
    """

    def __init__(self, settings: InferenceSettings, catalogue: Watched, workers: Executor) -> None:
        self._workers = workers
        self._settings = settings
        self._catalogue = catalogue

    def __call__(self, model: Model, report: Report) -> Engine[Any, Any, Any]:
        """Load a model and warm it. Raises Unavailable when it cannot be."""
        engine = self._built(model, report)
        engine.warm(report)
        return engine

    def _built(self, model: Model, report: Report) -> Engine[Any, Any, Any]:
        makes = self._catalogue.now.makes(model)
        if makes == "text":
            return self._text(model, report)
        report("torch", 0.0)
        machine.bring_up(self._settings.torch_threads)
        if makes == "embedding":
            return self._embedding(model, report)
        return self._vision(model, report) if makes == "vision" else self._image(model, report)

    def _vision(self, model: Model, report: Report) -> Engine[Any, Any, Any]:
        from inference.vision.engine import VisionEngine
        from inference.vision.load import load

        assert model.load is not None
        return VisionEngine(
            model.id, load(model, report).family, max_waiting=int(model.load.options.get("max_waiting", 16))
        )

    def _embedding(self, model: Model, report: Report) -> Engine[Any, Any, Any]:
        from inference.embedding.engine import EmbeddingEngine
        from inference.embedding.model import load

        assert model.load is not None
        options = model.load.options
        return EmbeddingEngine(
            model.id,
            load(model, report),
            batch_tokens=int(options.get("batch_tokens", 4096)),
            max_waiting=int(options.get("max_waiting", 4096)),
        )

    def _text(self, model: Model, report: Report) -> Engine[Any, Any, Any]:
        from inference.text.engine import TextEngine

        assert model.load is not None
        options = model.load.options
        return TextEngine(
            model.id,
            self._language_model(model, report),
            rows=int(options.get("rows", 8)),
            max_waiting=int(options.get("max_waiting", 256)),
        )

    def _language_model(self, model: Model, report: Report) -> LanguageModel:
        """Load a text model: a GGUF file by llama.cpp, another by transformers. `engine` may insist on either."""
        assert model.load is not None
        engine = str(model.load.options.get("engine", "auto"))
        if engine not in ("auto", "llama", "torch"):
            raise Unavailable(f"model {model.id}: engine must be auto, llama or torch")
        is_gguf = sources.reads_gguf(model.load)
        if engine != "auto" and is_gguf != (engine == "llama"):
            raise Unavailable(f"model {model.id}: engine: llama reads GGUF files, engine: torch safetensors")
        if is_gguf:
            from inference.text.llama.model import load as load_llama

            return load_llama(model, report, self._settings.torch_threads)
        report("torch", 0.0)
        machine.bring_up(self._settings.torch_threads)
        from inference.text.model import load

        return load(model, report, self._settings.listed(self._settings.remote_code))

    def _image(self, model: Model, report: Report) -> Engine[Any, Any, Any]:
        from inference.image.checkpoints import Checkpoints
        from inference.image.engine import ImageEngine
        from inference.image.load import load

        assert model.load is not None
        loaded = load(model, report)
        options = model.load.options
        settings = self._settings
        checkpoints = None
        if settings.checkpoints is not None:
            checkpoints = Checkpoints(
                settings.checkpoints,
                every=settings.checkpoint_every,
                revision=loaded.revision,
                workers=self._workers,
            )
        on_cpu = loaded.family.device.type == "cpu"
        return ImageEngine(
            model.id,
            loaded.family,
            adapters=loaded.adapters,
            revision=loaded.revision,
            size_bytes=loaded.size_bytes,
            workers=self._workers,
            most_lanes=int(options.get("most_lanes", 8 if on_cpu else 16)),
            fixed_lanes=int(options.get("fixed_lanes", 0 if on_cpu else 8)),
            max_waiting=int(options.get("max_waiting", 64)),
            memory_bytes=int(options.get("memory_bytes", 0)),
            warmed=_warmed(model),
            checkpoints=checkpoints,
        )


def _warmed(model: Model) -> list[tuple[int, int]]:
    """Return the sizes that a model is warmed for: the option's; compiled ones at least for the default size."""
    assert model.load is not None
    options, defaults = model.load.options, model.defaults
    if "warm" in options or "compile" not in options:
        return [(int(width), int(height)) for width, height in options.get("warm", ())]
    return [(int(defaults.get("width", 512)), int(defaults.get("height", 512)))]
