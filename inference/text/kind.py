"""Language models of one's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import grpc

from inference import machine, options, sources
from inference.engine import Engine, Report
from inference.kinds import Kind, Loading, Parts
from inference.options import TextOptions
from inference.text.servicer import TextServicer
from moa.text.v1.text_service_pb2_grpc import add_TextServiceServicer_to_server
from services.catalogue import Model
from services.common.errors import ModelMisconfigured

if TYPE_CHECKING:
    from inference.text.language import LanguageModel


def _load(model: Model, report: Report, loading: Loading) -> Engine[Any, Any, Any]:
    from inference.text.engine import TextEngine

    chosen = options.of(model, TextOptions)
    language = _language_model(model, report, loading)
    return TextEngine(model.id, language, rows=chosen.rows, max_waiting=chosen.max_waiting)


def _language_model(model: Model, report: Report, loading: Loading) -> LanguageModel:
    """Load a text model: a GGUF file by llama.cpp, another by transformers. `engine` may insist on either."""
    assert model.load is not None
    settings = loading.settings
    engine = options.of(model, TextOptions).engine
    is_gguf = sources.reads_gguf(model.load)
    if engine != "auto" and is_gguf != (engine == "llama"):
        raise ModelMisconfigured(f"model {model.id}: engine: llama reads GGUF files, engine: torch safetensors")
    if is_gguf:
        from inference.text.llama.model import load as load_llama

        return load_llama(model, report, settings.torch_threads)
    report("torch", 0.0)
    machine.bring_up(settings.torch_threads)
    from inference.text.model import load

    return load(model, report, settings.listed(settings.remote_code))


def _serve(parts: Parts, server: grpc.aio.Server) -> None:
    servicer = TextServicer(parts.catalogue, parts.registry, parts.workers, parts.reading, parts.abandoned)
    add_TextServiceServicer_to_server(servicer, server)


KIND: Final = Kind(
    makes="text",
    service="moa.text.v1.TextService",
    options=TextOptions,
    load=_load,
    serve=_serve,
    needs_torch=False,  # llama.cpp needs none
)
