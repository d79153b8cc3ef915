"""Stored responses through the whole gateway: turned on by their account, kept by the auth service."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.e2e.conftest import Gateway
from tests.e2e.test_accounts import Person

MODEL = "moa-tiny-chat"


def _client(gateway: Gateway, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=2)


def test_an_account_that_turns_storing_on_has_its_responses_stored(gateway: Gateway) -> None:
    """Of others nothing is; its own are found, streamed again, gone on from and deleted, by nobody else."""
    person, other = Person(gateway), Person(gateway)
    with _client(gateway, person.key) as client, _client(gateway, other.key) as stranger:
        assert (
            stranger.responses.create(model=MODEL, input="Hello!", max_output_tokens=16, store=True).to_dict()["store"]
            is False
        )
        # Before its key is first used: a router knows a key's account for up to two seconds.
        told = person.ask("patch", "/account/me", {"stores_responses": True})
        assert told.json()["account"]["stores_responses"] is True
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
