"""Nothing of a request for images is changed or left out in silence: it is named, and refused of the strict."""

from __future__ import annotations

import json
import re
from typing import Final

import pytest

from moa.image.v1.image_pb2 import ImageEvent, ImageStarted
from moa.image.v1.image_service_pb2 import GenerateImageResponse
from services.catalogue import Model, Provider
from services.common.errors import Unsupported
from services.image import prepare
from services.image.targets import ADAPTERS
from services.router.dialects.google import requests as google
from services.router.dialects.openai import image_request
from services.router.operations.image import ImageCall
from tests import strictness
from tests.strictness import Json

OPENAI: Final[dict[str, Json]] = {
    "a size that few make": {"size": "1536x1024"},
    "an odd size": {"size": "1000x1040"},
    "aspect_ratio": {"aspect_ratio": "16:9"},
    "quality": {"quality": "high"},
    "another quality": {"quality": "xhigh"},
    "hd": {"quality": "hd"},
    "background": {"background": "transparent"},
    "style": {"style": "vivid"},
    "moderation": {"moderation": "low"},
    "seed": {"seed": 7},
    "a long seed": {"seed": 2**40},
    "negative_prompt": {"negative_prompt": "blur"},
    "colors": {"colors": ["#AABBCC"]},
    "input_fidelity": {"input_fidelity": "high"},
    "unknown": {"num_inference_steps": 9},
}
GOOGLE: Final[dict[str, Json]] = {
    **strictness.GOOGLE,
    "aspectRatio": {"generationConfig": {"imageConfig": {"aspectRatio": "16:9"}}},
    "2K": {"generationConfig": {"imageConfig": {"imageSize": "2K"}}},
    "512": {"generationConfig": {"imageConfig": {"imageSize": "512"}}},
    "temperature": {"generationConfig": {"temperature": 0.5}},
    "maxOutputTokens": {"generationConfig": {"maxOutputTokens": 99}},
}
_BOUNDARY: Final = re.compile(rb"moa[0-9a-f]{32}")
MODELS: Final = (
    "openai-image/gpt-image-2.6-flare",
    "openai-image/dall-e-3",
    "azure-openai-image/gpt-image-1-mini",
    "gemini-image/gemini-3.1-flash-image",
    "gemini-image/gemini-2.5-flash-image",
    "gemini-image/imagen-4.0-generate-preview-06-06",
    "aws-bedrock-image/amazon.nova-canvas-v1:0",
    "aws-bedrock-image/stability.stable-image-ultra-v1:1",
    "ideogram-image/V3",
    "stability-image/stable-image-ultra",
    "stability-image/sd3.5-large",
)


def _sent(dialect: str, given: Json, model: Model, provider: Provider, strict: bool) -> tuple[object, list[str]]:
    """Return what becomes of a request, and what of it is named as ignored."""
    named: list[str] = []
    if dialect == "openai":
        body = json.dumps({"model": model.id, "prompt": "a cat", **given}).encode()
        request, wanted = image_request.request_from(body, "application/json", "generation", strict=strict)
        named += [*wanted.ignored, *image_request.drop_hints(request, model, strict=strict)]
    else:
        body = json.dumps({"contents": [{"parts": [{"text": "a cat"}]}], **given}).encode()
        asked = google.asked(body, model.id, "image", stream=False, strict=strict)
        assert asked.image is not None
        request, named = asked.image, asked.ignored
    request.model, request.provider = model.id, model.provider
    call = ImageCall(request)
    call.check(model)
    call.check_able(model)
    carried = ADAPTERS[provider.adapter].ignored(request, model, provider)
    calls = prepare.prepared(request.SerializeToString(), provider.adapter, model, provider)
    bodies = [_BOUNDARY.sub(b"", bytes(each.outgoing.body)) for each in calls]
    if request.strict and carried:
        raise Unsupported("these have no effect", param=carried[0])
    started = ImageStarted(provider=provider.id, model=model.id, ignored=carried)
    return bodies, [*named, *call.ignored(GenerateImageResponse(events=[ImageEvent(started=started)]))]


FIELDS: Final = {"openai": OPENAI, "google": GOOGLE}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("dialect", "field"), strictness.cases(FIELDS))
def test_what_is_not_passed_is_named_and_refused_of_the_strict(name: str, dialect: str, field: str) -> None:
    """A field that leaves no trace in what is sent, or another value than its own, is in the list of the ignored."""
    strictness.check(name, dialect, FIELDS[dialect][field], _sent, plain={})
