"""What an answer delivers is metered late, several messages at once, and known whenever somebody asks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from moa.common.v1 import usage_pb2
from moa.text.v1 import text_pb2, text_service_pb2
from services.common.estimate import tokens_of
from services.common.metering import TextMeter
from services.router.domain.answer import Answer
from tests.common.test_metering import TEXTS
from tests.laws import tries
from tests.router.answering import text_answer, text_metering

Message = text_service_pb2.GenerateTextResponse

PIECES = st.one_of(
    st.builds(lambda text: {"text": {"text": text}}, st.sampled_from(TEXTS) | st.text(max_size=9)),
    st.builds(lambda text: {"reasoning": {"text": text}}, st.sampled_from(TEXTS)),
    st.builds(lambda text: {"tool_call": {"arguments_json": text}}, st.sampled_from(TEXTS)),
    st.builds(lambda n: {"usage": {"prompt_tokens": 9, "completion_tokens": n}}, st.integers(0, 900)),
)
MESSAGES = st.lists(st.lists(PIECES, min_size=1, max_size=3), min_size=1, max_size=12)


def messages_of(pieces: Sequence[Sequence[dict[str, Any]]]) -> list[Message]:
    return [Message(events=[text_pb2.TextEvent(**event) for event in events]) for events in pieces]


class Played:
    """The messages of an answer that goes on."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self.messages = list(messages)

    async def read(self) -> Message:
        return self.messages.pop(0)

    def cancel(self) -> None: ...

    def close(self) -> None: ...


def begun(messages: Sequence[Message], reservation: Any = None, **how: Any) -> Answer[Message]:
    return text_answer(reservation or Mock(), Played(messages[1:]), messages[0], **how)


def metered(*messages: Message, by: TextMeter) -> TextMeter:
    """Return a meter, which has heard of each event at once."""
    for message in messages:
        for event in message.events:
            by.saw(event, event.WhichOneof("event"))
    return by


@settings(max_examples=tries(20))
@given(pieces=MESSAGES, asked_at=st.sets(st.integers(1, 12)))
def test_what_was_consumed_is_known_whenever_it_is_asked(
    pieces: list[list[dict[str, Any]]], asked_at: set[int]
) -> None:
    """After any message auth is told of all that was delivered, however much of it had been metered before."""

    async def deliver() -> None:
        messages, reservation = messages_of(pieces), Mock()
        answer = begun(messages, reservation)
        (so_far,) = reservation.follow.call_args.args
        for count in range(1, len(messages) + 1):
            await answer.next()
            if count in asked_at:
                told = so_far()
                assert (told and told[0]) == metered(*messages[:count], by=TextMeter(7)).consumed(ended=False)

    asyncio.run(deliver())


@settings(max_examples=tries(20))
@given(pieces=MESSAGES, mark=st.integers(1, 2000))
@example(pieces=[[{"text": {"text": "x"}}]] * 12, mark=5)
@example(pieces=[[{"text": {"text": "x" * 1000}}]] * 3, mark=500)
@example(pieces=[[{"usage": {"completion_tokens": 99}}], [{"text": {"text": "x"}}]], mark=50)
def test_a_mark_is_heard_of_at_the_message_that_reaches_it(pieces: list[list[dict[str, Any]]], mark: int) -> None:
    """More is set aside no later than if each event were metered at once, so that nothing is delivered beyond."""

    async def deliver() -> None:
        messages, heard = messages_of(pieces), set[str]()
        late, at_once = text_metering(), TextMeter(7)
        late.mark = at_once.mark = mark
        late.at_mark, at_once.at_mark = partial(heard.add, "late"), partial(heard.add, "at once")
        answer = begun(messages, metering=late)
        for message in messages:
            await answer.next()
            metered(message, by=at_once)
            assert heard in (set(), {"late", "at once"})

    asyncio.run(deliver())


@pytest.mark.parametrize("text", [*TEXTS, "é", "중", "🙂"])
def test_no_text_has_more_tokens_than_its_event_has_bytes(text: str) -> None:
    """So the bytes of what was not metered say that a mark cannot have been reached."""
    message = Message(events=[text_pb2.TextEvent(text=text_pb2.TextDelta(text=text))])
    assert max(1, tokens_of(text)) <= message.ByteSize()


async def test_the_end_counts_what_came_before_it() -> None:
    """An answer that ends without a count of its provider is charged for what was delivered, metered late or not."""
    events = [{"text": {"text": "Once upon a time"}}] * 5
    messages = [
        *messages_of([[event] for event in events]),
        Message(events=[text_pb2.TextEvent(finished=text_pb2.Finished())]),
    ]
    reservation = Mock()
    async with begun(messages, reservation) as answer:
        while await answer.next() is not None:
            pass
    usage: usage_pb2.Usage = reservation.settle.call_args.kwargs["usage"]
    assert (usage.prompt_tokens, usage.completion_tokens) == (7, 20)
