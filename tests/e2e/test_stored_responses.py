"""Stored responses through the whole gateway: turned on by their account, kept by the auth service."""

from __future__ import annotations

import time
from typing import Any

import openai
import pytest

from tests import waiting
from tests.e2e.conftest import Gateway
from tests.e2e.test_accounts import Person

MODEL = "moa-tiny-chat"


def _client(gateway: Gateway, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=2)


@pytest.fixture(scope="module")
def other(gateway: Gateway) -> Person:
    """Somebody whose responses are not stored."""
    return Person(gateway)


@pytest.fixture(scope="module")
def person(gateway: Gateway) -> Person:
    """Somebody whose responses are stored, and were not when the router first heard of the key."""
    made = Person(gateway)
    with _client(gateway, made.key) as client:
        before = client.responses.create(model=MODEL, input="Hello!", max_output_tokens=16, store=True)
        assert before.to_dict()["store"] is False
        told = made.ask("patch", "/account/me", {"stores_responses": True})
        assert told.json()["account"]["stores_responses"] is True
        assert client.conversations.create().object == "conversation", "known to every router once it is answered"
    return made


def test_an_account_that_turns_storing_on_has_its_responses_stored(
    gateway: Gateway, person: Person, other: Person
) -> None:
    """Of others nothing is; its own are found, streamed again, gone on from and deleted, by nobody else."""
    with _client(gateway, person.key) as client, _client(gateway, other.key) as stranger:
        first = client.responses.create(model=MODEL, input="Hello!", max_output_tokens=16)
        assert first.to_dict()["store"] is True
        events = list(
            client.responses.create(
                model=MODEL, input="What can you do?", max_output_tokens=16, previous_response_id=first.id, stream=True
            )
        )
        last: Any = events[-1]
        second = last.response
        assert second.previous_response_id == first.id
        assert client.responses.retrieve(second.id).output_text == second.output_text
        rest = list(client.responses.retrieve(second.id, stream=True, starting_after=2))
        assert [one.to_dict() for one in rest] == [one.to_dict() for one in events[3:]]
        items = client.responses.input_items.list(second.id, order="asc").data
        assert [item.to_dict()["type"] for item in items] == ["message"] * 3
        with pytest.raises(openai.NotFoundError):
            stranger.responses.retrieve(second.id)
        client.responses.delete(second.id)
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(second.id)


def test_a_response_is_made_in_the_background(gateway: Gateway, person: Person) -> None:
    """It is told as it waits, found when it has ended, streamed from any place, cancelled, and gone on from."""
    with _client(gateway, person.key) as client:
        made: Any = client.responses.create(model=MODEL, input="Hello!", max_output_tokens=16, background=True)
        assert (made.status, made.background, made.output) == ("queued", True, [])
        events: Any = list(
            client.responses.create(model=MODEL, input="Hello!", max_output_tokens=16, background=True, stream=True)
        )
        assert [one.sequence_number for one in events] == list(range(len(events)))
        assert events[-1].type == "response.completed"
        streamed = events[-1].response
        rest = list(client.responses.retrieve(streamed.id, stream=True, starting_after=1))
        assert [one.to_dict() for one in rest] == [one.to_dict() for one in events[2:]]
        found = client.responses.retrieve(made.id)
        for pause_s in waiting.pauses():
            if found.status == "completed":
                break
            assert found.status in ("queued", "in_progress")
            time.sleep(pause_s)
            found = client.responses.retrieve(made.id)
        assert found.output_text == streamed.output_text
        assert client.responses.cancel(made.id).status == "completed"
        long: Any = client.responses.create(model=MODEL, input="Tell me all!", background=True)
        ended = client.responses.cancel(long.id)
        assert ended.status in ("cancelled", "completed")
        assert client.responses.retrieve(long.id).status == ended.status
        after = client.responses.create(
            model=MODEL, input="What can you do?", max_output_tokens=16, previous_response_id=made.id
        )
        assert len(client.responses.input_items.list(after.id).data) == 3
        with pytest.raises(openai.BadRequestError, match="background: true"):
            client.responses.cancel(after.id)
        with pytest.raises(openai.NotFoundError):
            client.responses.create(model="no-such-model", input="x", background=True)
        with pytest.raises(openai.BadRequestError, match="leave store: false out"):
            client.responses.create(model=MODEL, input="x", background=True, store=False)


def test_responses_are_made_in_a_conversation(gateway: Gateway, person: Person, other: Person) -> None:
    """It is made, changed, listed and deleted; a response goes on from its items, and is added to them."""
    with _client(gateway, person.key) as client, _client(gateway, other.key) as stranger:
        with pytest.raises(openai.BadRequestError, match="stores_responses"):
            stranger.conversations.create()
        made = client.conversations.create(
            metadata={"topic": "demo"}, items=[{"type": "message", "role": "user", "content": "Hello!"}]
        )
        assert (made.object, made.metadata) == ("conversation", {"topic": "demo"})
        assert client.conversations.retrieve(made.id) == made
        assert client.conversations.update(made.id, metadata={"topic": "x"}).metadata == {"topic": "x"}
        first: Any = client.responses.create(
            model=MODEL, input="What can you do?", max_output_tokens=16, conversation=made.id
        )
        assert first.conversation.id == made.id
        stream = client.responses.create(
            model=MODEL, input="And more?", max_output_tokens=16, conversation={"id": made.id}, stream=True
        )
        last: Any = list(stream)[-1]
        items = client.conversations.items.list(made.id, order="asc", limit=2)
        listed = [item.to_dict() for item in items]
        assert [item["role"] for item in listed] == ["user", "user", "assistant", "user", "assistant"]
        assert listed[-1]["id"] == last.response.output[0].id
        assert client.conversations.items.retrieve(first.output[0].id, conversation_id=made.id).to_dict() == listed[2]
        inside = client.responses.input_items.list(last.response.id, order="asc").data
        assert [item.to_dict()["id"] for item in inside] == [item["id"] for item in listed[:4]]
        after = client.responses.create(model=MODEL, input="On.", max_output_tokens=16, previous_response_id=first.id)
        assert len(client.responses.input_items.list(after.id).data) == 4
        added = client.conversations.items.create(made.id, items=[{"role": "user", "content": "One more"}])
        client.conversations.items.delete(str(added.data[0].id), conversation_id=made.id)
        assert len(client.conversations.items.list(made.id).data) == 5
        for refused in (
            lambda: stranger.conversations.retrieve(made.id),
            lambda: stranger.conversations.items.list(made.id),
            lambda: stranger.conversations.delete(made.id),
            lambda: client.conversations.items.retrieve("msg_none", conversation_id=made.id),
            lambda: client.responses.create(model=MODEL, input="x", conversation="conv_none"),
        ):
            with pytest.raises(openai.NotFoundError):
                refused()
        with pytest.raises(openai.BadRequestError, match="name one of them"):
            client.responses.create(model=MODEL, input="x", conversation=made.id, previous_response_id=first.id)
        with pytest.raises(openai.BadRequestError, match=r"items\[0\]"):
            client.conversations.items.create(made.id, items=[{"role": "user", "content": []}])
        assert client.conversations.delete(made.id).deleted is True
        with pytest.raises(openai.NotFoundError):
            client.conversations.retrieve(made.id)
