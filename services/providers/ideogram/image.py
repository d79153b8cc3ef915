"""Ideogram 3.0: multipart in, links out (developer.ideogram.ai/api-reference)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct
from yarl import URL

from moa.image.v1.image_pb2 import Operation
from moa.image.v1.image_service_pb2 import GenerateImageRequest
from services.catalogue import Model, Provider
from services.common import errors
from services.common.errors import InvalidField
from services.providers.credentials import Authority, HeaderKeys, keys_of, secret
from services.providers.http import retry_after
from services.providers.http.classify import classified
from services.providers.http.client import Outgoing
from services.providers.http.multipart import File, form
from services.providers.image import capable, masks
from services.providers.image.base import Adapter, Call, Link, Reader
from services.providers.image.reading import Out, WholeReader

_MAX_SEED: Final = 2**31 - 1
_SPEEDS: Final = {"low": "TURBO", "medium": "DEFAULT", "high": "QUALITY"}


class _Picture(Struct):
    url: str | None = None
    prompt: str = ""
    seed: Any = None
    is_image_safe: bool = True


class _Answer(Struct):
    data: list[_Picture] = []


class _Refused(Struct):
    error: str = ""
    message: str = ""


_decode: Final = msgspec.json.Decoder(_Answer).decode


def calls_from(request: GenerateImageRequest, model: Model, provider: Provider) -> list[Call]:
    """Return the requests, of up to eight images each."""
    method, files = _method_and_files(request)
    calls, first = [], 0
    for count in capable.counts_of(request, model):
        body, content_type = form([*_fields(request, model, count, first, method), *files])
        url = URL(f"{provider.base_url.rstrip('/')}/v1/ideogram-v3/{method}")
        calls.append(Call(Outgoing(url, body, {"Content-Type": content_type}), count))
        first += count
    return calls


def _method_and_files(request: GenerateImageRequest) -> tuple[str, list[tuple[str, str | File]]]:
    operation = capable.operation_of(request)
    if operation == Operation.OPERATION_GENERATE:
        return "generate", []
    data, mime = capable.bytes_of(request.images[0], "images[0]")
    image: list[tuple[str, str | File]] = [("image", File(data, mime))]
    if operation == Operation.OPERATION_OUTPAINT:
        return "reframe", image
    if request.HasField("mask"):
        mask = masks.black_painted(capable.bytes_of(request.mask, "mask")[0], data)
        return "inpaint", [*image, ("mask", File(mask, "image/png", "mask"))]
    return "remix", image


def _fields(
    request: GenerateImageRequest, model: Model, count: int, first: int, method: str
) -> list[tuple[str, str | File]]:
    fields: list[tuple[str, str | File]] = [("num_images", str(count))]
    if request.prompt and method != "reframe":
        fields.append(("prompt", request.prompt))
    if method == "reframe":
        size = capable.size_of(request, model)
        if size is None:
            raise InvalidField("give width and height: the size that the image is to have", param="size")
        fields.append(("resolution", f"{size[0]}x{size[1]}"))
    elif method in ("generate", "remix"):
        if request.HasField("width") or request.HasField("height"):
            size = capable.size_of(request, model)
            fields.append(("resolution", f"{size[0]}x{size[1]}" if size else ""))
        elif request.aspect_ratio:
            fields.append(("aspect_ratio", capable.ratio_of(request, model).replace(":", "x")))
        if request.negative_prompt:
            fields.append(("negative_prompt", request.negative_prompt))
    if method == "remix" and request.diffusion.HasField("strength"):
        weight = round(100 * (1 - request.diffusion.strength))
        fields.append(("image_weight", str(min(100, max(1, weight)))))
    if request.quality:
        fields.append(("rendering_speed", _SPEEDS[capable.QUALITIES[request.quality]]))
    if request.style:
        fields.append(("style_type", capable.word_of("style", "styles", request.style.upper(), model)))
    if request.HasField("seed"):
        if request.seed + first > _MAX_SEED:
            raise InvalidField(f"this model takes seeds up to {_MAX_SEED}", param="seed")
        fields.append(("seed", str(request.seed + first)))
    return fields


def reader(call: Call, model: Model, headers: Mapping[str, str]) -> Reader:
    """Make the reader of an answer."""
    return _IdeogramReader()


class _IdeogramReader(WholeReader):
    """Reads an answer. An image that is not safe has no link."""

    def _take(self, data: bytes) -> Sequence[Out]:
        answer = _decode(data)
        good = [p for p in answer.data if p.url and p.is_image_safe]
        if not good:
            raise errors.ContentPolicy("the provider withheld every image", param="prompt")
        return [Link(p.url or "", index, p.prompt, p.seed) for index, p in enumerate(good)]


def error_from(status: int, headers: Mapping[str, str], body: bytes) -> errors.MoaError:
    """Return the error behind a refusal. Ideogram has no typed codes: 422 is its safety check."""
    try:
        refused = msgspec.json.decode(body, type=_Refused)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        refused = _Refused()
    code = "safety" if status == 422 else ""
    return classified(
        status,
        codes={"safety": errors.ContentPolicy},
        code=code,
        words=refused.error or refused.message,
        retry_after_s=retry_after.from_headers(headers),
    )


def authority(provider: Provider, environment: Mapping[str, str]) -> Authority:
    """Return the API key."""
    keys = keys_of(secret(provider, "api_key", environment))
    return HeaderKeys("Api-Key", keys, {"User-Agent": "moa", "Accept-Encoding": "identity"})


def check_request(provider: Provider) -> Outgoing:
    """Ask for an image of nothing: it is refused, and so costs nothing, but only after the key was looked at."""
    body, content_type = form([("num_images", "1")])
    return Outgoing(
        URL(f"{provider.base_url.rstrip('/')}/v1/ideogram-v3/generate"), body, {"Content-Type": content_type}
    )


ADAPTER = Adapter(
    name="ideogram",
    calls_from=calls_from,
    reader=reader,
    error_from=error_from,
    authority=authority,
    request_id_header="x-request-id",
    check_request=check_request,
    check_by_refusal=True,
)
