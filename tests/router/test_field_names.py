"""Errors name fields as the caller's dialect calls them, in the field at fault and in the sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import pytest
import requests
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from msgspec import inspect

from moa.image.v1.image_service_pb2 import GenerateImageRequest
from services.common.dialects import Dialect
from services.common.dialects.registrations import Registration, registrations
from services.common.errors import InvalidField, MoaError, Unsupported, UnsupportedMedia
from services.common.limits import OutsideLimits, check, of
from services.common.limits.checks import Violation
from services.common.limits.fields import is_map
from services.router import dialects
from tests.dialects import ANSWERING, SPOKEN
from tests.dialects.rig import Body
from tests.router.rig import KEY

OWN: Final = {"vendor", "strict", "cache"}
"""Fields that no caller writes as such: they are made of how and where something was sent."""
OF_GRPC: Final = {"truncate", "provider", "signature", "signer", "encrypted", "format", "loras", "preview_every"} | {
    "choices"
}
"""Fields that gRPC's callers alone can set, or that only answers have."""
BODIES: Final = [(SPOKEN[name], body) for name, rig in ANSWERING.items() for body in rig.bodies]
"""Each dialect's bodies, as its rig has them."""


def paths(descriptor: Descriptor, above: str = "") -> Iterator[str]:
    """Yield the path of every field of a contract that callers can be told of, the first item of each list."""
    for field in descriptor.fields:
        if field.name in OWN | OF_GRPC:
            continue
        if not of(field).group:
            yield above + field.name
        if field.message_type is not None and not is_map(field):
            yield from paths(field.message_type, _below(field, above))


def _below(field: FieldDescriptor, above: str) -> str:
    if of(field).group:
        return above
    return f"{above}{field.name}[0]." if field.is_repeated else f"{above}{field.name}."


def documented(kind: inspect.Type, path: str) -> bool:
    """Return whether a body has a field at a path. What is any object may have any."""
    kinds = [kind]
    for step in re.findall(r"\[\d+\]|[^.\[]+", path):
        kinds = [inner for each in kinds for inner in _inside(each, step)]
    return bool(kinds)


def _inside(kind: inspect.Type, step: str) -> list[inspect.Type]:
    if isinstance(kind, inspect.Metadata):
        return _inside(kind.type, step)
    if isinstance(kind, inspect.UnionType):
        return [inner for each in kind.types for inner in _inside(each, step)]
    if isinstance(kind, inspect.StructType):
        return [field.type for field in kind.fields if field.encode_name == step]
    if isinstance(kind, inspect.ListType):
        return [kind.item_type] if step.startswith("[") else []
    return [kind] if isinstance(kind, inspect.AnyType | inspect.DictType) else []


@pytest.mark.parametrize(
    ("dialect", "body"), BODIES, ids=[f"{d.name}-{b.kind.__name__}-{b.request.name}" for d, b in BODIES]
)
def test_every_field_of_a_contract_is_called_as_the_caller_calls_it(dialect: Dialect, body: Body) -> None:
    """Whatever field is found wrong behind a dialect, the caller reads of one that its documented body has."""
    kind = inspect.type_info(body.kind)
    heads = tuple(f"{name}{step}" for name in body.unset for step in (".", "["))
    strange = {
        path: dialect.spelled(path)
        for path in paths(body.request)
        if path not in body.unset and not path.startswith(heads) and not documented(kind, dialect.spelled(path))
    }
    assert strange == {}


@pytest.mark.parametrize("dialect", SPOKEN.values(), ids=SPOKEN)
@pytest.mark.parametrize("side", [0, 8193, 2**31])
def test_a_side_of_an_image_has_a_range(dialect: Dialect, side: int) -> None:
    """Whoever takes pixels is held to the contract's, and is told in its own words."""
    with pytest.raises(OutsideLimits) as refused:
        check(GenerateImageRequest(prompt="x", width=64, height=side))
    name = dialect.spelled("height")
    assert dialect.in_its_words(refused.value).message == f"{name} must be from 1 to 8192"
    check(GenerateImageRequest(prompt="x", width=1, height=8192))


@pytest.mark.parametrize("registration", registrations(dialects, Registration), ids=lambda each: each.contract.name)
def test_every_body_that_is_paid_for_is_in_its_dialects_rig(registration: Registration[Any]) -> None:
    """A further operation in a dialect has the names of its fields looked through as well."""
    (dialect,) = registration.dialects.values()
    known = {kind for body in ANSWERING[dialect.name].bodies for kind in (body.kind, body.batch) if kind is not None}
    read = {method.reads for method in registration.methods.values() if method.reads is not None and method.is_paid}
    assert read == known


@pytest.mark.parametrize("dialect", SPOKEN.values(), ids=SPOKEN)
@pytest.mark.parametrize(
    ("field", "sentence", "above"),
    [
        ("count", "count must be at most 10", ""),
        ("candidates", "candidates must be at most 8", ""),
        ("texts[3]", "each of texts is not empty", ""),
        ("stop", "stop takes at most 16 items", ""),
        ("max_tokens", "max_tokens must be at least 1", ""),
        ("text", "text is required", "messages[1].parts[0]."),
    ],
)
def test_a_limit_is_told_in_the_callers_words(dialect: Dialect, field: str, sentence: str, above: str) -> None:
    """The sentence of a limit names the field as the field at fault is named."""
    violation = Violation(field, sentence)
    violation.under(above)
    told = dialect.in_its_words(OutsideLimits(above + sentence, violation=violation))
    name = field.partition("[")[0]
    assert told.message == sentence.replace(name, dialect.spelled(above + name))
    assert told.param == dialect.spelled(above + field)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (Unsupported("no effect", param="sampling.top_k"), "no effect"),
        (InvalidField("a call belongs elsewhere", param="messages[1].parts[0]"), "a call belongs elsewhere"),
        (UnsupportedMedia("no image", param="messages[0].parts[2].image"), "no image"),
    ],
)
def test_where_errors_have_no_field_for_the_place_the_sentence_begins_with_it(error: MoaError, told: str) -> None:
    """A caller of Messages reads which field is at fault, as a caller of OpenAI's API does from `param`."""
    place = SPOKEN["anthropic"].spelled(error.param)
    assert SPOKEN["anthropic"].in_its_words(error).message == f"{place}: {told}"
    assert SPOKEN["anthropic"].in_its_words(error).message == f"{place}: {told}"
    assert SPOKEN["openai"].in_its_words(type(error)(told, param=place)).message == told


U: Final = [{"role": "user", "content": "x"}]
C: Final = [{"parts": [{"text": "x"}]}]
PNG: Final = "iVBORw0KGgo="
REFUSED: Final[Mapping[str, tuple[str, dict[str, Any], str, str]]] = {
    "OpenAI: answers": (
        "/v1/chat/completions",
        {"model": "smart", "messages": U, "n": 100},
        "n",
        "n must be at most 8",
    ),
    "OpenAI: a stop": (
        "/v1/chat/completions",
        {"model": "smart", "messages": U, "stop": ["a"] * 17},
        "stop",
        "stop takes",
    ),
    "OpenAI: texts": (
        "/v1/embeddings",
        {"model": "encoder", "input": ["x"] * 3000},
        "input",
        "input takes at most 2048",
    ),
    "OpenAI: an empty text": (
        "/v1/embeddings",
        {"model": "encoder", "input": ["x", ""]},
        "input",
        "each of input is not",
    ),
    "OpenAI: tokens": (
        "/v1/embeddings",
        {"model": "plain-encoder", "input": [1]},
        "input",
        "does not support token_input",
    ),
    "OpenAI: a kind of part": (
        "/v1/chat/completions",
        {"model": "smart", "messages": [{"role": "user", "content": [{"type": "nope"}]}]},
        "messages[0].content[0].type",
        "use file, image_url, input_audio, refusal or text",
    ),
    "OpenAI: a word for a number": (
        "/v1/chat/completions",
        {"model": "smart", "messages": U, "temperature": "hot"},
        "temperature",
        "temperature: expected a number or null, got a string",
    ),
    "OpenAI: a size": (
        "/v1/images/generations",
        {"prompt": "x", "size": "big"},
        "size",
        "size: expected auto or WIDTHxHEIGHT, such as 1024x1024",
    ),
    "OpenAI: a function's name": (
        "/v1/chat/completions",
        {"model": "smart", "messages": U, "tools": [{"type": "function", "function": {"name": "no name"}}]},
        "tools[0].function.name",
        "tools[0].function.name: expected 1 to 64 letters, digits",
    ),
    "Google: a function's name": (
        "/v1beta/models/smart:generateContent",
        {"contents": C, "tools": [{"functionDeclarations": [{"name": "no name"}]}]},
        "tools[0].functionDeclarations[0].name",
        "expected 1 to 64 letters, digits",
    ),
    "Google: a level": (
        "/v1beta/models/smart:generateContent",
        {"contents": C, "generationConfig": {"thinkingConfig": {"thinkingLevel": "HUGE"}}},
        "generationConfig.thinkingConfig.thinkingLevel",
        "is one of ",
    ),
    "Google: answers": (
        "/v1beta/models/smart:generateContent",
        {"contents": C, "generationConfig": {"candidateCount": 100}},
        "generationConfig.candidateCount",
        "generationConfig.candidateCount",
    ),
    "Google: stop strings": (
        "/v1beta/models/smart:generateContent",
        {"contents": C, "generationConfig": {"stopSequences": ["a"] * 17}},
        "generationConfig.stopSequences",
        "generationConfig.stopSequences takes at most 16",
    ),
    "Google: an empty text": (
        "/v1beta/models/encoder:embedContent",
        {"content": {"parts": []}},
        "content.parts",
        "must not be empty",
    ),
    "Google: a role": (
        "/v1beta/models/smart:generateContent",
        {"contents": [{"role": "assistant", "parts": [{"text": "x"}]}]},
        "contents[0].role",
        "use function, model, system or user",
    ),
    "native: stop strings": (
        "/generate/text",
        {"model_id": "smart", "messages": U, "stop": [""]},
        "",
        "each of stop is not",
    ),
    "native: an image": ("/generate/text", {"model_id": "plain", "messages": U, "image_data": PNG}, "", "image"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refusal_names_what_the_caller_wrote(url: str, case: str) -> None:
    """One bad body for each kind of rule and dialect, through the edge."""
    path, body, param, told = REFUSED[case]
    answer = requests.post(url + path, json=body, headers={"Authorization": f"Bearer {KEY}"}, timeout=20)
    assert answer.status_code in (400, 415, 422)
    error = answer.json().get("error", answer.json())
    message = error.get("message") or error["detail"]
    assert told in message
    assert "texts" not in message.split()
    if "details" in error:
        assert error["details"][0]["metadata"]["field"] == param
    elif "param" in error:
        assert error["param"].partition("[")[0] == param.partition("[")[0]


@pytest.mark.parametrize(
    ("path", "param"),
    [
        ("/v1/models?limit=many", "limit"),
        ("/v1/responses/resp_1?stream=perhaps", "stream"),
        ("/v1/responses/resp_1?stream=true&starting_after=x", "starting_after"),
        ("/openai/v1/responses/resp_1/input_items?limit=", "limit"),
        ("/v1/conversations/conv_1/items?order=asc&limit=2.5", "limit"),
        ("/v1beta/models?pageSize=many", "pageSize"),
    ],
)
def test_a_refusal_names_the_parameter_that_cannot_be_read(url: str, path: str, param: str) -> None:
    """Through the edge, in each dialect; one that the path does not have is nobody's."""
    answer = requests.get(f"{url}{path}&no_such=1", headers={"Authorization": f"Bearer {KEY}"}, timeout=20)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["message"].startswith(f"{param} must be ")
    assert (error["details"][0]["metadata"]["field"] if "details" in error else error["param"]) == param
