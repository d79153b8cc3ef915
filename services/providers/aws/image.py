"""Images on AWS Bedrock by InvokeModel: Nova Canvas, and Stability's Stable Image and Stable Diffusion models.

https://docs.aws.amazon.com/nova/latest/userguide/image-gen-access.html
https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-stability-diffusion.html
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

import msgspec
from msgspec import Struct
from yarl import URL

from moa.image.v1.image_pb2 import Operation
from moa.image.v1.image_service_pb2 import GenerateImageRequest
from services.catalogue import Model, Provider
from services.common import errors
from services.common.errors import InvalidField, Unsupported
from services.providers.aws import access as aws_access
from services.providers.aws import errors as aws_errors
from services.providers.aws import listing
from services.providers.aws.access import Options
from services.providers.http.classify import words_of
from services.providers.http.client import Outgoing
from services.providers.image import capable, masks
from services.providers.image.base import Adapter, Call, Reader
from services.providers.image.reading import Out, WholeReader, image_event

_encode: Final = msgspec.json.Encoder().encode
_MAX_NOVA_SEED: Final = 858_993_459
_MAX_STABILITY_SEED: Final = 4_294_967_294
Json = dict[str, Any]


def calls_from(request: GenerateImageRequest, model: Model, provider: Provider) -> list[Call]:
    """Return the requests: Nova makes up to five images a call, Stability's models one."""
    body_from = _nova_body if ".nova-" in f".{model.name}" else _stability_body
    url = URL(f"{provider.base_url.rstrip('/')}/model/{quote(model.name, safe='')}/invoke", encoded=True)
    calls, first = [], 0
    for count in capable.counts_of(request, model):
        calls.append(Call(Outgoing(url, _encode(body_from(request, model, count, first)), {}), count))
        first += count
    return calls


def _image(request: GenerateImageRequest, index: int = 0) -> bytes:
    return capable.bytes_of(request.images[index], f"images[{index}]")[0]


def _base64(data: bytes) -> str:
    return b64encode(data).decode()


def _seed(request: GenerateImageRequest, first: int, most: int) -> int:
    if request.seed + first > most:
        raise InvalidField(f"this model takes seeds up to {most}", param="seed")
    return request.seed + first


# Nova Canvas.


def _nova_body(request: GenerateImageRequest, model: Model, count: int, first: int) -> Json:
    operation = capable.operation_of(request)
    if operation == Operation.OPERATION_REMOVE_BACKGROUND:
        # This task takes no configuration.
        return {"taskType": "BACKGROUND_REMOVAL", "backgroundRemovalParams": {"image": _base64(_image(request))}}
    config: Json = {"numberOfImages": count}
    size = capable.size_of(request, model)
    if request.quality:
        quality = capable.QUALITIES[request.quality]
        config["quality"] = capable.word_of("quality", "qualities", quality, model)
    if request.diffusion.HasField("guidance_scale"):
        scale = request.diffusion.guidance_scale
        if not 1.1 <= scale <= 10:
            raise InvalidField("this model takes a guidance scale from 1.1 to 10", param="guidance_scale")
        config["cfgScale"] = scale
    if request.HasField("seed"):
        config["seed"] = _seed(request, first, _MAX_NOVA_SEED)
    body = _nova_task(request, model, operation, size)
    if body["taskType"] in ("TEXT_IMAGE", "COLOR_GUIDED_GENERATION", "IMAGE_VARIATION") and size is not None:
        config |= {"width": size[0], "height": size[1]}
    return {**body, "imageGenerationConfig": config}


def _nova_words(request: GenerateImageRequest) -> Json:
    words: Json = {}
    if request.prompt:
        words["text"] = request.prompt
    if request.negative_prompt:
        words["negativeText"] = request.negative_prompt
    return words


def _nova_task(
    request: GenerateImageRequest, model: Model, operation: Operation.ValueType, size: tuple[int, int] | None
) -> Json:
    words = _nova_words(request)
    if operation == Operation.OPERATION_EDIT:
        if not request.HasField("mask"):
            raise Unsupported(f"model {model.id!r} changes an image only inside a mask", param="mask")
        image = _image(request)
        mask = masks.black_painted(capable.bytes_of(request.mask, "mask")[0], image)
        params = {"image": _base64(image), "maskImage": _base64(mask), **words}
        return {"taskType": "INPAINTING", "inPaintingParams": params}
    if operation == Operation.OPERATION_OUTPAINT:
        if size is None:
            raise InvalidField("give width and height: the size that the image is to have", param="size")
        canvas, mask = masks.centred(_image(request), size)
        params = {"image": _base64(canvas), "maskImage": _base64(mask), **words}
        return {"taskType": "OUTPAINTING", "outPaintingParams": params}
    if operation == Operation.OPERATION_VARIATION:
        images = [_base64(_image(request, index)) for index in range(len(request.images))]
        variation: Json = {"images": images, **words}
        if request.diffusion.HasField("strength"):
            variation["similarityStrength"] = max(0.2, 1.0 - request.diffusion.strength)
        return {"taskType": "IMAGE_VARIATION", "imageVariationParams": variation}
    if request.colors:
        colours: Json = {"colors": list(request.colors), **words}
        if request.images:
            colours["referenceImage"] = _base64(_image(request))
        return {"taskType": "COLOR_GUIDED_GENERATION", "colorGuidedGenerationParams": colours}
    made: Json = dict(words)
    if request.style:
        made["style"] = capable.word_of("style", "styles", request.style, model)
    if request.images:
        made |= {"conditionImage": _base64(_image(request)), "controlMode": "CANNY_EDGE"}
    return {"taskType": "TEXT_IMAGE", "textToImageParams": made}


# Stability's models.


def _stability_body(request: GenerateImageRequest, model: Model, count: int, first: int) -> Json:
    body: Json = {"prompt": request.prompt}
    if capable.operation_of(request) == Operation.OPERATION_EDIT:
        strength = request.diffusion.strength if request.diffusion.HasField("strength") else 0.6
        body |= {"mode": "image-to-image", "image": _base64(_image(request)), "strength": strength}
        if capable.ratio_of(request, model):
            raise Unsupported("edits with this model keep the image's size; leave it out", param="aspect_ratio")
    else:
        body["mode"] = "text-to-image"
        ratio = capable.ratio_of(request, model)
        if ratio:
            body["aspect_ratio"] = ratio
    if request.negative_prompt:
        body["negative_prompt"] = request.negative_prompt
    if request.HasField("seed"):
        body["seed"] = _seed(request, first, _MAX_STABILITY_SEED)
    if wanted := capable.format_of(request, model):
        body["output_format"] = wanted
    return body


class _Answer(Struct):
    images: list[str] | None = None
    seeds: list[Any] | None = None
    finish_reasons: list[str | None] | None = None
    error: str | None = None


_decode: Final = msgspec.json.Decoder(_Answer).decode


def reader(call: Call, model: Model, headers: Mapping[str, str]) -> Reader:
    """Make the reader of an answer."""
    return _BedrockReader()


class _BedrockReader(WholeReader):
    """Reads an answer. Withheld images are missing (Nova), or have a reason in their place (Stability)."""

    def _take(self, data: bytes) -> Sequence[Out]:
        answer = _decode(data)
        reason = next((r for r in answer.finish_reasons or () if r), None)
        made = answer.images or []
        if not made:
            if reason == "Inference error":
                raise errors.UpstreamFailed("the provider made no image")
            why = words_of(reason or answer.error)
            raise errors.ContentPolicy(f"the provider withheld the image{f': {why}' if why else ''}", param="prompt")
        seeds = answer.seeds or []
        return [
            image_event(index, self._blob(text), seed=seeds[index] if index < len(seeds) else None)
            for index, text in enumerate(made)
        ]


ADAPTER = Adapter(
    name="bedrock",
    options=Options,
    calls_from=calls_from,
    reader=reader,
    error_from=aws_errors.error_from,
    authority=aws_access.bedrock_authority,
    request_id_header="x-amzn-requestid",
    list_models=listing.list_models,
    check_request=aws_access.check_of("IMAGE"),
)
