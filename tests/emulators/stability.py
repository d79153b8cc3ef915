"""Stability's v2beta API, by platform.stability.ai/docs/api-reference: forms in, image bytes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aiohttp import web

from tests.emulators.base import Emulator
from tests.emulators.pictures import ImageScript, Upload, form_of

KEY = "sk-stability-good"
_ANY = frozenset[str]()
_RATIOS = frozenset({"16:9", "1:1", "21:9", "2:3", "3:2", "4:5", "5:4", "9:16", "9:21"})
_FORMATS = frozenset({"png", "jpeg", "webp"})
_STYLES = frozenset(
    {"enhance", "anime", "photographic", "digital-art", "comic-book", "fantasy-art", "line-art", "analog-film"}
    | {"neon-punk", "isometric", "low-poly", "origami", "modeling-compound", "cinematic", "3d-model", "pixel-art"}
    | {"tile-texture"}
)
_WORDS = {"prompt": _ANY, "negative_prompt": _ANY, "seed": _ANY, "output_format": _FORMATS, "style_preset": _STYLES}
_FIELDS: Mapping[str, Mapping[str, frozenset[str]]] = {
    "generate/ultra": {**_WORDS, "aspect_ratio": _RATIOS, "strength": _ANY},
    "generate/core": {**_WORDS, "aspect_ratio": _RATIOS},
    "generate/sd3": {
        **_WORDS,
        "output_format": frozenset({"png", "jpeg"}),
        "aspect_ratio": _RATIOS,
        "strength": _ANY,
        "mode": frozenset({"text-to-image", "image-to-image"}),
        "model": frozenset({"sd3.5-large", "sd3.5-large-turbo", "sd3.5-medium", "sd3.5-flash"}),
        "cfg_scale": _ANY,
    },
    "edit/inpaint": {**_WORDS, "grow_mask": _ANY},
    "edit/outpaint": {
        "prompt": _ANY,
        "left": _ANY,
        "right": _ANY,
        "up": _ANY,
        "down": _ANY,
        "creativity": _ANY,
        "seed": _ANY,
        "output_format": _FORMATS,
        "style_preset": _STYLES,
    },
    "edit/remove-background": {"output_format": frozenset({"png", "webp"})},
}
_FILES: Mapping[str, tuple[set[str], ...]] = {
    "generate/ultra": (set(), {"image"}),
    "generate/core": (set(),),
    "generate/sd3": (set(), {"image"}),
    "edit/inpaint": ({"image", "mask"},),
    "edit/outpaint": ({"image"},),
    "edit/remove-background": ({"image"},),
}
REFUSALS: Mapping[str, tuple[int, str]] = {
    "upstream_auth": (401, "unauthorized"),
    "upstream_rejected": (400, "bad_request"),
    "content_policy": (403, "content_moderation"),
    "upstream_rate_limited": (429, "rate_limit_exceeded"),
    "upstream_failed": (500, "internal_error"),
    "upstream_overloaded": (503, "service_unavailable"),
    "upstream_timeout": (504, "gateway_timeout"),
    "model_not_found": (404, "model_not_found"),
}


class StabilityEmulator(Emulator):
    """`/v2beta/stable-image/{generate,edit}/{method}`."""

    def next_script(self) -> ImageScript:
        """Return what to answer now."""
        script = self.scripts.popleft() if self.scripts else ImageScript()
        assert isinstance(script, ImageScript)
        return script

    def routes(self) -> Sequence[web.RouteDef]:
        """Return the service's routes."""
        return [
            web.post("/v2beta/stable-image/{kind}/{method}", self._call),
            web.get("/v1/user/balance", self._balance),
        ]

    async def _balance(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            return self._refusal(401, "unauthorized", "authorization: is invalid")
        return web.json_response({"credits": 12.5})

    def _refusal(self, status: int, name: str, words: str) -> web.Response:
        self.refused.append((status, words))
        return web.json_response({"id": "1", "name": name, "errors": [words]}, status=status)

    async def _call(self, request: web.Request) -> web.StreamResponse:
        method = f"{request.match_info['kind']}/{request.match_info['method']}"
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            return self._refusal(401, "unauthorized", "authorization: is invalid")
        if request.headers.get("Accept") not in ("image/*", "application/json"):
            return self._refusal(400, "bad_request", "accept: must be image/* or application/json")
        if method not in _FIELDS:
            return self._refusal(404, "not_found", "no such method")
        form = await form_of(request)
        wrong = check(method, form)
        if wrong:
            return self._refusal(400, "bad_request", wrong)
        self.note(request, {name: values[0] for name, values in form.items()})
        script = self.next_script()
        if script.refuse:
            status, name = REFUSALS[script.refuse]
            headers = {"Retry-After": str(script.retry_after_s)} if script.retry_after_s is not None else {}
            words = {"id": "1", "name": name, "errors": [f"Words about {script.refuse}."]}
            return web.json_response(words, status=status, headers=headers)
        seed = str(form.get("seed", ["4711"])[0])
        headers = {"seed": seed, "finish-reason": "CONTENT_FILTERED" if script.filtered else "SUCCESS"}
        response = web.Response(body=script.image, content_type="image/png", headers=headers)
        return await self.whole(request, script, response)


def check(method: str, form: dict[str, list[str | Upload]]) -> str:
    """Tell what is wrong with a form; empty when nothing is."""
    allowed = _FIELDS[method]
    files = {name for name, values in form.items() if isinstance(values[0], Upload)}
    if files not in _FILES[method]:
        return f"{method} does not take the files {files}"
    for name, values in form.items():
        if name in files:
            continue
        if name not in allowed:
            return f"{name}: unknown field"
        if allowed[name] and values[0] not in allowed[name]:
            return f"{name}: must be one of {sorted(allowed[name])}"
    if method.startswith("generate") and not form.get("prompt"):
        return "prompt: is required"
    if ("strength" in form) != ("image" in form) and method.startswith("generate"):
        return "strength: goes with image"
    if method == "generate/sd3" and (form.get("mode") == ["image-to-image"]) != ("image" in form):
        return "mode: image-to-image goes with image"
    if "aspect_ratio" in form and "image" in form:
        return "aspect_ratio: only for text-to-image"
    if method == "edit/outpaint" and not {"left", "right", "up", "down"} & set(form):
        return "one of left, right, up, down: is required"
    if "seed" in form and not 0 <= int(str(form["seed"][0])) <= 4_294_967_294:
        return "seed: out of range"
    if "mask" in form:
        image, mask = form["image"][0], form["mask"][0]
        assert isinstance(image, Upload)
        assert isinstance(mask, Upload)
        if mask.opened().size != image.opened().size:
            return "mask: must be as large as the image"
    return ""
