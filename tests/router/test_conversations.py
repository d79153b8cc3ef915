"""The bodies of `/v1/conversations`: what a conversation takes, and what it refuses before it is stored."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from openai.types.conversations import ConversationItem
from pydantic import BaseModel

from services.common.errors import InvalidField, MoaError
from services.router.dialects.responses import bodies
from services.router.dialects.responses.conversations import added, changed, created

MESSAGE = {"role": "user", "content": "x"}


def _kinds(union: Any) -> set[str]:
    """Return the types of the items of a union of OpenAI's client."""
    members: list[type[BaseModel]] = [one for one in get_args(get_args(union)[0]) if issubclass(one, BaseModel)]
    return {kind for each in members for kind in get_args(each.model_fields["type"].annotation)}


def test_the_types_of_items_are_those_that_a_conversation_of_openai_has() -> None:
    """All that OpenAI's models may be sent later is taken, whichever model answers."""
    assert {*bodies.ITEMS, *bodies.OWN_ITEMS} == _kinds(ConversationItem)
    items = [MESSAGE, *({"type": kind} for kind in sorted(bodies.OWN_ITEMS))]
    assert [json.loads(each.item)["type"] for each in added(json.dumps({"items": items}).encode())] == [
        "message",
        *sorted(bodies.OWN_ITEMS),
    ]


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("bogus", "items[1].type: no item is of the type 'bogus'; use message"),
        ("mesage", "items[1].type: no item is of the type 'mesage'; use message"),
        ("computer_cal", "items[1].type: no item is of the type 'computer_cal'; use computer_call"),
    ],
)
def test_an_item_that_no_request_could_have_is_refused_at_once(kind: str, told: str) -> None:
    """Stored, it would have every later response on the conversation refused."""
    body = json.dumps({"items": [MESSAGE, {"type": kind}]}).encode()
    for read in (created, added):
        with pytest.raises(InvalidField) as refused:
            read(body)
        assert (refused.value.message, refused.value.param) == (told, "items[1].type")


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        ({"a": "", "b": 1}, "metadata.b: expected a string, got a whole number"),
        ({"a": "x" * 513}, "metadata.a: expected a string of length <= 512"),
        ({"k" * 65: ""}, f"metadata.{'k' * 64}: a key: expected a string of length <= 64"),
        ({"a": "x\0"}, "metadata.a: a text holds the character NUL; leave it out"),
        ({"a\0": "x"}, "metadata.a?: a text holds the character NUL; leave it out"),
        ({str(n): "" for n in range(17)}, "metadata: expected an object of length <= 16"),
    ],
)
def test_a_refusal_of_metadata_names_the_key(metadata: dict[str, Any], told: str) -> None:
    """Of one key or value, as it is written; of all, the field."""
    for read in (created, changed):
        with pytest.raises(MoaError) as refused:
            read(json.dumps({"metadata": metadata}).encode())
        assert refused.value.message == told
        assert refused.value.param == told.partition(":")[0]
