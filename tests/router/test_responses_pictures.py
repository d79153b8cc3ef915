"""`image_generation` of the Responses API, by the official client: any chat's model, pictures by any image model."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import pytest
from openai import BadRequestError, NotFoundError, OpenAI
from PIL import Image

from moa.common.v1 import error_pb2
from moa.image.v1 import image_pb2
from moa.image.v1.image_service_pb2 import GenerateImageResponse
from moa.text.v1 import text_pb2
from services.common.errors import MoaError, QuotaExhausted, UpstreamBroken
from services.common.vendor_fields import MOST_BYTES
from services.router.dialects.responses import asked
from tests.router.responses_played import EVENT, check_order
from tests.router.rig import KEY, Played, called, ended, picture, said, text, thought

TOOL = {"type": "image_generation", "model": "gemini-2.5-flash-image"}
CALL = {"prompt": "a red circle"}


@pytest.fixture
def client(url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0, timeout=20) as made:
        yield made


def calling(arguments: dict[str, Any] | str = CALL, *before: text_pb2.TextEvent) -> list[Any]:
    """Return the messages of a model that has a picture made."""
    words = arguments if isinstance(arguments, str) else json.dumps(arguments)
    calls = text(*before, called(0, "image_generation", words, call_id="c1", sign=b"s"))
    return [calls, ended(text_pb2.FINISH_REASON_TOOL_CALLS)]


def make(client: OpenAI, tool: dict[str, Any] = TOOL, **fields: Any) -> Any:
    asked: dict[str, Any] = {"model": "smart", "input": "Draw a circle", "tools": [tool], **fields}
    return client.responses.create(**asked)


def charged(played: Played) -> list[tuple[int, int]]:
    """Return the tokens and images of each reservation, as they ended."""
    ends = [usage for usage in played.books.ended() if usage]
    return sorted((usage.prompt_tokens + usage.completion_tokens, usage.images) for usage in ends)


def test_a_picture_is_made_between_two_rounds_of_the_chat(client: OpenAI, played: Played) -> None:
    """The item holds the file; the model is told of it, with its own turn, and goes on; each operation is charged."""
    played.script = calling(CALL, thought("hm", b"proof"), said("Here: "))
    made = make(client, {**TOOL, "size": "64x48", "quality": "high"}, tool_choice={"type": "image_generation"})
    kinds = [item.type for item in made.output]
    assert kinds == ["reasoning", "message", "image_generation_call", "message"]
    item = made.output[2]
    assert base64.b64decode(item.result) == picture(64, 48)
    assert (item.status, item.size, item.quality, item.output_format) == ("completed", "64x48", "high", "png")
    assert (item.revised_prompt, item.action) == ("a red circle", "generate")
    assert made.output_text == "Here: Hello 안녕"
    assert (made.status, made.usage.total_tokens, made.tool_usage.image_gen.input_tokens) == ("completed", 24, 3)
    first, second = played.texts
    assert first.tool_choice.mode == text_pb2.ToolChoice.MODE_NAMED
    assert first.tool_choice.name == first.tools[0].name == "image_generation"
    assert second.tool_choice.mode == text_pb2.ToolChoice.MODE_AUTO
    turn, result = second.messages[-2:]
    assert [part.WhichOneof("part") for part in turn.parts] == ["reasoning", "text", "tool_call"]
    assert (turn.parts[0].reasoning.signature, turn.parts[2].tool_call.signature) == (b"proof", b"s")
    assert result.parts[0].tool_result.tool_call_id == turn.parts[2].tool_call.id
    assert not result.parts[0].tool_result.is_error
    (asked_for,) = played.pictures
    assert (asked_for.prompt, asked_for.width, asked_for.height, asked_for.count) == ("a red circle", 64, 48, 1)
    assert charged(played) == [(3, 1), (12, 0), (12, 0)]


def test_a_stream_shows_the_picture_as_it_grows(client: OpenAI, played: Played) -> None:
    """Its events are the API's, in its order, with partial pictures where the model shows some."""
    played.script = calling()
    stream = make(client, {**TOOL, "partial_images": 2, "output_format": "webp"}, stream=True)
    found = []
    for event in stream:
        raw = event.model_dump(exclude_unset=True, warnings=False)
        EVENT.validate_python(raw)
        found.append(raw)
    check_order(found)
    kinds = [event["type"].removeprefix("response.image_generation_call.") for event in found]
    began = kinds.index("in_progress")
    assert kinds[began - 1 : began + 6] == [
        "response.output_item.added",
        "in_progress",
        "generating",
        "partial_image",
        "partial_image",
        "completed",
        "response.output_item.done",
    ]
    partial = [event for event in found if event["type"].endswith("partial_image")]
    assert [event["partial_image_index"] for event in partial] == [0, 1]
    assert base64.b64decode(partial[0]["partial_image_b64"])[8:12] == b"WEBP"
    whole = found[-1]["response"]
    assert [item["type"] for item in whole["output"]] == ["image_generation_call", "message"]
    assert base64.b64decode(whole["output"][0]["result"])[8:12] == b"WEBP"
    assert whole["usage"]["total_tokens"] == 24
    assert charged(played) == [(3, 1), (12, 0), (12, 0)]


def test_the_callers_own_functions_wait_for_it(client: OpenAI, played: Played) -> None:
    """A turn that calls both has its picture made, and ends there: the caller answers the call with all items."""
    both = text(called(0, "image_generation", json.dumps(CALL), "c1"), called(1, "f", "{}", "c2"))
    played.script = [both, ended(text_pb2.FINISH_REASON_TOOL_CALLS)]
    own = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}, "strict": False}
    made = make(client, tools=[TOOL, own])
    assert {item.type for item in made.output} == {"function_call", "image_generation_call"}
    items = [item.model_dump(exclude_none=True) for item in made.output]
    items.sort(key=lambda item: item["type"], reverse=True)
    answered = {"type": "function_call_output", "call_id": "c2", "output": "4"}
    make(client, tools=[TOOL, own], input=[{"role": "user", "content": "go"}, *items, answered])
    sent = played.texts[-1].messages
    assert [message.role for message in sent[:4]] == [
        text_pb2.ROLE_USER,
        text_pb2.ROLE_ASSISTANT,
        text_pb2.ROLE_TOOL,
        text_pb2.ROLE_USER,
    ]
    assert {part.tool_call.name for part in sent[1].parts} == {"image_generation", "f"}
    assert sent[3].parts[1].image.data == picture(16, 12)
    assert sent[4].parts[0].tool_result.tool_call_id == "c2"


def test_a_picture_of_the_conversation_is_changed(client: OpenAI, played: Played) -> None:
    """The model may choose to change the last picture, of the caller's or one that was made; `edit` always does."""
    shown = "data:image/png;base64," + base64.b64encode(picture(8, 8)).decode()
    given = [{"role": "user", "content": [{"type": "input_image", "image_url": shown}]}]
    played.script = calling({**CALL, "action": "edit"})
    made = make(client, input=given)
    assert '"edit"' in played.texts[0].tools[0].parameters_json
    assert made.output[0].action == "edit"
    asked_for = played.pictures[0]
    assert (asked_for.operation, asked_for.images[0].data) == (image_pb2.OPERATION_EDIT, picture(8, 8))
    again = [*given, *[item.model_dump(exclude_none=True) for item in made.output]]
    played.script = calling()
    make(client, {**TOOL, "action": "edit"}, input=[*again, {"role": "user", "content": "bluer"}])
    assert played.pictures[1].images[0].data == picture(16, 12)


def failing(error: Any) -> list[Any]:
    detail = error_pb2.ErrorDetail(reason=error.reason, message=error.message)
    return [GenerateImageResponse(events=[image_pb2.ImageEvent(error=detail)])]


def test_a_picture_that_fails_is_told(client: OpenAI, played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its item has the error, the model is told why, and nothing is charged for it."""
    monkeypatch.setattr(played, "images", lambda _: failing(QuotaExhausted("no images are left today")))
    played.script = calling()
    made = make(client)
    item = made.output[0]
    assert (item.status, item.result, item.error.message) == ("failed", None, "no images are left today")
    told = played.texts[1].messages[-1].parts[0].tool_result
    assert (told.is_error, told.content) == (True, "The picture could not be made: no images are left today")
    assert charged(played) == [(12, 0), (12, 0)]


def test_a_round_that_fails_leaves_the_picture(client: OpenAI, played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was made and charged is in the response, which failed, whole as streamed."""
    real = played.ask

    def ask(operation: Any, request: Any, *more: Any, **rest: Any) -> Any:
        if operation.name == "text" and len(request.messages) > 1:
            raise UpstreamBroken("away")
        return real(operation, request, *more, **rest)

    monkeypatch.setattr(played, "ask", ask)
    played.script = calling()
    made = make(client)
    assert (made.status, made.error.code) == ("failed", "server_error")
    assert base64.b64decode(made.output[0].result) == picture(16, 12)
    played.script = calling()
    *_, last = make(client, stream=True)
    assert (last.type, last.response.output[0].type) == ("response.failed", "image_generation_call")
    assert charged(played) == [(3, 1), (3, 1), (12, 0), (12, 0)]


@pytest.mark.parametrize(
    ("tool", "param"),
    [
        ({**TOOL, "model": "smart"}, "tools[0].model"),
        ({**TOOL, "size": "big"}, "tools[0].size"),
        ({**TOOL, "output_format": "gif"}, "tools[0].output_format"),
        ({**TOOL, "action": "draw"}, "tools[0].action"),
        ({"type": "image_generation", "model": "gpt-image-1", "action": "edit"}, "tools[0].action"),
        ({**TOOL, "input_image_mask": {"file_id": "f"}}, "tools[0].input_image_mask.file_id"),
        ({**TOOL, "svg": {}}, "tools[0].svg"),
    ],
)
def test_a_wrong_tool_is_refused_before_anybody_is_asked(
    client: OpenAI, played: Played, tool: dict[str, Any], param: str
) -> None:
    """By the field's path, with nothing charged."""
    with pytest.raises(BadRequestError) as caught:
        make(client, tool)
    assert isinstance(caught.value.body, dict)
    assert caught.value.body["param"] == param
    assert not played.texts


def test_an_unknown_image_model_is_named(client: OpenAI) -> None:
    """404, as for the chat's own."""
    with pytest.raises(NotFoundError, match="no-such") as caught:
        make(client, {**TOOL, "model": "no-such"})
    assert isinstance(caught.value.body, dict)
    assert caught.value.body["param"] == "tools[0].model"


def test_what_the_image_model_does_not_know_is_named(client: OpenAI, played: Played) -> None:
    """In `x-moa-ignored`, by its path; the unnamed tool takes the dialect's usual image model."""
    given = {"type": "image_generation", "model": "gpt-image-1", "quality": "high", "partial_images": 2}
    answer = client.responses.with_raw_response.create(model="smart", input="hi", tools=[given])  # type: ignore[list-item]
    assert answer.headers["x-moa-ignored"] == "tools[0].partial_images, tools[0].quality"
    assert answer.headers["x-moa-cost"] == "tokens=12"
    played.script = calling()
    answer = client.responses.with_raw_response.create(model="smart", input="hi", tools=[{"type": "image_generation"}])
    assert played.pictures[-1].model == "gemini-2.5-flash-image"
    assert answer.headers["x-moa-cost"] == "tokens=24, images=1"


def test_pictures_have_bounds(client: OpenAI, played: Played) -> None:
    """`max_tool_calls` holds, `max_output_tokens` is the whole response's, and arguments that are none make nothing."""
    two = text(called(0, "image_generation", json.dumps(CALL), "c1"), called(1, "image_generation", "[]", "c2"))
    played.script = [two, ended(text_pb2.FINISH_REASON_TOOL_CALLS)]
    made = make(client, max_tool_calls=1, max_output_tokens=30)
    assert [item.type for item in made.output] == ["image_generation_call", "message"]
    told = [message.parts[0].tool_result.content for message in played.texts[1].messages[-2:]]
    assert told[1] == "The picture could not be made: the arguments are not those of the tool"
    assert (played.texts[0].max_tokens, played.texts[1].max_tokens) == (30, 25)
    played.script = [
        text(*(called(n, "image_generation", json.dumps(CALL), f"c{n}") for n in range(2))),
        ended(text_pb2.FINISH_REASON_TOOL_CALLS),
    ]
    assert len(make(client, max_tool_calls=1).output) == 2
    played.script = calling()
    cut = make(client, max_output_tokens=5)
    assert (cut.status, cut.incomplete_details.reason) == ("incomplete", "max_output_tokens")


def test_a_prompt_with_pictures_is_counted_as_its_model_is_shown_it(client: OpenAI, played: Played) -> None:
    """The tool is a function, and earlier pictures are calls of it."""
    item = {"type": "image_generation_call", "id": "ig_1", "status": "completed", "result": None}
    given: Any = [{"role": "user", "content": "hi"}, item]
    counted = client.responses.input_tokens.count(model="smart", input=given, tools=[TOOL])  # type: ignore[list-item]
    assert counted.input_tokens == 42
    (asked_for,) = played.counts
    assert asked_for.tools[0].name == "image_generation"
    assert asked_for.messages[2].parts[0].tool_result.is_error


def test_pictures_are_given_back_as_pictures() -> None:
    """An item's file is bounded as images are, not as fields of a vendor's own; a broken one is named."""
    noise = Image.effect_noise((640, 640), 100)
    file = BytesIO()
    noise.save(file, "PNG")
    assert len(file.getvalue()) > MOST_BYTES
    item = {"type": "image_generation_call", "id": "ig_1", "status": "completed"}

    def read(result: str) -> asked.Read:
        given = [{"role": "user", "content": "hi"}, {**item, "result": result}]
        return asked.read(json.dumps({"model": "m", "input": given}).encode())

    made = read(base64.b64encode(file.getvalue()).decode())
    assert made.has_pictures
    assert made.request.messages[1].parts[0].image.data == file.getvalue()
    with pytest.raises(MoaError) as caught:
        read("no picture")
    assert caught.value.param == "input[1].result"
