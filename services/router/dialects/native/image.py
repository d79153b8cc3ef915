"""`POST /create/image` and `/generate/image`: from their body to the contract, and the events back."""

from __future__ import annotations

from typing import Any

import msgspec

from moa.image.v1 import image_pb2, image_service_pb2
from moa.text.v1 import text_pb2, text_service_pb2
from services.common.dialects import NATIVE
from services.common.errors import InvalidField, error_of
from services.common.images import MAX_SIDE
from services.router.dialects.body import parse
from services.router.dialects.media import image_from_text
from services.router.dialects.native.bodies import ImageBody
from services.router.dialects.reply import end_mark, failure, frame
from services.router.operations.image import ImageAnswer

_DECODER = msgspec.json.Decoder(ImageBody)
_END = end_mark(NATIVE)


def request_from(data: bytes, *, edit: bool) -> image_service_pb2.GenerateImageRequest:
    """Read the body of `/generate/image` (`edit`) or `/create/image`. Raises as `native.text.request_from`."""
    body = parse(data, _DECODER)
    width, height = _size(body)
    request = image_service_pb2.GenerateImageRequest(
        model=body.model_id,
        provider=body.provider,
        prompt=body.prompt,
        negative_prompt=body.negative_prompt,
        count=body.n,
        width=width,
        height=height,
        seed=body.seed,
        colors=body.colors,
        stream=body.stream,
        preview_every=body.preview_every,
    )
    if edit:
        if body.image_data is None:
            raise InvalidField("image_data is required", param="image_data")
        request.operation = image_pb2.OPERATION_EDIT
        request.images.append(image_from_text(body.image_data, param="image_data"))
    elif body.image_data is not None:
        raise InvalidField("image_data is taken by /generate/image only", param="image_data")
    if body.num_inference_steps is not None:
        request.diffusion.steps = body.num_inference_steps
    if body.guidance_scale is not None:
        request.diffusion.guidance_scale = body.guidance_scale
    if body.strength is not None:
        request.diffusion.strength = body.strength
    return request


def analysis_of(request: image_service_pb2.GenerateImageRequest) -> text_service_pb2.GenerateTextRequest:
    """Return what `/generate/image` asks of a model that makes text: to look at the image and answer the prompt."""
    asked = text_service_pb2.GenerateTextRequest(model=request.model, provider=request.provider, stream=request.stream)
    turn = asked.messages.add(role=text_pb2.ROLE_USER)
    for image in request.images:
        turn.parts.add().image.CopyFrom(image)
    turn.parts.add(text=request.prompt)
    return asked


def analysis_object(analysis: dict[str, Any], prompt: str) -> dict[str, Any]:
    """Return the answer of such a model in the document's form for images: none, and what it said."""
    return {"status": "success", "images": [], "prompt": prompt, **analysis}


def _size(body: ImageBody) -> tuple[int | None, int | None]:
    if body.size is None:
        return body.width, body.height
    if body.width is not None or body.height is not None:
        raise InvalidField("give size, or width and height, not both", param="size")
    width, _, height = body.size.partition("x")
    if not (1 <= int(width) <= MAX_SIDE and 1 <= int(height) <= MAX_SIDE):
        raise InvalidField(f"size: each side must be 1 to {MAX_SIDE} pixels", param="size")
    return int(width), int(height)


class Reply:
    """Renders an answer's messages to the document's event stream, and gathers them to its one object.

    Args:
        prompt: Echoed in the object.
    """

    def __init__(self, answer: ImageAnswer, prompt: str) -> None:
        self._answer = answer
        self._prompt = prompt
        self._images: dict[int, bytes] = {}
        self._text: list[str] = []

    @property
    def count(self) -> int:
        """How many images are in hand."""
        return len(self._images)

    def object(self) -> dict[str, Any]:
        """Return the document's object of what is in hand."""
        results: dict[str, Any] = {
            "status": "success",
            "images": [self._images[index] for index in sorted(self._images)],
            "prompt": self._prompt,
            "model_id": self._answer.model.id,
            "provider": self._answer.model.provider,
        }
        if self._text:
            results["response"] = "".join(self._text)
        return results

    def take(self, message: image_service_pb2.GenerateImageResponse, *, stream: bool) -> bytes:
        """Take one message in; give what of it shows in the stream. Unary: raises MoaError for an error event."""
        out = bytearray()
        for event in message.events:
            kind = event.WhichOneof("event")
            if kind == "image":
                self._images[event.index] = event.image.image.data
            elif kind == "text":
                self._text.append(event.text.text)
            elif kind == "error":
                error = error_of(event.error)
                if not stream:
                    raise error
                out += failure(NATIVE, error)
            elif stream and kind == "finished":
                out += frame(self.object()) + _END
            elif stream:
                shown = _shown(event, kind)
                out += frame(shown) if shown else b""
        return bytes(out)


def _shown(event: image_pb2.ImageEvent, kind: str | None) -> dict[str, Any] | None:
    """Return an event of waiting or progress as the stream shows it."""
    if kind == "queued":
        return _with_eta({"status": "queued", "position": event.queued.position}, event.queued)
    if kind == "loading":
        return {"status": "loading", "fraction": round(event.loading.fraction, 3), "stage": event.loading.stage}
    if kind == "progress":
        progress = event.progress
        results: dict[str, Any] = {"status": "progress", "step": progress.step, "steps": progress.steps}
        if progress.HasField("preview"):
            results["preview"] = progress.preview.data
        return _with_eta(results, progress)
    return None


def _with_eta(analysis: dict[str, Any], of: image_pb2.Queued | image_pb2.Progress) -> dict[str, Any]:
    if of.HasField("eta"):
        analysis["eta_s"] = round(of.eta.ToMilliseconds() / 1000, 3)
    return analysis
