"""Stored responses by OpenAI's own client, behind the real edge: told, read again, gone on from, and deleted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
import requests

from moa.common.v1 import error_pb2
from moa.text.v1 import text_pb2
from services.common.errors import Unavailable
from services.router.dialects.responses import state
from tests.router.played_responses import PlayedResponses
from tests.router.rig import KEY, OTHER_KEY, Played, ended, said, text, thought

MODEL = "smart"


@pytest.fixture
def stored(played: Played) -> PlayedResponses:
    """Return what is stored, of accounts that have it so."""
    played.stores = True
    return played.responses


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as made:
        yield made


@pytest.fixture
def other(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key=OTHER_KEY, max_retries=0) as made:
        yield made


def asked_of(played: Played) -> list[tuple[str, str]]:
    """Return the messages that whoever answers was asked last."""
    names = {text_pb2.ROLE_USER: "user", text_pb2.ROLE_ASSISTANT: "assistant", text_pb2.ROLE_SYSTEM: "system"}
    return [(names[each.role], "".join(part.text for part in each.parts)) for each in played.texts[-1].messages]


@pytest.mark.parametrize("stream", [False, True])
def test_a_response_that_is_told_as_stored_is_found(
    client: openai.OpenAI, stored: PlayedResponses, *, stream: bool
) -> None:
    """The very next request finds it as it was told, with its own input, whose items have ids."""
    if stream:
        with client.responses.stream(model=MODEL, input="hi") as events:
            made: Any = events.get_final_response()
            events.until_done()
    else:
        made = client.responses.create(model=MODEL, input="hi")
    assert made.to_dict()["store"] is True
    found = client.responses.retrieve(made.id)
    assert (found.id, found.output[0].id, found.usage) == (made.id, made.output[0].id, made.usage)
    assert (found.output_text, found.status, found.to_dict()["store"]) == ("Hello 안녕", "completed", True)
    (item,) = client.responses.input_items.list(made.id).data
    shown: Any = item.to_dict()
    assert (shown["role"], shown["content"]) == ("user", [{"type": "input_text", "text": "hi"}])
    assert shown["id"].startswith("msg_")


def test_nothing_is_asked_of_the_store_for_who_has_nothing_stored(client: openai.OpenAI, played: Played) -> None:
    """An account that has nothing stored costs no call, and its answers say so, whatever it asked."""
    played.stores = False
    for store in (None, True, False):
        given: Any = {} if store is None else {"store": store}
        raw = client.responses.with_raw_response.create(model=MODEL, input="hi", **given)
        assert raw.parse().to_dict()["store"] is False
        assert ("store" in raw.headers.get("x-moa-ignored", "")) is (store is True)
    assert played.responses.calls == []


def test_who_wants_one_answer_not_stored_has_it_so(client: openai.OpenAI, stored: PlayedResponses) -> None:
    """`store: false` costs no call either, and the response is found nowhere."""
    made = client.responses.create(model=MODEL, input="hi", store=False)
    assert made.to_dict()["store"] is False
    assert stored.calls == []
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)


@pytest.mark.parametrize("field", ["previous_response_id", "background", "conversation"])
def test_what_needs_storing_says_how_it_is_turned_on(client: openai.OpenAI, played: Played, field: str) -> None:
    """It is refused before anybody is asked, with the next step."""
    given: Any = {field: True if field == "background" else "x_1"}
    with pytest.raises(openai.BadRequestError, match=f"{field}: .*stores_responses") as refused:
        client.responses.create(model=MODEL, input="hi", **given)
    assert refused.value.param == field
    assert played.texts == []


def test_a_response_goes_on_from_another(client: openai.OpenAI, played: Played, stored: PlayedResponses) -> None:
    """The model sees all that was said before; instructions are of their own request; reasoning comes back sealed."""
    played.script = [text(thought("hm", b"proof")), text(said("four")), ended()]
    first = client.responses.create(model=MODEL, input="2+2?", instructions="be brief")
    second = client.responses.create(model=MODEL, input=[{"role": "user", "content": "and 1?"}],
                                     previous_response_id=first.id)  # fmt: skip
    assert second.previous_response_id == first.id
    assert asked_of(played) == [("user", "2+2?"), ("assistant", "four"), ("user", "and 1?")]
    proof = next(part.reasoning for part in played.texts[-1].messages[1].parts if part.HasField("reasoning"))
    assert (proof.text, proof.signature) == ("hm", b"proof")
    third = client.responses.create(model=MODEL, input="more", previous_response_id=second.id)
    assert [words for _, words in asked_of(played)] == ["2+2?", "four", "and 1?", "Hello 안녕", "more"]
    listed = client.responses.input_items.list(third.id, order="asc", limit=100).data
    assert [item.to_dict()["type"] for item in listed] == [
        *("message", "reasoning", "message", "message", "message", "message")
    ]
    assert [str(item.to_dict().get("role")) for item in listed][-1] == "user"


def test_one_that_is_not_stored_may_go_on_from_one_that_is(
    client: openai.OpenAI, played: Played, stored: PlayedResponses
) -> None:
    """`store: false` is of the new response alone."""
    first = client.responses.create(model=MODEL, input="hi")
    second = client.responses.create(model=MODEL, input="on", previous_response_id=first.id, store=False)
    assert (second.to_dict()["store"], second.previous_response_id) == (False, first.id)
    assert len(asked_of(played)) == 3
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(second.id)


def test_a_fault_is_named_by_its_place_in_the_callers_own_input(client: openai.OpenAI, stored: PlayedResponses) -> None:
    """What goes before it is not counted."""
    first = client.responses.create(model=MODEL, input="hi")
    bad: Any = [{"role": "user", "content": "on"}, {"role": "user", "content": []}]
    with pytest.raises(openai.BadRequestError, match=r"input\[1\]\.content"):
        client.responses.create(model=MODEL, input=bad, previous_response_id=first.id)


def test_ids_of_others_are_unknown(client: openai.OpenAI, other: openai.OpenAI, stored: PlayedResponses) -> None:
    """Another account finds, continues and deletes nothing, in the API's own envelope."""
    made = client.responses.create(model=MODEL, input="hi")
    for refused in (
        lambda: other.responses.retrieve(made.id),
        lambda: other.responses.delete(made.id),
        lambda: other.responses.input_items.list(made.id),
        lambda: client.responses.retrieve("resp_none"),
        lambda: other.responses.create(model=MODEL, input="x", previous_response_id=made.id),
        lambda: other.responses.retrieve(made.id, stream=True),
    ):
        with pytest.raises(openai.NotFoundError) as found:
            refused()
        body: Any = found.value.body
        assert (body["type"], body["code"]) == ("not_found_error", "not_found")
    client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)


def test_a_stream_is_read_again_from_any_place(client: openai.OpenAI, played: Played, stored: PlayedResponses) -> None:
    """What was read up to a cut, and what is read from there on, are the whole stream, byte for byte."""
    played.script = [text(thought("h"), thought("m")), text(said("a")), text(said("b"), said("c")), ended()]
    raw = client.responses.with_raw_response.create(model=MODEL, input="hi", stream=True).http_response
    whole = raw.read()
    events = [event + b"\n\n" for event in whole.split(b"\n\n")[:-1] if event.startswith(b"event")]
    last = json.loads(events[-1].partition(b"data: ")[2])
    assert last["response"]["store"] is True
    for at in range(-1, len(events)):
        given: Any = {} if at < 0 else {"starting_after": at}
        again = client.responses.with_raw_response.retrieve(last["response"]["id"], stream=True, **given)
        assert b"".join(events[: at + 1]) + again.http_response.read() == b"".join(events)
    numbers = [event.sequence_number for event in client.responses.retrieve(last["response"]["id"], stream=True)]
    assert numbers == list(range(len(events)))


@pytest.mark.parametrize("after", [-1, 999])
def test_a_stream_is_not_read_from_behind_an_event_that_it_has_not(
    client: openai.OpenAI, stored: PlayedResponses, after: int
) -> None:
    """A number that no event has is refused: nothing would come, which looks like an answer's end."""
    with client.responses.stream(model=MODEL, input="hi") as events:
        made = events.get_final_response()
        events.until_done()
    with pytest.raises(openai.BadRequestError, match="starting_after") as refused:
        list(client.responses.retrieve(made.id, stream=True, starting_after=after))
    assert refused.value.param == "starting_after"


@pytest.mark.parametrize("named", [{"id": None}, {}, {"id": ""}, "", 7])
def test_a_conversation_without_an_id_is_refused(client: openai.OpenAI, stored: PlayedResponses, named: Any) -> None:
    """An answer that belongs to no conversation is not what was asked for."""
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(model=MODEL, input="hi", conversation=named)
    assert refused.value.param == "conversation"


def test_what_was_not_streamed_has_no_events(client: openai.OpenAI, stored: PlayedResponses) -> None:
    """It is said, and what can be had instead."""
    made = client.responses.create(model=MODEL, input="hi")
    with pytest.raises(openai.BadRequestError, match="made without") as refused:
        client.responses.retrieve(made.id, stream=True)
    assert refused.value.param == "stream"


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_cannot_be_stored_is_had_all_the_same(
    url: str, stored: PlayedResponses, *, stream: bool
) -> None:
    """It is made and paid for: its last word says that it is not stored."""
    stored.refusal = Unavailable("accounts cannot be reached now")
    got = requests.post(
        f"{url}/v1/responses", json={"model": MODEL, "input": "hi", "stream": stream}, headers={"x-api-key": KEY},
        timeout=20,
    )  # fmt: skip
    assert got.status_code == 200
    lines = [line.removeprefix(b"data: ") for line in got.content.split(b"\n") if line.startswith(b"data: ")]
    told = [json.loads(line) for line in lines or [got.content]]
    response = told[-1]["response"] if stream else told[-1]
    assert (response["status"], response["store"]) == ("completed", False)
    if stream:
        assert [one["sequence_number"] for one in told] == list(range(len(told)))


def test_a_stream_that_fails_is_stored_as_failed(
    client: openai.OpenAI, played: Played, stored: PlayedResponses
) -> None:
    """Whoever asks later is told why."""
    error = error_pb2.ErrorDetail(reason=error_pb2.REASON_UPSTREAM_FAILED, message="gone")
    played.script = [text(said("a")), text(text_pb2.TextEvent(error=error))]
    events = list(client.responses.create(model=MODEL, input="hi", stream=True))
    made: Any = events[-1]
    found = client.responses.retrieve(made.response.id)
    assert (found.status, found.error and found.error.message) == ("failed", "gone")


def test_pages_of_items(client: openai.OpenAI, stored: PlayedResponses) -> None:
    """They come in either order, as many as are asked for, and go on behind any item."""
    items: Any = [{"role": "user", "content": f"{number}"} for number in range(5)]
    made = client.responses.create(model=MODEL, input=items)

    def words(**given: Any) -> list[Any]:
        page: Any = client.responses.input_items.list(made.id, **given)
        return [item.to_dict()["content"][0]["text"] for item in page.data]

    assert words() == ["4", "3", "2", "1", "0"]
    assert words(order="asc", limit=2) == ["0", "1"]
    everything: Any = client.responses.input_items.list(made.id, limit=2, order="asc")
    assert [item.to_dict()["content"][0]["text"] for item in everything] == ["0", "1", "2", "3", "4"]
    for given, param in (
        ({"limit": 101}, "limit"),
        ({"limit": 0}, "limit"),
        ({"order": "up"}, "order"),
        ({"after": "none"}, "after"),
    ):
        with pytest.raises(openai.BadRequestError) as refused:
            client.responses.input_items.list(made.id, **given)
        assert refused.value.param == param


@pytest.mark.parametrize(
    ("body", "wish"),
    [
        (b'{"input": "store"}', state.Wish()),
        (b'{"store": true, "model": 1}', state.Wish(store=True)),
        (b'{"previous_response_id": null}', state.Wish()),
        (b'{"store": "x"}', state.Wish()),
        (b'{"store": ', state.Wish()),
        (b"\xff store", state.Wish()),
    ],
)
def test_what_a_body_wishes_is_read_from_any_body(body: bytes, wish: state.Wish) -> None:
    """One that cannot be read wishes nothing: who reads it whole says what is wrong with it."""
    assert state.wished(body) == wish


def test_items_may_be_named_by_their_ids(client: openai.OpenAI, played: Played, stored: PlayedResponses) -> None:
    """As the AI SDK sends them: the model sees the items, and the new response is stored with them, not with ids."""
    played.script = [text(thought("hm", b"proof")), text(said("four")), ended()]
    first = client.responses.create(model=MODEL, input="2+2?")
    asked: Any = [
        {"role": "user", "content": "2+2?"},
        *({"type": "item_reference", "id": item.id} for item in first.output),
        {"role": "user", "content": "and 1?"},
    ]
    second = client.responses.create(model=MODEL, input=asked)
    assert asked_of(played) == [("user", "2+2?"), ("assistant", "four"), ("user", "and 1?")]
    kinds = [item.to_dict()["type"] for item in client.responses.input_items.list(second.id, order="asc").data]
    assert kinds == ["message", "reasoning", "message", "message"]
    asked[1]["id"] = f"rs_{'0' * 32}_0"
    with pytest.raises(openai.NotFoundError, match=r"input\[1\]: there is no item"):
        client.responses.create(model=MODEL, input=asked)


def test_what_a_response_goes_on_from_is_counted(
    client: openai.OpenAI, played: Played, stored: PlayedResponses
) -> None:
    """Tokens are counted of all that the model would see."""
    first = client.responses.create(model=MODEL, input="hi")
    client.responses.input_tokens.count(model=MODEL, input="on", previous_response_id=first.id)
    assert ["".join(part.text for part in each.parts) for each in played.counts[-1].messages] == [
        "hi",
        "Hello 안녕",
        "on",
    ]


def test_raw_control_characters_hide_nothing_of_what_is_stored(
    client: openai.OpenAI, url: str, played: Played, stored: PlayedResponses
) -> None:
    """A body whose strings hold raw line breaks, as shells write them, has its wishes seen to and its input stored."""
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}

    def ask(fields: str) -> Any:
        data = f'{{"model": "{MODEL}", "input": "a\nb"{fields}}}'.encode()
        return requests.post(f"{url}/v1/responses", data=data, headers=headers, timeout=30)

    assert ask(', "store": false').json()["store"] is False
    assert ask(', "previous_response_id": "resp_none"').status_code == 404
    first = ask("").json()
    [item] = client.responses.input_items.list(first["id"]).data
    assert item.to_dict()["content"] == [{"type": "input_text", "text": "a\nb"}]
    ask(f', "previous_response_id": "{first["id"]}"')
    assert asked_of(played) == [("user", "a\nb"), ("assistant", "Hello 안녕"), ("user", "a\nb")]
    refused = ask(', "zz": NaN').json()["error"]
    assert (refused["code"], "NaN" in refused["message"]) == ("malformed", True)


@pytest.mark.parametrize(
    "before", ['"store": true, "input": ', '"previous_response_id": "resp_none", "input": ', '"input": ']
)
def test_a_body_that_is_nested_too_deeply_says_so(url: str, stored: PlayedResponses, before: str) -> None:
    """What is looked for in it before it is read is no internal error."""
    data = f'{{"model": "{MODEL}", {before}{"[" * 100_000}{"]" * 100_000}}}'.encode()
    for path in ("responses", "responses/input_tokens"):
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        refused = requests.post(f"{url}/v1/{path}", data=data, headers=headers, timeout=30)
        # From Python 3.14 on the stack's size bounds the depth, and such a body is looked through to its response's id.
        expected = {
            (400, "malformed"),
            (400, "invalid_value"),
            *([(404, "not_found")] if "resp_none" in before else []),
        }
        assert (refused.status_code, refused.json()["error"]["code"]) in expected
