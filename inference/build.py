"""Load a catalogue model into an engine. Runs in the loader's thread: what it imports takes seconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any

from inference import machine, options, sources
from inference.engine import Engine, Report
from inference.options import EmbeddingOptions, ImageOptions, TextOptions, VisionOptions
from inference.settings import InferenceSettings
from services.catalogue import Model, Watched
from services.common.errors import ModelMisconfigured

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
        self._builders: Mapping[str, Callable[[Model, Report], Engine[Any, Any, Any]]] = {
            "text": self._text,
            "image": self._image,
            "embedding": self._embedding,
            "vision": self._vision,
        }
        """What loads a model, by what it makes."""

    def __call__(self, model: Model, report: Report) -> Engine[Any, Any, Any]:
        """Load a model and warm it. Raises ModelMisconfigured when it cannot be."""
        engine = self._built(model, report)
        engine.warm(report)
        return engine

    def _built(self, model: Model, report: Report) -> Engine[Any, Any, Any]:
        makes = self._catalogue.now.makes(model)
        if makes != "text":  # which may need none
            report("torch", 0.0)
            machine.bring_up(self._settings.torch_threads)
        return self._builders[makes](model, report)

    def _vision(self, model: Model, report: Report) -> Engine[Any, Any, Any]:
        from inference.vision.engine import VisionEngine
        from inference.vision.load import load

        loaded = load(model, report)
        return VisionEngine(model.id, loaded.family, max_waiting=options.of(model, VisionOptions).max_waiting)

    def _embedding(self, model: Model, report: Report) -> Engine[Any, Any, Any]:
        from inference.embedding.engine import EmbeddingEngine
        from inference.embedding.model import load

        chosen = options.of(model, EmbeddingOptions)
        encoder = load(model, report)
        return EmbeddingEngine(model.id, encoder, batch_tokens=chosen.batch_tokens, max_waiting=chosen.max_waiting)

    def _text(self, model: Model, report: Report) -> Engine[Any, Any, Any]:
        from inference.text.engine import TextEngine

        chosen = options.of(model, TextOptions)
        language = self._language_model(model, report)
        return TextEngine(model.id, language, rows=chosen.rows, max_waiting=chosen.max_waiting)

    def _language_model(self, model: Model, report: Report) -> LanguageModel:
        """Load a text model: a GGUF file by llama.cpp, another by transformers. `engine` may insist on either."""
        assert model.load is not None
        engine = options.of(model, TextOptions).engine
        is_gguf = sources.reads_gguf(model.load)
        if engine != "auto" and is_gguf != (engine == "llama"):
            raise ModelMisconfigured(f"model {model.id}: engine: llama reads GGUF files, engine: torch safetensors")
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

        chosen = options.of(model, ImageOptions)
        loaded = load(model, report)
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
            most_lanes=chosen.most_lanes or (8 if on_cpu else 16),
            fixed_lanes=(0 if on_cpu else 8) if chosen.fixed_lanes is None else chosen.fixed_lanes,
            max_waiting=chosen.max_waiting,
            memory_bytes=chosen.memory_bytes,
            warmed=_warmed(model, chosen),
            checkpoints=checkpoints,
        )


def _warmed(model: Model, chosen: ImageOptions) -> Sequence[tuple[int, int]]:
    """Return the sizes that a model is warmed for: the option's; compiled ones at least for the default size."""
    if chosen.warm is not None or chosen.compile is None:
        return chosen.warm or ()
    return [(int(model.defaults.get("width", 512)), int(model.defaults.get("height", 512)))]
