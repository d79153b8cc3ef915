"""Gemini's image models and Imagen, on the emulated Gemini API."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any, Final, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tests.emulators.gemini import REFUSALS, GeminiEmulator, Refused, check, invalid
from tests.emulators.pictures import ImageScript

_WIDE = {"1:4", "4:1", "1:8", "8:1"}
_RATIOS = {"1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9"}
GEMINI_MODELS = frozenset({"gemini-3.1-flash-image", "gemini-3-pro-image", "gemini-2.5-flash-image"})
IMAGEN_MODELS = frozenset({"imagen-4.0-generate-preview-06-06"})
USAGE: Final[dict[str, Any]] = {
    "promptTokenCount": 11,
    "candidatesTokenCount": 100,
    "totalTokenCount": 111,
    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 4}, {"modality": "IMAGE", "tokenCount": 7}],
    "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 90}],
}
"""What an answer with one image is said to have consumed."""


class _Output(BaseModel):
    model_config = ConfigDict(extra="forbid")

    mimeType: Literal["image/png", "image/jpeg"]  # noqa: N815  # the wire's name
    compressionQuality: int | None = Field(default=None, ge=0, le=100)  # noqa: N815


class _Parameters(BaseModel):
    """`parameters` of Imagen (ai.google.dev/gemini-api/docs/imagen)."""

    model_config = ConfigDict(extra="forbid")

    sampleCount: int = Field(ge=1, le=4)  # noqa: N815
    aspectRatio: Literal["1:1", "3:4", "4:3", "9:16", "16:9"] | None = None  # noqa: N815
    sampleImageSize: Literal["1K", "2K"] | None = None  # noqa: N815
    personGeneration: Literal["dont_allow", "allow_adult", "allow_all"] | None = None  # noqa: N815
    includeRaiReason: bool | None = None  # noqa: N815
    outputOptions: _Output | None = None  # noqa: N815


class _Instance(BaseModel):
    model_config = ConfigDict(extra="forbid")

    prompt: str = Field(min_length=1)


class _Predict(BaseModel):
    model_config = ConfigDict(extra="forbid")

    instances: list[_Instance] = Field(min_length=1, max_length=1)
    parameters: _Parameters


class GeminiImagesEmulator(GeminiEmulator):
    """`:generateContent` with images out, and `:predict`."""

    def next_script(self) -> ImageScript:
        """Return what to answer now."""
        script = self.scripts.popleft() if self.scripts else ImageScript()
        assert isinstance(script, ImageScript)
        return script

    def routes(self) -> Sequence[web.RouteDef]:
        """Return the service's routes."""
        return [
            web.post("/v1beta/models/{model}:{method}", self._image_call),
            # The SDK's way to `:predict`: of the Gemini API it no longer offers it. Body and answer are the same.
            web.get("/v1beta/models", self._list),
            web.post("/v1beta/publishers/google/models/{model}:{method}", self._image_call),
        ]

    async def _image_call(self, request: web.Request) -> web.StreamResponse:
        model, method = request.match_info["model"], request.match_info["method"]
        try:
            self._check_key(request)
            raw = json.loads(await request.read())
            if method == "predict" and model in IMAGEN_MODELS:
                count = _checked_predict(raw)
            elif method == "generateContent" and model in GEMINI_MODELS:
                _check_content(raw, model)
                count = 1
            else:
                raise Refused(404, "NOT_FOUND", f"models/{model} is not found, or not supported for {method}.")
        except Refused as refused:
            return self._refusal(refused)
        self.note(request, raw)
        script = self.next_script()
        if script.refuse == "content_policy" and method != "predict":
            words = {"blockReason": "PROHIBITED_CONTENT", "blockReasonMessage": "Words about content_policy."}
            return web.json_response({"promptFeedback": words})
        if script.refuse:
            status, code, details = REFUSALS[script.refuse]
            made = Refused(status, code, f"Words about {script.refuse}.", details)
            return web.json_response({"error": made.error}, status=status)
        answer = _predictions(script, count) if method == "predict" else _candidates(script)
        response = web.Response(body=json.dumps(answer).encode(), content_type="application/json")
        return await self.whole(request, script, response)


def _checked_predict(raw: Any) -> int:
    try:
        return _Predict.model_validate(raw).parameters.sampleCount
    except ValidationError as wrong:
        raise invalid(str(wrong)) from None


def _check_content(raw: dict[str, Any], model: str) -> None:
    body = check(raw, model)
    config = body.generationConfig
    if config is None or "IMAGE" not in (config.response_modalities or ()):
        raise invalid("The model needs response_modalities with IMAGE.")
    picture = config.image_config
    ratios = _RATIOS | (_WIDE if model == "gemini-3.1-flash-image" else set())
    if picture is not None and picture.aspect_ratio is not None and picture.aspect_ratio not in ratios:
        raise invalid(f"aspect_ratio must be one of {sorted(ratios)}.")
    if picture is not None and picture.image_size is not None:
        if not model.startswith("gemini-3"):
            raise invalid("image_size is not supported for this model.")
        if picture.image_size not in {"512", "1K", "2K", "4K"}:
            raise invalid("image_size must be 512, 1K, 2K or 4K.")


def _predictions(script: ImageScript, count: int) -> dict[str, Any]:
    if script.filtered:
        return {"predictions": [{"raiFilteredReason": "Unable to show generated images."}]}
    each: dict[str, Any] = {"mimeType": "image/png", "bytesBase64Encoded": base64.b64encode(script.image).decode()}
    if script.revised:
        each["prompt"] = script.revised
    return {"predictions": [each] * count}


def _candidates(script: ImageScript) -> dict[str, Any]:
    if script.filtered:
        ended = {"finishReason": "IMAGE_SAFETY", "finishMessage": "It may violate the policy.", "index": 0}
        return {"candidates": [{"content": {}, **ended}], "usageMetadata": USAGE}
    parts: list[dict[str, Any]] = [{"text": piece} for piece in script.text]
    inline = {"mimeType": "image/png", "data": base64.b64encode(script.image).decode()}
    parts += [{"inlineData": inline}] * script.copies if script.image else []
    content = {"role": "model", "parts": parts}
    return {"candidates": [{"content": content, "finishReason": "STOP", "index": 0}], "usageMetadata": USAGE}
