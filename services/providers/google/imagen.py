"""Imagen on the Gemini API: `:predict`, for models with `limits: {method: predict}`.

https://ai.google.dev/gemini-api/docs/imagen
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

import msgspec
from msgspec import Struct
from yarl import URL

from moa.image.v1.image_service_pb2 import GenerateImageRequest
from services.catalogue import Model, Provider
from services.common import errors
from services.providers.http.classify import words_of
from services.providers.http.client import Outgoing
from services.providers.image import capable
from services.providers.image.base import Call, Reader
from services.providers.image.reading import Out, WholeReader, image_event

_encode: Final = msgspec.json.Encoder().encode


class _Prediction(Struct, rename="camel"):
    bytes_base64_encoded: str | None = None
    prompt: str | None = None
    rai_filtered_reason: str | None = None


class _Answer(Struct):
    predictions: list[_Prediction] = []


_decode: Final = msgspec.json.Decoder(_Answer).decode


def calls_from(request: GenerateImageRequest, model: Model, provider: Provider) -> list[Call]:
    """Return the requests, of up to four images each."""
    url = URL(f"{provider.base_url.rstrip('/')}/models/{quote(model.name, safe='')}:predict")
    calls = []
    for count in capable.counts_of(request, model):
        parameters: dict[str, Any] = {"sampleCount": count, "includeRaiReason": True}
        ratio = capable.ratio_of(request, model)
        if ratio:
            parameters["aspectRatio"] = ratio
        if request.quality:
            quality = capable.QUALITIES[request.quality]
            parameters["sampleImageSize"] = capable.word_of("quality", "qualities", quality, model)
        if mime := capable.format_of(request, model):
            parameters["outputOptions"] = {"mimeType": mime}
        body = {"instances": [{"prompt": request.prompt}], "parameters": parameters}
        calls.append(Call(Outgoing(url, _encode(body), {}), count))
    return calls


def reader(call: Call, model: Model, headers: Mapping[str, str]) -> Reader:
    """Make the reader of an answer."""
    return _ImagenReader()


class _ImagenReader(WholeReader):
    """Reads an answer. Images that were filtered are missing, with a reason in their place."""

    def _take(self, data: bytes) -> Sequence[Out]:
        answer = _decode(data)
        made = [p for p in answer.predictions if p.bytes_base64_encoded]
        if not made:
            why = next((p.rai_filtered_reason for p in answer.predictions if p.rai_filtered_reason), "")
            words = f": {words_of(why)}" if why else ""
            raise errors.ContentPolicy(f"the provider withheld every image{words}", param="prompt")
        return [
            image_event(index, self._blob(p.bytes_base64_encoded or ""), revised_prompt=p.prompt or "")
            for index, p in enumerate(made)
        ]
