"""Ideogram 3.0's API, by developer.ideogram.ai/api-reference: forms in, links out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aiohttp import web

from tests.emulators.base import Emulator
from tests.emulators.pictures import ImageScript, Upload, colours_of, form_of

KEY = "ideogram-good"
_SIDES = ("1x3", "1x2", "9x16", "10x16", "2x3", "3x4", "4x5", "1x1")
_RATIOS = frozenset({*_SIDES, *("x".join(reversed(ratio.split("x"))) for ratio in _SIDES)})
_COMMON = {
    "seed": frozenset[str](),
    "num_images": frozenset[str](),
    "rendering_speed": frozenset({"FLASH", "TURBO", "DEFAULT", "QUALITY"}),
    "style_type": frozenset({"AUTO", "GENERAL", "REALISTIC", "DESIGN", "FICTION"}),
}
_SHAPE = {"aspect_ratio": _RATIOS, "resolution": frozenset[str](), "negative_prompt": frozenset[str]()}
_FIELDS: Mapping[str, Mapping[str, frozenset[str]]] = {
    "generate": {**_COMMON, **_SHAPE, "prompt": frozenset()},
    "remix": {**_COMMON, **_SHAPE, "prompt": frozenset(), "image_weight": frozenset()},
    "inpaint": {**_COMMON, "prompt": frozenset()},
    "reframe": {**_COMMON, "resolution": frozenset()},
}
_FILES = {"generate": set[str](), "remix": {"image"}, "inpaint": {"image", "mask"}, "reframe": {"image"}}
_REQUIRED = {"generate": {"prompt"}, "remix": {"prompt"}, "inpaint": {"prompt"}, "reframe": {"resolution"}}
REFUSALS = {
    "upstream_auth": 401,
    "upstream_rejected": 400,
    "content_policy": 422,
    "upstream_rate_limited": 429,
    "upstream_failed": 500,
    "upstream_overloaded": 503,
    "upstream_timeout": 504,
}


class IdeogramEmulator(Emulator):
    """`/v1/ideogram-v3/{generate,remix,inpaint,reframe}`, and where its links lead."""

    def __init__(self) -> None:
        super().__init__()
        self._files: dict[str, bytes] = {}

    def next_script(self) -> ImageScript:
        """Return what to answer now."""
        script = self.scripts.popleft() if self.scripts else ImageScript()
        assert isinstance(script, ImageScript)
        return script

    def routes(self) -> Sequence[web.RouteDef]:
        """Return the service's routes."""
        return [web.post("/v1/ideogram-v3/{method}", self._call), web.get("/files/{name}", self._file)]

    async def _file(self, request: web.Request) -> web.StreamResponse:
        assert "Api-Key" not in request.headers, "a link is fetched without credentials"
        return web.Response(body=self._files[request.match_info["name"]], content_type="image/png")

    def _refusal(self, status: int, words: str) -> web.Response:
        self.refused.append((status, words))
        return web.json_response({"error": words}, status=status)

    async def _call(self, request: web.Request) -> web.StreamResponse:
        method = request.match_info["method"]
        if request.headers.get("Api-Key") != KEY:
            return self._refusal(401, "Unauthorized")
        if method not in _FIELDS:
            return self._refusal(404, "no such method")
        form = await form_of(request)
        wrong = check(method, form)
        if wrong:
            return self._refusal(400, wrong)
        self.note(request, {name: values[0] for name, values in form.items()})
        script = self.next_script()
        if script.refuse:
            headers = {"Retry-After": str(script.retry_after_s)} if script.retry_after_s is not None else {}
            words = {"error": f"Words about {script.refuse}."}
            return web.json_response(words, status=REFUSALS[script.refuse], headers=headers)
        data = []
        for index in range(int(str(form.get("num_images", ["1"])[0]))):
            name = f"{len(self._files)}-{index}.png"
            self._files[name] = script.image
            url = "" if script.filtered else f"{self.url}/files/{name}"
            made = {"prompt": script.revised, "resolution": "1024x1024", "is_image_safe": not script.filtered}
            data.append({**made, "seed": 12345, "url": url, "style_type": "GENERAL"})
        response = web.json_response({"created": "2026-01-01T00:00:00Z", "data": data})
        response.body = (response.text or "").encode()
        return await self.whole(request, script, response)


def check(method: str, form: dict[str, list[str | Upload]]) -> str:
    """Tell what is wrong with a form; empty when nothing is."""
    allowed = _FIELDS[method]
    files = {name for name, values in form.items() if isinstance(values[0], Upload)}
    if files != _FILES[method]:
        return f"{method} takes the files {_FILES[method]}, not {files}"
    for name, values in form.items():
        if name in files:
            continue
        if name not in allowed:
            return f"unknown field {name}"
        if allowed[name] and values[0] not in allowed[name]:
            return f"{name} must be one of {sorted(allowed[name])}"
    missing = _REQUIRED[method] - set(form)
    if missing:
        return f"missing {missing}"
    if "aspect_ratio" in form and "resolution" in form:
        return "aspect_ratio and resolution exclude each other"
    numbers = {"num_images": (1, 8), "seed": (0, 2**31 - 1), "image_weight": (1, 100)}
    for name, (low, high) in numbers.items():
        if name in form and not low <= int(str(form[name][0])) <= high:
            return f"{name} must be from {low} to {high}"
    if method == "inpaint":
        image, mask = form["image"][0], form["mask"][0]
        assert isinstance(image, Upload)
        assert isinstance(mask, Upload)
        if not colours_of(mask) <= {(0, 0, 0, 255), (255, 255, 255, 255)} or mask.opened().size != image.opened().size:
            return "the mask must be black and white and as large as the image"
    return ""
