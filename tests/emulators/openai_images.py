"""OpenAI's image API, as strict as the real one: types from the `openai` package, rules from its API reference."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any, Final

from aiohttp import web
from openai.types import image_generate_params as params
from PIL import Image

from tests.emulators import shapes
from tests.emulators.azure import API_VERSIONS
from tests.emulators.azure import KEYS as AZURE_KEYS
from tests.emulators.base import Emulator
from tests.emulators.openai import KEYS, REFUSALS, Refused, event, json_of
from tests.emulators.pictures import ImageScript, Upload, form_of

_FREE_SIZES = frozenset(
    {"gpt-image-2.6-flare", "gpt-image-2.6-sunburst", "gpt-image-2.5-flare", "gpt-image-2.5-sunburst"}
)
GPT = _FREE_SIZES | {"gpt-image-1-mini", "gpt-image-1"}
DALLE = frozenset({"dall-e-3"})
_GPT_ONLY = ("background", "moderation", "output_format", "output_compression", "partial_images", "stream")
_DALLE_ONLY = ("style", "response_format")
_FORM_FIELDS = frozenset(
    {"model", "prompt", "n", "size", "quality", "background", "output_format", "user", "stream", "partial_images",
     "moderation", "image", "image[]", "mask", "input_fidelity", "output_compression"}
)  # fmt: skip
USAGE: Final[dict[str, Any]] = {
    "input_tokens": 11,
    "output_tokens": 100,
    "total_tokens": 111,
    "input_tokens_details": {"text_tokens": 4, "image_tokens": 7},
    "output_tokens_details": {"text_tokens": 10, "image_tokens": 90},
}
"""What an answer with one image is said to have consumed."""


def invalid(message: str, param: str | None, code: str | None = None) -> Refused:
    return Refused(400, message, kind="invalid_request_error", param=param, code=code)


class OpenAIImagesEmulator(Emulator):
    """`POST /v1/images/generations` and `/v1/images/edits`."""

    def routes(self) -> Sequence[web.RouteDef]:
        """Return the service's routes."""
        return [
            web.post("/v1/images/generations", self.generations),
            web.post("/v1/images/edits", self.edits),
            web.get("/v1/models", self.models),
        ]

    async def models(self, request: web.Request) -> web.StreamResponse:
        """List the models."""
        try:
            self.check_key(request)
        except Refused as refused:
            return self.refusal(refused)
        return web.json_response({"object": "list", "data": [{"id": name, "object": "model"} for name in sorted(GPT)]})

    def next_script(self) -> ImageScript:
        """Return what to answer now."""
        script = self.scripts.popleft() if self.scripts else ImageScript()
        assert isinstance(script, ImageScript)
        return script

    def check_key(self, request: web.Request) -> None:
        """Raise Refused unless the request brings a good key."""
        if request.headers.get("Authorization", "").removeprefix("Bearer ") not in KEYS:
            raise Refused(401, "Incorrect API key.", kind="invalid_request_error", code="invalid_api_key")

    def model_of(self, request: web.Request, body: dict[str, Any]) -> dict[str, Any]:
        """Return the body with the model that answers."""
        return body

    async def generations(self, request: web.Request) -> web.StreamResponse:
        """Make images from text."""
        try:
            self.check_key(request)
            body = self.model_of(request, await json_of(request))
            check_generation(body)
        except Refused as refused:
            return self.refusal(refused)
        return await self._answer(request, body, "image_generation")

    async def edits(self, request: web.Request) -> web.StreamResponse:
        """Change images."""
        try:
            self.check_key(request)
            form = await form_of(request)
            body = self.model_of(request, _body_of(form))
            check_edit(body, form)
        except Refused as refused:
            return self.refusal(refused)
        return await self._answer(request, body, "image_edit")

    def refusal(self, refused: Refused) -> web.Response:
        """Note a refusal and give its HTTP answer."""
        self.refused.append((refused.status, str(refused)))
        return web.json_response({"error": refused.error}, status=refused.status)

    async def _answer(self, request: web.Request, body: dict[str, Any], kind: str) -> web.StreamResponse:
        self.note(request, body)
        script = self.next_script()
        if script.refuse:
            status, error = REFUSALS[script.refuse]
            headers = {"Retry-After": str(script.retry_after_s)} if script.retry_after_s is not None else {}
            words = {"message": f"Words about {script.refuse}.", "param": None, **error}
            return web.json_response({"error": words}, status=status, headers=headers)
        if script.filtered:
            words = {"message": "Your request was rejected by the safety system.", "code": "moderation_blocked"}
            return web.json_response({"error": {**words, "type": "image_generation_user_error"}}, status=400)
        encoded = base64.b64encode(script.image).decode()
        if body.get("stream"):
            partial = {"type": f"{kind}.partial_image", "b64_json": encoded}
            pieces = [event({**partial, "partial_image_index": i}) for i in range(body.get("partial_images") or 0)]
            closing = [event({"type": f"{kind}.completed", "b64_json": encoded, "usage": USAGE})]
            headers = {"Content-Type": "text/event-stream"}
            malformed = b'data: {"type": "image_gen\n\n'
            failure = event({"type": "error", "error": {"type": "server_error", "message": "It broke."}})
            return await self.stream(
                request, script, pieces, closing=closing, malformed=malformed, failure=failure, headers=headers
            )
        each: dict[str, Any] = {"b64_json": encoded}
        if script.revised:
            each["revised_prompt"] = script.revised
        answer = {"created": 1, "data": [each] * int(body.get("n") or 1), "usage": USAGE}
        response = web.Response(body=json.dumps(answer).encode(), content_type="application/json")
        return await self.whole(request, script, response)


class AzureImagesEmulator(OpenAIImagesEmulator):
    """The same behind deployments."""

    def routes(self) -> Sequence[web.RouteDef]:
        """Return the service's routes."""
        base = "/openai/deployments/{deployment}/images"
        return [
            web.post(f"{base}/generations", self.generations),
            web.post(f"{base}/edits", self.edits),
            web.get("/openai/models", self.models),
        ]

    def check_key(self, request: web.Request) -> None:
        """Raise Refused unless the request names a version and brings the resource's key."""
        if request.query.get("api-version") not in API_VERSIONS | {"2025-04-01-preview"}:
            raise Refused(404, "Resource not found", kind="", code="404")
        if request.headers.get("api-key") not in AZURE_KEYS:
            raise Refused(401, "Access denied.", kind="", code="401")

    def model_of(self, request: web.Request, body: dict[str, Any]) -> dict[str, Any]:
        """Return the body with the deployment's model."""
        if request.match_info["deployment"] not in GPT | DALLE:
            raise Refused(404, "The API deployment does not exist.", kind="", code="DeploymentNotFound")
        return {**body, "model": request.match_info["deployment"]}


def _body_of(form: dict[str, list[str | Upload]]) -> dict[str, Any]:
    body: dict[str, Any] = {}
    for name, values in form.items():
        if name not in _FORM_FIELDS:
            raise invalid(f"Unknown parameter: '{name}'.", name, "unknown_parameter")
        if isinstance(values[0], str):
            body[name] = values[0]
    for name in ("n", "partial_images"):
        if name in body:
            body[name] = int(body[name])
    if "stream" in body:
        body["stream"] = body["stream"] == "true"
    return body


def check_edit(body: dict[str, Any], form: dict[str, list[str | Upload]]) -> None:
    """Raise Refused for a wrong edit."""
    check_generation(body)
    images = [value for name in ("image", "image[]") for value in form.get(name, []) if isinstance(value, Upload)]
    if not 1 <= len(images) <= 16:
        raise invalid("1 to 16 images are required.", "image")
    for image in images:
        if Image.MIME[image.opened().format or ""] != image.mime:
            raise invalid("Invalid image file.", "image", "invalid_image_file")
    for mask in form.get("mask", []):
        assert isinstance(mask, Upload)
        if mask.opened().mode != "RGBA" or mask.opened().size != images[0].opened().size:
            raise invalid("The mask must be a PNG with alpha, as large as the image.", "mask")


def check_generation(body: Any) -> None:
    """Raise Refused for a wrong generation."""
    streamed = isinstance(body, dict) and body.get("stream") is True
    hint = params.ImageGenerateParamsStreaming if streamed else params.ImageGenerateParamsNonStreaming
    try:
        shapes.check(body, hint)
    except shapes.Wrong as wrong:
        code = "unknown_parameter" if wrong.kind == "unknown" else "invalid_value"
        raise invalid(f"Invalid: {wrong.message}.", wrong.path, code) from None
    model = body.get("model")
    if model not in GPT | DALLE:
        raise Refused(404, "Model not found.", kind="invalid_request_error", code="model_not_found")
    for name in _DALLE_ONLY if model in GPT else _GPT_ONLY:
        if name in body:
            raise invalid(f"Unknown parameter: '{name}'.", name, "unknown_parameter")
    sizes = {"1024x1024", "1792x1024", "1024x1792"} if model in DALLE else {"1024x1024", "1536x1024", "1024x1536"}
    if "size" in body and body["size"] not in sizes and model not in _FREE_SIZES:
        raise invalid(f"Invalid size '{body['size']}'.", "size", "invalid_value")
    qualities = {"standard", "hd"} if model in DALLE else {"low", "medium", "high", "auto"}
    if body.get("quality", "auto") not in qualities | {"auto"}:
        raise invalid("Invalid quality.", "quality", "invalid_value")
    if not 1 <= (body.get("n") or 1) <= (1 if model in DALLE else 10):
        raise invalid("Invalid n.", "n")
    if body.get("background") == "transparent" and body.get("output_format") == "jpeg":
        raise invalid("Transparent background needs png or webp.", "background")
    if body.get("partial_images") and not body.get("stream"):
        raise invalid("partial_images needs stream.", "partial_images")
