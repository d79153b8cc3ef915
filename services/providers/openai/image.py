"""OpenAI's image API: generations, edits with masks, partial images in a stream; and the same on Azure.

https://platform.openai.com/docs/api-reference/images
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct
from yarl import URL

from moa.image.v1.image_pb2 import Operation
from moa.image.v1.image_service_pb2 import GenerateImageRequest
from services.catalogue import Model, Provider
from services.common import errors
from services.common.estimate import ReportedUsage
from services.common.vendor_fields import merge
from services.providers.counts import Spelling, read_usage
from services.providers.credentials import Authority, bearers, secret
from services.providers.http.blobs import BlobLifter
from services.providers.http.client import Outgoing
from services.providers.http.constants import without_constants
from services.providers.http.multipart import File, form
from services.providers.http.sse import EventParser
from services.providers.image import capable, masks
from services.providers.image.base import Adapter, Call, Link, Reader
from services.providers.image.reading import Out, WholeReader, blob_or_decoded, image_event, preview_event
from services.providers.openai import errors as openai_errors
from services.providers.openai import image_carried, listing
from services.providers.text.ignored import Ignored

HEADERS: Final[Mapping[str, str]] = {"User-Agent": "moa", "Accept-Encoding": "identity"}
_JSON: Final = {"Content-Type": "application/json"}
_MAX_PARTIAL: Final = 3
_encode: Final = msgspec.json.Encoder().encode
_decode_any: Final = msgspec.json.Decoder().decode


class Options(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The provider's `options` in the catalogue."""

    passes: Literal["all", "documented"] = "all"
    """As of texts (`text.request.Options`)."""


def _takes_documented(provider: Provider) -> bool:
    return msgspec.convert(provider.options, Options).passes == "documented"


_COUNTS: Final = Spelling(
    prompt=(("input_tokens",),),
    completion=(("output_tokens",),),
    cached=(("input_tokens_details", "cached_tokens"),),
    prompt_images=("input_tokens_details", "image_tokens"),
    completion_images=("output_tokens_details", "image_tokens"),
)


class _Picture(Struct):
    b64_json: str | None = None
    url: str | None = None
    revised_prompt: str | None = None


class _Answer(Struct):
    data: list[_Picture] = []
    usage: msgspec.Raw = msgspec.Raw(b"")


class _Event(Struct):
    type: str = ""
    b64_json: str = ""
    partial_image_index: int = 0
    usage: msgspec.Raw = msgspec.Raw(b"")
    error: openai_errors.Failure | None = None


_answer: Final = msgspec.json.Decoder(_Answer).decode
_event: Final = msgspec.json.Decoder(_Event).decode


def calls_from(request: GenerateImageRequest, model: Model, provider: Provider) -> list[Call]:
    """Return the requests to `/images/generations` or `/images/edits`."""
    url, documented = f"{provider.base_url.rstrip('/')}/images/{{}}", _takes_documented(provider)
    return calls_to(url, request, model, name_model=True, documented=documented)


def calls_to(
    url: str, request: GenerateImageRequest, model: Model, *, name_model: bool, documented: bool
) -> list[Call]:
    """Return the requests to `url`, a pattern of which `{}` is the method.

    Args:
        url: The pattern.
        request: What is asked for.
        model: Who makes it.
        name_model: Whether the body names the model, since the URL does not.
        documented: Whether the provider takes only what OpenAI documents.
    """
    beside = image_carried.passing(request, model, Ignored(), documented=documented)
    counts = capable.counts_of(request, model)
    return [_call(request, model, url, count, beside, name_model=name_model) for count in counts]


def ignored(request: GenerateImageRequest, model: Model, provider: Provider) -> Sequence[str]:
    """Return the names of the vendor's fields that do not pass: all of another vendor's."""
    return ignored_of(request, model, documented=_takes_documented(provider))


def ignored_of(request: GenerateImageRequest, model: Model, *, documented: bool) -> Sequence[str]:
    """Return the same, of a provider that takes only what OpenAI documents, or all."""
    if request.vendor.vendor != image_carried.VENDOR:
        return request.vendor.names
    noted = Ignored()
    image_carried.passing(request, model, noted, documented=documented)
    return noted.names


def _call(
    request: GenerateImageRequest, model: Model, url: str, count: int, beside: Mapping[str, Any], *, name_model: bool
) -> Call:
    fields = _fields(request, model, count)
    if name_model:
        fields["model"] = model.name
    merge(fields, beside)
    returns = request.vendor.vendor == image_carried.VENDOR
    if capable.operation_of(request) == Operation.OPERATION_GENERATE and not request.images:
        return Call(Outgoing(URL(url.format("generations"), encoded=True), _encode(fields), _JSON), count, returns)
    parts: list[tuple[str, str | File]] = [(name, _text(value)) for name, value in fields.items()]
    for index, image in enumerate(request.images):
        data, mime = capable.bytes_of(image, f"images[{index}]")
        # One image goes by the plain name, several by the array's.
        parts.append(("image" if len(request.images) == 1 else "image[]", File(data, mime, f"image{index}")))
    if request.HasField("mask"):
        first = capable.bytes_of(request.images[0], "images[0]")[0]
        mask = masks.clear_painted(capable.bytes_of(request.mask, "mask")[0], first)
        parts.append(("mask", File(mask, "image/png", "mask")))
    body, content_type = form(parts)
    outgoing = Outgoing(URL(url.format("edits"), encoded=True), body, {"Content-Type": content_type})
    return Call(outgoing, count, returns)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return _encode(value).decode() if isinstance(value, dict | list) else str(value)


def _fields(request: GenerateImageRequest, model: Model, count: int) -> dict[str, Any]:
    fields: dict[str, Any] = {"prompt": request.prompt}
    if count > 1:
        fields["n"] = count
    size = capable.size_of(request, model)
    if size is not None:
        fields["size"] = f"{size[0]}x{size[1]}"
    if request.quality:
        fields["quality"] = capable.word_of("quality", "qualities", capable.QUALITIES[request.quality], model)
    if request.background and model.can("background"):
        fields["background"] = capable.BACKGROUNDS[request.background]
    if wanted := capable.format_of(request, model):
        fields["output_format"] = wanted
    if request.style:
        fields["style"] = capable.word_of("style", "styles", request.style, model)
    if request.moderation and model.can("moderation"):
        fields["moderation"] = request.moderation
    if request.user:
        fields["user"] = request.user
    if model.limits.response_format:
        # Models before gpt-image send links unless asked; gpt-image refuses the field.
        fields["response_format"] = model.limits.response_format
    if request.stream and request.preview_every and model.can("preview") and count == 1:
        fields |= {"stream": True, "partial_images": _MAX_PARTIAL}
    return fields


def reader(call: Call, model: Model, headers: Mapping[str, str]) -> Reader:
    """Make the reader of an answer."""
    if headers.get("content-type", "").startswith("text/event-stream"):
        return _StreamReader(returns=call.returns)
    return _ImagesReader(returns=call.returns)


class _ImagesReader(WholeReader):
    """Reads a whole answer; `returns`: with what no contract types."""

    def __init__(self, *, returns: bool) -> None:
        super().__init__()
        self._returns = returns

    def _take(self, data: bytes) -> Sequence[Out]:
        answer = _answer(data)
        self.reported = read_usage(answer.usage, _COUNTS)
        out: list[Out] = []
        for index, made in enumerate(answer.data):
            revised = made.revised_prompt or ""
            if made.b64_json:
                out.append(image_event(index, self._blob(made.b64_json), revised_prompt=revised))
            elif made.url:
                out.append(Link(made.url, index, revised))
        if not out:
            raise errors.UpstreamBroken("the provider sent no image")
        if self._returns and self._lifter is not None:
            out += image_carried.of_answer(_decode_any(data), image_carried.restoring(self._lifter.take))
        return out


class _StreamReader:
    """Reads `image_generation.*` and `image_edit.*` events; `returns`: with what no contract types."""

    def __init__(self, *, returns: bool) -> None:
        self._returns = returns
        self.failure: errors.MoaError | None = None
        self.reported: ReportedUsage | None = None
        self._lifter = BlobLifter(lines=True)
        self._parser = EventParser()
        self._completed = 0

    def feed(self, data: bytes) -> list[Out]:
        """Return the events that `data` completes."""
        out: list[Out] = []
        try:
            self._lifter.feed(data)
            rest = bytes(self._lifter.skeleton)
            self._lifter.skeleton.clear()
            for payload in self._parser.feed(rest):
                out += self._take(payload)
        except errors.MoaError as error:
            self.failure = error
        return out

    def end(self) -> list[Out]:
        """Return nothing more; an answer without its last image is broken."""
        if self.failure is None and not self._completed:
            self.failure = errors.UpstreamBroken("the provider's answer broke off")
        return []

    def _take(self, payload: bytes) -> list[Out]:
        if payload == b"[DONE]":
            return []
        try:
            event = _event(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            mended = without_constants(payload)
            # A preview may be missing; an answer without its image is broken.
            return self._take(mended) if mended is not None else []
        if event.error is not None:
            raise openai_errors.failed(0, event.error)
        if event.type.endswith(".partial_image"):
            step = min(max(event.partial_image_index, 0), _MAX_PARTIAL) + 1
            return [preview_event(0, step, _MAX_PARTIAL + 1, self._blob(event.b64_json))]
        if event.type.endswith(".completed"):
            self._completed += 1
            self.reported = read_usage(event.usage, _COUNTS) or self.reported
            out: list[Out] = [image_event(self._completed - 1, self._blob(event.b64_json))]
            if self._returns:
                restored = image_carried.restoring(self._lifter.take)
                out += image_carried.of_answer(_decode_any(payload), restored, self._completed - 1)
            return out
        return []

    def _blob(self, text: str) -> bytes:
        return blob_or_decoded(self._lifter, text)


def authority(provider: Provider, environment: Mapping[str, str]) -> Authority:
    """Return the bearer key."""
    return bearers(secret(provider, "api_key", environment), HEADERS)


def check_request(provider: Provider) -> Outgoing:
    """Ask for the list of models: it costs nothing and needs the key."""
    return Outgoing(URL(f"{provider.base_url.rstrip('/')}/models"), b"", {}, "GET")


ADAPTER = Adapter(
    name="openai",
    calls_from=calls_from,
    reader=reader,
    error_from=openai_errors.error_from,
    authority=authority,
    request_id_header="x-request-id",
    list_models=listing.list_models,
    check_request=check_request,
    ignored=ignored,
    options=Options,
)
