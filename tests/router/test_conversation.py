"""Which requests are of one conversation."""

from __future__ import annotations

import json
from typing import Any

from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.router.dialects.openai import chat_request
from services.router.domain.conversation import modalities_of
from services.router.operations.text import TextCall


def key_of(*messages: tuple[str, str], **body: Any) -> str:
    """Return the key of a body of OpenAI's."""
    turns = [{"role": role, "content": content} for role, content in messages]
    read, prompt = chat_request.read(json.dumps({"model": "m", "messages": turns, **body}).encode())
    return TextCall(read.request, prompt).sticky_key()


SYSTEM, FIRST = ("system", "Be brief."), ("user", "Hi.")


def test_later_turns_have_the_key_of_the_first() -> None:
    """What comes before the first answer tells conversations apart; another system, tool or question is another."""
    key = key_of(SYSTEM, FIRST)
    assert key == key_of(SYSTEM, FIRST, ("assistant", "Hello."), ("user", "And now?"))
    tools = [{"type": "function", "function": {"name": "look"}}]
    others = [key_of(FIRST), key_of(SYSTEM, ("user", "Hi!")), key_of(SYSTEM, FIRST, tools=tools)]
    assert len({key, *others}) == 4


def test_parts_are_not_run_together() -> None:
    """Where a message ends counts."""
    assert key_of(("system", "ab"), ("user", "c")) != key_of(("system", "a"), ("user", "bc"))


def test_what_the_caller_says_comes_first() -> None:
    """`prompt_cache_key` before `user` before the prompt; a key that is no text says nothing."""
    assert key_of(FIRST, prompt_cache_key="x", user="u") == key_of(SYSTEM, FIRST, prompt_cache_key="x") == "key x"
    assert key_of(FIRST, user="u") == key_of(SYSTEM, user="u") == "user u"
    assert key_of(FIRST, prompt_cache_key=["x"]) == key_of(FIRST)


def test_a_request_that_a_policy_changed_is_of_the_same_conversation() -> None:
    """What its caller says of it holds on."""
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi."}], "prompt_cache_key": "x"}
    read, prompt = chat_request.read(json.dumps(body).encode())
    other = GenerateTextRequest()
    other.messages.add().parts.add(text="Ho.")
    assert TextCall(read.request, prompt).changed(other).sticky_key() == "key x"


def test_what_a_prompt_holds() -> None:
    """By its parts: sounds and films are told from other files by their media type."""
    request = GenerateTextRequest()
    parts = request.messages.add().parts
    parts.add(text="x")
    assert modalities_of(request) == {"text"}
    parts.add().file.mime_type = "audio/wav"
    parts.add().image.data = b"x"
    assert modalities_of(request) == {"text", "audio", "image"}
    parts.add().file.mime_type = "application/pdf"
    parts.add().file.mime_type = "video/mp4"
    assert modalities_of(request) == {"text", "audio", "image", "file", "video"}


def test_a_long_prompt_is_read_as_far_as_tells() -> None:
    """The first 64 KiB do."""
    long = "x" * 100_000
    assert key_of(("system", long + "a"), FIRST) == key_of(("system", long + "b"), ("user", "Ho."))
