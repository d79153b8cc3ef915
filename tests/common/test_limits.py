"""The limits that the contracts declare, and what holds requests to them."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Annotated, Any

import msgspec
import pytest
from google.protobuf.message import Message

from moa.account.v1 import account_service_pb2
from moa.common.v1 import limits_pb2, media_pb2
from moa.embedding.v1 import embedding_service_pb2
from moa.image.v1 import image_pb2, image_service_pb2
from moa.quota.v1 import quota_pb2
from moa.task.v1 import task_pb2, task_service_pb2
from moa.text.v1 import text_pb2, text_service_pb2
from services.common import limits
from services.common.errors import InvalidField, Unsupported

IMAGE = media_pb2.ImageInput(data=b"x")


def text(**fields: object) -> text_service_pb2.GenerateTextRequest:
    """Return a chat that keeps to every limit but for the given fields."""
    turn = text_pb2.Message(role=text_pb2.ROLE_USER, parts=[text_pb2.Part(text="x")])
    return text_service_pb2.GenerateTextRequest(**{"model": "m", "messages": [turn], **fields})  # type: ignore[arg-type]


def image(**fields: object) -> image_service_pb2.GenerateImageRequest:
    """Return images that keep to every limit but for the given fields."""
    asked = {"model": "m", "prompt": "x", "operation": image_pb2.OPERATION_GENERATE, **fields}
    return image_service_pb2.GenerateImageRequest(**asked)  # type: ignore[arg-type]


def sampling(**fields: object) -> text_service_pb2.GenerateTextRequest:
    """Return a chat with settings of its sampling."""
    return text(sampling=text_pb2.Sampling(**fields))  # type: ignore[arg-type]


def diffusion(**fields: object) -> image_service_pb2.GenerateImageRequest:
    """Return images with settings of their sampler."""
    return image(diffusion=image_pb2.Diffusion(**fields))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("request_", "param", "words"),
    [
        (text(messages=[]), "messages", "at least one of messages is required"),
        (text(messages=[text_pb2.Message()]), "messages[0].role", "role is required"),
        (text(max_tokens=0), "max_tokens", "at least 1"),
        (text(stop=["a"] * 17), "stop", "at most 16 items"),
        (text(stop=["a", ""]), "stop[1]", "is not empty"),
        (text(candidates=9), "candidates", "at most 8"),
        (sampling(temperature=2.1), "temperature", "from 0 to 2"),
        (sampling(temperature=math.nan), "temperature", "from 0 to 2"),
        (sampling(top_p=-0.1), "top_p", "from 0 to 1"),
        (sampling(top_k=0), "top_k", "at least 1"),
        (sampling(logit_bias={5: 0.0, 7: math.inf}), "logit_bias", "each value of logit_bias"),
        (sampling(top_logprobs=2), "top_logprobs", "needs logprobs"),
        (image(prompt=" "), "prompt", "prompt is required"),
        (image(operation=image_pb2.OPERATION_EDIT), "images", "at least one of images is required"),
        (image(images=[IMAGE] * 17), "images", "at most 16"),
        (image(seed=-1), "seed", "at least 0"),
        (image(moderation="high"), "moderation", "one of auto, low"),
        (image(colors=["#FFFFFF", "red"]), "colors[1]", "is written #RRGGBB"),
        (diffusion(steps=0), "steps", "from 1 to 150"),
        (diffusion(scheduler="magic"), "scheduler", "one of euler, euler-a"),
        (diffusion(loras=[image_pb2.Lora(), image_pb2.Lora(scale=5)]), "loras[1].scale", "from -4 to 4"),
        (embedding_service_pb2.EmbedTextsRequest(texts=["a"] * 2049), "texts", "at most 2048 items"),
        (account_service_pb2.CreateKeyRequest(name="x" * 101), "name", "at most 100 characters"),
        (account_service_pb2.CreateKeyRequest(style="xx"), "style", "one of moa, sk, dk"),
        (
            account_service_pb2.CreateKeyRequest(scopes=[quota_pb2.Rule(), quota_pb2.Rule(model="a b")]),
            "scopes[1].model",
            "at most 200 printable ASCII characters",
        ),
        (
            task_service_pb2.CreateTaskRequest(work=task_pb2.TaskWork(image=image(count=11))),
            "work.image.count",
            "at most 10",
        ),
    ],
)
def test_what_is_outside_is_named(request_: Message, param: str, words: str) -> None:
    """A refusal names the field by its path, and says what is taken."""
    with pytest.raises(InvalidField) as refused:
        limits.check(request_)
    assert refused.value.param == param
    assert words in refused.value.message


@pytest.mark.parametrize(
    "request_",
    [
        text(max_tokens=1, stop=["a"] * 16, candidates=8),
        sampling(temperature=0, top_p=1, top_k=1, presence_penalty=-2, frequency_penalty=2, logit_bias={1: -100}),
        sampling(logprobs=True, top_logprobs=20),
        image(operation=image_pb2.OPERATION_VARIATION, prompt="", images=[IMAGE] * 16),
        image(seed=0, moderation="low", colors=["#abcDEF"] * 10, count=10),
        diffusion(steps=150, guidance_scale=0, strength=1, loras=[image_pb2.Lora(scale=-4)]),
    ],
)
def test_the_limits_themselves_are_taken(request_: Message) -> None:
    """Bounds are inclusive."""
    limits.check(request_)


@pytest.mark.parametrize(
    ("request_", "param", "capability"),
    [
        (text(tools=[text_pb2.Tool(name="f")]), "tools", "tools"),
        (text(candidates=2), "candidates", "candidates"),
        (sampling(logprobs=True), "logprobs", "logprobs"),
        (
            text(response_format=text_pb2.ResponseFormat(kind=text_pb2.ResponseFormat.KIND_JSON_SCHEMA)),
            "response_format.kind",
            "json_schema",
        ),
        (
            text(messages=[text_pb2.Message(), text_pb2.Message(parts=[text_pb2.Part(), text_pb2.Part(image=IMAGE)])]),
            "messages[1].parts[1].image",
            "vision",
        ),
        (
            text(messages=[text_pb2.Message(parts=[text_pb2.Part(tool_result=text_pb2.ToolResult(content="x"))])]),
            "messages[0].parts[0].tool_result",
            "tools",
        ),
        (image(operation=image_pb2.OPERATION_OUTPAINT), "operation", "outpaint"),
        (image(width=8), "size", "size"),
        (image(aspect_ratio="1:1"), "aspect_ratio", "aspect_ratio"),
        (image(quality=image_pb2.QUALITY_LOW), "quality", "quality"),
        (image(background=image_pb2.BACKGROUND_TRANSPARENT), "background", "background"),
        (image(moderation="low"), "moderation", "moderation"),
        (diffusion(loras=[image_pb2.Lora(name="a")]), "loras", "lora"),
    ],
)
def test_what_a_model_cannot_do_is_named(request_: Message, param: str, capability: str) -> None:
    """A refusal names the field and says what the model can do; a model that can is asked."""
    with pytest.raises(Unsupported, match="it can do: other") as refused:
        limits.check_able(request_, SimpleNamespace(id="m", capabilities=frozenset({"other"})))
    assert refused.value.param == param
    limits.check_able(request_, SimpleNamespace(id="m", capabilities=frozenset({capability})))


def test_a_hint_is_no_need() -> None:
    """What only tunes is not refused; whoever answers is told which of it a model does not take."""
    request = sampling(seed=0, logprobs=True)
    able, other = (SimpleNamespace(id="m", capabilities=frozenset({word, "logprobs"})) for word in ("seed", "other"))
    limits.check_able(request, other)
    assert list(limits.hints_beyond(request.sampling, other)) == ["seed"]
    assert list(limits.hints_beyond(request.sampling, able)) == []


@pytest.mark.parametrize(
    "request_",
    [
        text(candidates=1),
        text(response_format=text_pb2.ResponseFormat(kind=text_pb2.ResponseFormat.KIND_TEXT)),
        image(background=image_pb2.BACKGROUND_OPAQUE, moderation="auto"),
    ],
)
def test_plain_requests_need_nothing(request_: Message) -> None:
    """Values that say what is the case anyway ask nothing of a model."""
    limits.check_able(request_, SimpleNamespace(id="m", capabilities=frozenset()))


def test_a_ratio_beside_a_size_is_ignored() -> None:
    """As the contract says, so no model needs to know ratios for it."""
    limits.check_able(image(width=8, aspect_ratio="1:1"), SimpleNamespace(id="m", capabilities=frozenset({"size"})))


@pytest.mark.parametrize("request_", [text(), image(), embedding_service_pb2.EmbedTextsRequest()])
def test_limits_name_fields_that_exist(request_: Message) -> None:
    """A limit that points at another field, or says how a pattern is told, is complete."""
    seen = {request_.DESCRIPTOR}
    waiting = [request_.DESCRIPTOR]
    while waiting:
        descriptor = waiting.pop()
        for field in descriptor.fields:
            found = limits.of(field)  # type: ignore[arg-type]  # the stubs know two names of one class
            for other in (getattr(found, "with"), found.ignored_with):
                assert not other or other in descriptor.fields_by_name
            assert bool(found.pattern) == bool(found.pattern_words)
            for value in field.enum_type.values if field.enum_type is not None else ():
                for other in value.GetOptions().Extensions[limits_pb2.demands].fields:
                    assert other in descriptor.fields_by_name
            if field.message_type is not None and field.message_type not in seen:
                seen.add(field.message_type)
                waiting.append(field.message_type)


@pytest.mark.parametrize(
    ("field", "taken", "refused"),
    [
        ("temperature", [0, 2, None], [-0.1, 2.1]),
        ("top_k", [1, 2**31 - 1], [0, 2**31]),
        ("seed", [-(2**63), 2**63 - 1], [2**63]),
    ],
)
def test_a_bodys_field_takes_what_the_contracts_takes(field: str, taken: list[Any], refused: list[Any]) -> None:
    """msgspec reads the bounds that the contract declares, or those of the field's type."""
    whole = field in ("top_k", "seed")
    kind: Any = Annotated[int if whole else float, limits.meta(text_pb2.Sampling, field)] | None
    for value in taken:
        assert msgspec.convert(value, kind) == value
    for value in refused:
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(value, kind)
