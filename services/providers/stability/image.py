"""Stability's Stable Image API, v2beta: multipart in, one image out as bytes.

https://platform.stability.ai/docs/api-reference
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from msgspec import Struct
from yarl import URL

from moa.image.v1.image_pb2 import Operation
from moa.image.v1.image_service_pb2 import GenerateImageRequest
from services.catalogue import Model, Provider
from services.common import errors
from services.common.errors import InvalidField, Unsupported
from services.providers.credentials import Authority, bearers, secret
from services.providers.http import retry_after
from services.providers.http.classify import classified
from services.providers.http.client import Outgoing
from services.providers.http.multipart import File, form
from services.providers.image import capable, masks
from services.providers.image.base import Adapter, Call, Reader
from services.providers.image.reading import Out, WholeReader, image_event

_MAX_SEED: Final = 4_294_967_294
_CODES: Final = {
    "content_moderation": errors.ContentPolicy,
    "unauthorized": errors.UpstreamAuth,
    "payment_required": errors.UpstreamUnpaid,
    "payload_too_large": errors.TooLarge,
    "rate_limit_exceeded": errors.UpstreamRateLimited,
    "model_not_found": errors.ModelNotFound,
    "internal_error": errors.UpstreamFailed,
}
_OPERATIONS: Final = {
    Operation.OPERATION_OUTPAINT: "edit/outpaint",
    Operation.OPERATION_REMOVE_BACKGROUND: "edit/remove-background",
}
Field = tuple[str, str | File]


class _Refused(Struct):
    name: str = ""
    errors: list[str] = []


def calls_from(request: GenerateImageRequest, model: Model, provider: Provider) -> list[Call]:
    """Return the requests, of one image each. The model's upstream name is `ultra`, `core`, or one of SD3's."""
    calls = []
    for index, _ in enumerate(capable.counts_of(request, model)):
        path, fields = _path_and_fields(request, model)
        if request.HasField("seed"):
            if request.seed + index > _MAX_SEED:
                raise InvalidField(f"this model takes seeds up to {_MAX_SEED}", param="seed")
            fields.append(("seed", str(request.seed + index)))
        if wanted := capable.format_of(request, model):
            fields.append(("output_format", wanted))
        body, content_type = form(fields)
        url = URL(f"{provider.base_url.rstrip('/')}/v2beta/stable-image/{path}")
        calls.append(Call(Outgoing(url, body, {"Content-Type": content_type, "Accept": "image/*"}), 1))
    return calls


def _path_and_fields(request: GenerateImageRequest, model: Model) -> tuple[str, list[Field]]:
    operation = capable.operation_of(request)
    fields: list[Field] = []
    if operation != Operation.OPERATION_GENERATE:
        data, mime = capable.bytes_of(request.images[0], "images[0]")
        fields.append(("image", File(data, mime)))
    if operation == Operation.OPERATION_REMOVE_BACKGROUND:
        return _OPERATIONS[operation], fields
    if request.prompt:
        fields.append(("prompt", request.prompt))
    if operation == Operation.OPERATION_OUTPAINT:
        size = capable.size_of(request, model)
        if size is None:
            raise InvalidField("give width and height: the size that the image is to have", param="size")
        added = zip(("left", "up", "right", "down"), masks.margins(data, size), strict=True)
        fields += [(side, str(pixels)) for side, pixels in added if pixels]
        return _OPERATIONS[operation], fields
    if request.negative_prompt:
        fields.append(("negative_prompt", request.negative_prompt))
    if request.style:
        fields.append(("style_preset", capable.word_of("style", "styles", request.style, model)))
    if request.HasField("mask"):
        mask = masks.white_painted(capable.bytes_of(request.mask, "mask")[0], data)
        return "edit/inpaint", [*fields, ("mask", File(mask, "image/png", "mask"))]
    method = model.name if model.name in ("ultra", "core") else "sd3"
    if method == "sd3":
        fields.append(("model", model.name))
        if request.diffusion.HasField("guidance_scale"):
            fields.append(("cfg_scale", str(request.diffusion.guidance_scale)))
    if operation == Operation.OPERATION_EDIT:
        if method == "core":
            raise Unsupported(f"model {model.id!r} changes an image only inside a mask", param="mask")
        strength = request.diffusion.strength if request.diffusion.HasField("strength") else 0.6
        fields.append(("strength", str(strength)))
        if method == "sd3":
            fields.append(("mode", "image-to-image"))
        if capable.ratio_of(request, model):
            raise Unsupported("edits with this model keep the image's size; leave it out", param="aspect_ratio")
    else:
        ratio = capable.ratio_of(request, model)
        if ratio:
            fields.append(("aspect_ratio", ratio))
    return f"generate/{method}", fields


def reader(call: Call, model: Model, headers: Mapping[str, str]) -> Reader:
    """Make the reader of an answer: the body is the image, the headers say how it went."""
    return _StabilityReader(headers.get("finish-reason", "SUCCESS"), headers.get("seed", ""))


class _StabilityReader(WholeReader):
    """Reads an answer."""

    def __init__(self, finish: str, seed: str) -> None:
        super().__init__(json=False)
        self._finish = finish
        self._seed = int(seed) if seed.isdecimal() else None

    def _take(self, data: bytes) -> Sequence[Out]:
        if self._finish == "CONTENT_FILTERED":
            raise errors.ContentPolicy("the provider withheld the image", param="prompt")
        return [image_event(0, data, seed=self._seed)]


def error_from(status: int, headers: Mapping[str, str], body: bytes) -> errors.MoaError:
    """Return the error behind a refusal."""
    try:
        refused = msgspec.json.decode(body, type=_Refused)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        refused = _Refused()
    return classified(
        status,
        codes=_CODES,
        code=refused.name,
        words="; ".join(refused.errors),
        retry_after_s=retry_after.from_headers(headers),
    )


def authority(provider: Provider, environment: Mapping[str, str]) -> Authority:
    """Return the bearer key."""
    headers = {"User-Agent": "moa", "Accept-Encoding": "identity"}
    return bearers(secret(provider, "api_key", environment), headers)


def check_request(provider: Provider) -> Outgoing:
    """Ask for the account's balance: it costs nothing and needs the key."""
    return Outgoing(URL(f"{provider.base_url.rstrip('/')}/v1/user/balance"), b"", {}, "GET")


ADAPTER = Adapter(
    name="stability",
    calls_from=calls_from,
    reader=reader,
    error_from=error_from,
    authority=authority,
    request_id_header="x-request-id",
    check_request=check_request,
)
