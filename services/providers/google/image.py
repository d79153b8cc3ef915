"""Gemini's image models: text and images in, text and images out, by `generateContent`.

https://ai.google.dev/gemini-api/docs/image-generation
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

import msgspec
from msgspec import Struct
from yarl import URL

from moa.image.v1.image_service_pb2 import GenerateImageRequest
from services.catalogue import Model, Provider
from services.common import errors
from services.common.errors import InvalidField, UnsupportedMedia
from services.providers.counts import Spelling, read_usage
from services.providers.google import errors as google_errors
from services.providers.google import imagen, listing
from services.providers.google.access import authority, caller_authority, check_request
from services.providers.google.text import carried
from services.providers.http.classify import name_of, words_of
from services.providers.http.client import Outgoing
from services.providers.image import capable
from services.providers.image.base import Adapter, Call, Reader
from services.providers.image.reading import Out, WholeReader, image_event, text_event
from services.providers.text.ignored import Ignored

_MIMES: Final = frozenset({"image/png", "image/jpeg", "image/webp"})
_GOOD_ENDS: Final = frozenset({"STOP", "MAX_TOKENS", "FINISH_REASON_UNSPECIFIED"})
_WITHOUT_IMAGE: Final = frozenset({"NO_IMAGE", "IMAGE_OTHER"})
"""Answers too, if without what was asked for."""
_FAILED_ENDS: Final = frozenset({"OTHER", "MALFORMED_RESPONSE"})
"""Every other reason (IMAGE_SAFETY, PROHIBITED_CONTENT, …) is the content policy's."""
_encode: Final = msgspec.json.Encoder().encode


class _Inline(Struct, rename="camel"):
    data: str = ""
    mime_type: str = ""


class _Part(Struct, rename="camel"):
    text: str | None = None
    thought: bool = False
    inline_data: _Inline | None = None


class _Content(Struct):
    parts: list[_Part] | None = None


class _Candidate(Struct, rename="camel"):
    content: _Content | None = None
    finish_reason: str | None = None
    finish_message: str | None = None


class _Feedback(Struct, rename="camel"):
    block_reason: str | None = None
    block_reason_message: str | None = None


_COUNTS: Final = Spelling(
    prompt=(("promptTokenCount",),),
    completion=(("candidatesTokenCount",), ("thoughtsTokenCount",)),
    reasoning=("thoughtsTokenCount",),
    prompt_images=("promptTokensDetails", "IMAGE"),
    completion_images=("candidatesTokensDetails", "IMAGE"),
    omits_zeros=True,
)


class _Answer(Struct, rename="camel"):
    candidates: list[_Candidate] | None = None
    prompt_feedback: _Feedback | None = None
    usage_metadata: msgspec.Raw = msgspec.Raw(b"")


_decode: Final = msgspec.json.Decoder(_Answer).decode


def calls_from(request: GenerateImageRequest, model: Model, provider: Provider) -> list[Call]:
    """Return the requests: one an image, but for Imagen's."""
    if model.limits.method == "predict":
        return imagen.calls_from(request, model, provider)
    url = URL(f"{provider.base_url.rstrip('/')}/models/{quote(model.name, safe='')}:generateContent")
    return [
        Call(Outgoing(url, _encode(_body(request, model, index)), {}), 1)
        for index, _ in enumerate(capable.counts_of(request, model))
    ]


def _body(request: GenerateImageRequest, model: Model, index: int) -> dict[str, Any]:
    parts: list[dict[str, Any]] = []
    for place, image in enumerate(request.images):
        data, mime = capable.bytes_of(image, f"images[{place}]")
        if mime not in _MIMES:
            raise UnsupportedMedia(f"this model takes PNG, JPEG and WebP, not {mime}", param=f"images[{place}]")
        parts.append({"inlineData": {"mimeType": mime, "data": b64encode(data).decode()}})
    parts.append({"text": request.prompt})
    config: dict[str, Any] = {"responseModalities": ["TEXT", "IMAGE"]}
    if request.HasField("seed"):
        if request.seed + index >= 2**31:
            raise InvalidField("this provider takes seeds of 32 bits", param="seed")
        config["seed"] = request.seed + index
    picture: dict[str, str] = {}
    ratio = capable.ratio_of(request, model)
    if ratio:
        picture["aspectRatio"] = ratio
    if request.quality:
        quality = capable.QUALITIES[request.quality]
        picture["imageSize"] = capable.word_of("quality", "qualities", quality, model)
    if picture:
        config["imageConfig"] = picture
    made: dict[str, Any] = {"contents": [{"role": "user", "parts": parts}], "generationConfig": config}
    carried.merge(made, request.vendor, "", Ignored(), carried.DENIED_FOR_IMAGES)
    return made


def ignored(request: GenerateImageRequest, model: Model, provider: Provider) -> Sequence[str]:
    """Return the names of the vendor's fields that do not pass: all of another vendor's, and to Imagen."""
    if request.vendor.vendor != carried.VENDOR or model.limits.method == "predict":
        return request.vendor.names
    noted = Ignored()
    carried.merge({}, request.vendor, "", noted, carried.DENIED_FOR_IMAGES)
    return noted.names


def reader(call: Call, model: Model, headers: Mapping[str, str]) -> Reader:
    """Make the reader of an answer."""
    return imagen.reader(call, model, headers) if model.limits.method == "predict" else _GeminiReader()


class _GeminiReader(WholeReader):
    """Reads an answer: text and images as they stand. Text alone is an answer too, of a model that looks at images."""

    def _take(self, data: bytes) -> Sequence[Out]:
        answer = _decode(data)
        self.reported = read_usage(answer.usage_metadata, _COUNTS)
        feedback = answer.prompt_feedback
        if feedback is not None and feedback.block_reason:
            words = f": {words_of(feedback.block_reason_message)}" if feedback.block_reason_message else ""
            why = name_of(feedback.block_reason).lower()
            raise errors.ContentPolicy(f"the provider refused the prompt ({why}){words}", param="prompt")
        out: list[Out] = []
        count = 0
        for candidate in answer.candidates or ():
            for part in (candidate.content.parts if candidate.content else None) or ():
                if part.thought:
                    continue
                if part.inline_data is not None:
                    out.append(image_event(count, self._blob(part.inline_data.data)))
                    count += 1
                elif part.text:
                    out.append(text_event(part.text))
            if not count:
                _check_end(candidate, has_text=bool(out))
        if not out:
            raise errors.UpstreamBroken("the provider sent no image")
        return out


def _check_end(candidate: _Candidate, *, has_text: bool) -> None:
    """Raise the error of a candidate that made no image; `has_text`: whether it has words instead."""
    word = candidate.finish_reason or "STOP"
    if word in _WITHOUT_IMAGE:
        if has_text:
            return
        words = f": {words_of(candidate.finish_message)}" if candidate.finish_message else ""
        raise errors.ContentPolicy(f"the model made no image ({word.lower()}){words}", param="prompt")
    if word in _FAILED_ENDS:
        raise errors.UpstreamFailed(f"the provider made no image ({word.lower()})")
    if word not in _GOOD_ENDS:
        words = f": {words_of(candidate.finish_message)}" if candidate.finish_message else ""
        raise errors.ContentPolicy(f"the provider withheld the image ({name_of(word).lower()}){words}", param="prompt")


ADAPTER = Adapter(
    name="gemini",
    calls_from=calls_from,
    reader=reader,
    error_from=google_errors.error_from,
    authority=authority,
    request_id_header="x-goog-request-id",
    ignored=ignored,
    list_models=listing.list_models,
    check_request=check_request,
    caller_authority=caller_authority,
)
