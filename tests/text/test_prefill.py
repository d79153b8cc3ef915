"""How servers of OpenAI's protocol are told to go on from the beginning of an answer."""

from __future__ import annotations

from typing import Any

import pytest

from moa.text.v1.text_pb2 import Message, Part, Role
from services.catalogue import Model
from services.providers.openai.text.request import Options, body_from
from services.providers.text.ignored import Ignored
from tests.text.harness import chat

VLLM = {"continue_final_message": True, "add_generation_prompt": False}
ABLE = frozenset({"prefill"})


@pytest.mark.parametrize(
    ("how", "abilities", "last", "marks", "fields"),
    [
        ("as_is", ABLE, Role.ROLE_ASSISTANT, {}, {}),
        ("continue_final_message", ABLE, Role.ROLE_ASSISTANT, {}, VLLM),
        ("prefix", ABLE, Role.ROLE_ASSISTANT, {"prefix": True}, {}),
        ("continue_final_message", frozenset(), Role.ROLE_ASSISTANT, {}, {}),
        ("continue_final_message", ABLE, Role.ROLE_USER, {}, {}),
        ("prefix", frozenset(), Role.ROLE_ASSISTANT, {}, {}),
    ],
)
def test_each_server_in_its_own_way(
    how: Any, abilities: frozenset[str], last: Role.ValueType, marks: dict[str, Any], fields: dict[str, Any]
) -> None:
    """By its provider's option, for a model that can, and where the last message is the assistant's; else nothing."""
    request = chat("Tell me a story.")
    request.messages.append(Message(role=last, parts=[Part(text="Once")]))
    model = Model(id="m", provider="p", capabilities=abilities)
    body = body_from(request, model, Options(prefill=how), Ignored())
    role = "assistant" if last == Role.ROLE_ASSISTANT else "user"
    assert body["messages"][-1] == {"role": role, "content": "Once", **marks}
    assert {key: body[key] for key in VLLM if key in body} == fields
