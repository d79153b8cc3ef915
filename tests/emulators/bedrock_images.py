"""Nova Canvas and Stability's models on the emulated Bedrock, by InvokeModel.

https://docs.aws.amazon.com/nova/latest/userguide/image-gen-access.html
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from typing import Any, Literal

from aiohttp import web
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tests.emulators.aws import AwsRefused, verify_signature
from tests.emulators.base import Emulator
from tests.emulators.bedrock import REFUSALS, invalid
from tests.emulators.pictures import ImageScript, colours_of

NOVA_CANVAS = "amazon.nova-canvas-v1:0"
ULTRA = "stability.stable-image-ultra-v1:1"
CORE = "stability.stable-image-core-v1:1"
"""As Ultra, without images in."""
_BLACK, _WHITE = (0, 0, 0, 255), (255, 255, 255, 255)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Words(_Strict):
    text: str | None = Field(default=None, min_length=1, max_length=1024)
    negativeText: str | None = Field(default=None, min_length=1, max_length=1024)  # noqa: N815  # the wire's name


class _TextToImage(_Words):
    text: str = Field(min_length=1, max_length=1024)
    conditionImage: str | None = None  # noqa: N815
    controlMode: Literal["CANNY_EDGE", "SEGMENTATION"] | None = None  # noqa: N815
    controlStrength: float | None = Field(default=None, ge=0, le=1)  # noqa: N815
    style: (
        Literal[
            "3D_ANIMATED_FAMILY_FILM",
            "DESIGN_SKETCH",
            "FLAT_VECTOR_ILLUSTRATION",
            "GRAPHIC_NOVEL_ILLUSTRATION",
            "MAXIMALISM",
            "MIDCENTURY_RETRO",
            "PHOTOREALISM",
            "SOFT_DIGITAL_PAINTING",
        ]
        | None
    ) = None


class _Colours(_Words):
    colors: list[str] = Field(min_length=1, max_length=10)
    referenceImage: str | None = None  # noqa: N815


class _Variation(_Words):
    images: list[str] = Field(min_length=1, max_length=5)
    similarityStrength: float | None = Field(default=None, ge=0.2, le=1)  # noqa: N815


class _Masked(_Words):
    image: str
    maskImage: str | None = None  # noqa: N815
    maskPrompt: str | None = None  # noqa: N815


class _Outpaint(_Masked):
    outPaintingMode: Literal["DEFAULT", "PRECISE"] | None = None  # noqa: N815


class _Removal(_Strict):
    image: str


class _Config(_Strict):
    numberOfImages: int = Field(default=1, ge=1, le=5)  # noqa: N815
    quality: Literal["standard", "premium"] = "standard"
    width: int | None = Field(default=None, ge=320, le=4096, multiple_of=16)
    height: int | None = Field(default=None, ge=320, le=4096, multiple_of=16)
    cfgScale: float | None = Field(default=None, ge=1.1, le=10)  # noqa: N815
    seed: int | None = Field(default=None, ge=0, le=858_993_459)


class _Nova(_Strict):
    taskType: Literal[  # noqa: N815
        "TEXT_IMAGE", "COLOR_GUIDED_GENERATION", "IMAGE_VARIATION", "INPAINTING", "OUTPAINTING", "BACKGROUND_REMOVAL"
    ]
    textToImageParams: _TextToImage | None = None  # noqa: N815
    colorGuidedGenerationParams: _Colours | None = None  # noqa: N815
    imageVariationParams: _Variation | None = None  # noqa: N815
    inPaintingParams: _Masked | None = None  # noqa: N815
    outPaintingParams: _Outpaint | None = None  # noqa: N815
    backgroundRemovalParams: _Removal | None = None  # noqa: N815
    imageGenerationConfig: _Config | None = None  # noqa: N815


_PARAMS = {
    "TEXT_IMAGE": "textToImageParams",
    "COLOR_GUIDED_GENERATION": "colorGuidedGenerationParams",
    "IMAGE_VARIATION": "imageVariationParams",
    "INPAINTING": "inPaintingParams",
    "OUTPAINTING": "outPaintingParams",
    "BACKGROUND_REMOVAL": "backgroundRemovalParams",
}


class _Stability(_Strict):
    prompt: str = Field(min_length=1, max_length=10_000)
    mode: Literal["text-to-image", "image-to-image"] = "text-to-image"
    image: str | None = None
    strength: float | None = Field(default=None, ge=0, le=1)
    aspect_ratio: Literal["16:9", "1:1", "21:9", "2:3", "3:2", "4:5", "5:4", "9:16", "9:21"] | None = None
    negative_prompt: str | None = Field(default=None, max_length=10_000)
    seed: int | None = Field(default=None, ge=0, le=4_294_967_294)
    output_format: Literal["png", "jpeg"] | None = None


class BedrockImagesEmulator(Emulator):
    """`/model/{id}/invoke`."""

    def next_script(self) -> ImageScript:
        """Return what to answer now."""
        script = self.scripts.popleft() if self.scripts else ImageScript()
        assert isinstance(script, ImageScript)
        return script

    def routes(self) -> Sequence[web.RouteDef]:
        """Return the service's routes."""
        return [web.post("/model/{model}/invoke", self._invoke), web.get("/foundation-models", self._list)]

    async def _list(self, request: web.Request) -> web.StreamResponse:
        try:
            verify_signature(request, b"", service="bedrock")
        except AwsRefused as refused:
            self.refused.append((refused.status, str(refused)))
            return refused.response()
        return web.json_response({"modelSummaries": [{"modelId": NOVA_CANVAS}]})

    async def _invoke(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        model = request.match_info["model"]
        try:
            verify_signature(request, raw, service="bedrock")
            body = json.loads(raw)
            if model == NOVA_CANVAS:
                count = check_nova(body)
            elif model == ULTRA:
                count = check_stability(body)
            elif model == CORE:
                count = check_stability(body)
                if {"image", "strength"} & body.keys() or body.get("mode", "text-to-image") != "text-to-image":
                    raise invalid("The model takes no image.")
            else:
                raise invalid("The provided model identifier is invalid.")
        except AwsRefused as refused:
            self.refused.append((refused.status, str(refused)))
            return refused.response()
        self.note(request, body)
        script = self.next_script()
        if script.refuse:
            made = AwsRefused(*REFUSALS[script.refuse], f"Words about {script.refuse}.").response()
            if script.retry_after_s is not None:
                made.headers["Retry-After"] = str(script.retry_after_s)
            return made
        encoded = base64.b64encode(script.image).decode()
        if model == NOVA_CANVAS:
            words = "All of the generated images have been blocked by our content filters."
            answer: dict[str, Any] = {"error": words} if script.filtered else {"images": [encoded] * count}
        elif script.filtered:
            answer = {"finish_reasons": ["Filter reason: prompt"]}
        else:
            answer = {"seeds": [body.get("seed", 4711)], "finish_reasons": [None], "images": [encoded]}
        response = web.Response(body=json.dumps(answer).encode(), content_type="application/json")
        return await self.whole(request, script, response)


def check_nova(body: Any) -> int:
    """Raise ValidationException for a wrong task; give how many images it asks for."""
    try:
        task = _Nova.model_validate(body)
    except ValidationError as wrong:
        raise invalid(f"Malformed input request: {wrong}") from None
    given = [name for name in _PARAMS.values() if getattr(task, name) is not None]
    if given != [_PARAMS[task.taskType]]:
        raise invalid(f"{task.taskType} takes exactly {_PARAMS[task.taskType]}")
    config = task.imageGenerationConfig
    if task.taskType == "BACKGROUND_REMOVAL" and config is not None:
        raise invalid("BACKGROUND_REMOVAL takes no imageGenerationConfig")
    if config is not None and (config.width is None) != (config.height is None):
        raise invalid("width and height go together")
    if config is not None and config.width and config.height and config.width * config.height > 4_194_304:
        raise invalid("at most 4,194,304 pixels")
    masked = task.inPaintingParams or task.outPaintingParams
    if masked is not None:
        if (masked.maskImage is None) == (masked.maskPrompt is None):
            raise invalid("exactly one of maskImage and maskPrompt")
        if masked.maskImage is not None:
            mask, image = base64.b64decode(masked.maskImage), base64.b64decode(masked.image)
            if not colours_of(mask) <= {_BLACK, _WHITE}:
                raise invalid("the mask must be pure black and white")
            if Image.open(io.BytesIO(mask)).size != Image.open(io.BytesIO(image)).size:
                raise invalid("mask and image must have the same size")
    return config.numberOfImages if config else 1


def check_stability(body: Any) -> int:
    """Raise ValidationException for a wrong request."""
    try:
        asked = _Stability.model_validate(body)
    except ValidationError as wrong:
        raise invalid(f"Malformed input request: {wrong}") from None
    if (asked.mode == "image-to-image") != (asked.image is not None) or (asked.image is None) != (
        asked.strength is None
    ):
        raise invalid("image-to-image needs image and strength, text-to-image neither")
    if asked.image is not None and asked.aspect_ratio is not None:
        raise invalid("aspect_ratio belongs to text-to-image")
    return 1
