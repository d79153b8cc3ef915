"""What a request asks of a model, checked against what the catalogue says it can do.

Checked before admission, so that a refusal costs neither quota nor a call. What only the provider knows, its
adapter refuses.
"""

from __future__ import annotations

from moa.image.v1 import image_pb2, image_service_pb2
from moa.text.v1 import text_pb2, text_service_pb2
from services.common.catalogue import Model
from services.common.errors import InvalidField, Unsupported

_FORMATS = {
    text_pb2.ResponseFormat.KIND_JSON_OBJECT: "json",
    text_pb2.ResponseFormat.KIND_JSON_SCHEMA: "json_schema",
}
MAX_CANDIDATES = 8
MAX_IMAGES = 10


def check_text(request: text_service_pb2.GenerateTextRequest, model: Model) -> None:
    """Raise Unsupported, with the field's name, when the model lacks what the request asks for."""
    if not request.messages:
        raise InvalidField("at least one message is required", param="messages")
    if request.candidates > MAX_CANDIDATES:
        raise InvalidField(f"at most {MAX_CANDIDATES} candidates", param="n")
    if len(request.stop) > 16:
        raise InvalidField("at most 16 stop strings", param="stop")
    if request.candidates > 1:
        _need(model, "candidates", "n")
    if request.tools:
        _need(model, "tools", "tools")
    if request.sampling.logprobs:
        _need(model, "logprobs", "logprobs")
    if request.sampling.HasField("seed"):
        _need(model, "seed", "seed")
    form = _FORMATS.get(request.response_format.kind)
    if form:
        _need(model, form, "response_format")
    if not model.can("vision"):
        for index, message in enumerate(request.messages):
            if any(part.HasField("image") for part in message.parts):
                raise Unsupported(f"model {model.id} takes no images", param=f"messages[{index}].content")


def check_image(request: image_service_pb2.GenerateImageRequest, model: Model) -> None:
    """Raise Unsupported or InvalidField, with the field's name, as `check_text` does."""
    needs_prompt = request.operation not in (
        image_pb2.OPERATION_VARIATION,
        image_pb2.OPERATION_REMOVE_BACKGROUND,
    )
    if needs_prompt and not request.prompt.strip():
        raise InvalidField("a prompt is required", param="prompt")
    if request.count > MAX_IMAGES:
        raise InvalidField(f"at most {MAX_IMAGES} images a request", param="n")
    if request.images and not (model.can("edit") or model.can("variation")):
        raise Unsupported(f"model {model.id} takes no input images", param="image_data")
    if request.HasField("mask"):
        _need(model, "mask", "mask")


def _need(model: Model, capability: str, param: str) -> None:
    if not model.can(capability):
        raise Unsupported(f"model {model.id} does not support {param}", param=param)
