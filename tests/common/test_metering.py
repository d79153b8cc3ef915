"""A text is metered by one set of rules, whoever books it: the router, or the service that answered."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from unittest.mock import Mock

from hypothesis import example, given
from hypothesis import strategies as st

from moa.common.v1 import media_pb2, usage_pb2
from moa.text.v1 import text_pb2, text_service_pb2
from services.common.errors import MoaError
from services.common.estimate import ReportedUsage, prompt_tokens
from services.common.metering import prompt_owed
from services.providers.text.embedded_errors import EmbeddedError
from services.providers.text.reading import BaseReader
from services.router.background import Background
from tests.router.answering import text_answer

TEXTS = ("", "a", "Once upon a time", "옛날 옛적에", "mixed 섞인 text", "🙂" * 9, "x" * 1000)
PROMPT = 9
"""What a prompt comes to that is counted."""

Step = tuple[Any, ...]


def asked(*, reasons: bool) -> text_service_pb2.GenerateTextRequest:
    request = text_service_pb2.GenerateTextRequest(model="m", stream=True, candidates=2)
    for text in TEXTS:
        request.messages.add(role=text_pb2.ROLE_USER).parts.add(text=text)
    request.messages[0].parts.add(image=media_pb2.ImageInput(url="https://example.com/a.png"))
    request.messages[1].parts.add(tool_call=text_pb2.ToolCall(name="look", arguments_json='{"at": "옛날"}'))
    request.tools.add(name="look", description="looks at things", parameters_json='{"type": "object"}')
    request.reasoning.include = reasons
    return request


class Pieces:
    """A framing whose payloads are steps."""

    def feed(self, data: Any) -> Sequence[Any]:
        return data  # type: ignore[no-any-return]

    def end(self) -> Sequence[Any]:
        return ()


class Telling(BaseReader):
    """A reader whose payloads are what the provider tells, as a kind and its arguments."""

    def _take(self, payload: Step) -> None:
        match payload:
            case "say", candidate, text:
                self._say(candidate, text)
            case "reason", candidate, text, signature:
                self._reason(candidate, text, signature)
            case "call", candidate, index, arguments:
                self._call(candidate, index, arguments, name="f")
            case "refuse", text:
                self.meter.saw_unshown(text)
            case "report", prompt, completion:
                faults = frozenset(["type"] if prompt is None or completion is None else [])
                self._count(ReportedUsage(prompt, completion, 0, 0, faults))

    def _take_whole(self, data: bytes) -> None:
        raise AssertionError("nothing is read whole")

    def _failed(self, found: EmbeddedError) -> MoaError:
        raise AssertionError("nothing fails")


COUNTS = st.none() | st.integers(0, 60)
STEPS = st.one_of(
    st.tuples(st.just("say"), st.integers(0, 1), st.sampled_from(TEXTS)),
    st.tuples(st.just("reason"), st.integers(0, 1), st.sampled_from(TEXTS), st.sampled_from([b"", b"signed"])),
    st.tuples(st.just("call"), st.integers(0, 1), st.integers(0, 1), st.sampled_from(TEXTS)),
    st.tuples(st.just("refuse"), st.sampled_from(TEXTS)),
    st.tuples(st.just("report"), COUNTS, COUNTS),
)


class Played:
    """The messages of an answer, and then its caller leaves."""

    def __init__(self, messages: Sequence[text_service_pb2.GenerateTextResponse]) -> None:
        self.messages = list(messages)

    async def read(self) -> text_service_pb2.GenerateTextResponse:
        if not self.messages:
            raise asyncio.CancelledError
        return self.messages.pop(0)

    def cancel(self) -> None: ...

    def close(self) -> None: ...


async def booked(messages: Sequence[text_service_pb2.GenerateTextResponse], guess: int) -> usage_pb2.Usage | None:
    """Return what the router books for a caller who left after these messages; None: what the service says."""
    reservation, background = Mock(), Background()
    first, *others = messages
    answer = text_answer(reservation, Played(others), first, guess=guess, background=background)
    try:
        async with answer:
            while await answer.next() is not None:
                pass
    except asyncio.CancelledError:
        pass
    await background.drain()
    if reservation.defer.called:
        return None
    return reservation.settle.call_args.kwargs["usage"]  # type: ignore[no-any-return]


@given(batches=st.lists(st.lists(STEPS, max_size=4), min_size=1, max_size=6), reasons=st.booleans())
@example(batches=[[("report", 12, 1)], [("say", 0, "a"), ("say", 0, "b")]], reasons=True)
@example(batches=[[("reason", 0, "x" * 99, b""), ("say", 0, "a")]], reasons=False)
@example(batches=[[("reason", 0, "", b"signed"), ("say", 0, "a")]], reasons=True)
def test_router_and_service_book_the_same(batches: list[list[Step]], reasons: bool) -> None:
    """Whichever of them is left to book an answer whose caller left, it is for the same tokens."""
    request = asked(reasons=reasons)
    reader = Telling(request, Pieces())
    messages = [text_service_pb2.GenerateTextResponse(events=reader.feed(steps)) for steps in batches]  # type: ignore[arg-type]
    service = reader.meter.owed()
    if not service.prompt_tokens:
        service.prompt_tokens = prompt_owed(prompt_tokens(request), PROMPT)
    router = asyncio.run(booked(messages, prompt_tokens(request)))
    if router is None:
        assert (service.prompt_tokens, service.completion_tokens) == (PROMPT, 0), "it is left to the service"
    else:
        assert router == service


def test_what_is_not_shown_is_consumed_and_not_owed() -> None:
    """Reasoning that its caller does not see belongs to a whole answer's estimate; one who leaves has not got it."""
    reader = Telling(asked(reasons=False), Pieces())
    reader.feed([("reason", 0, "x" * 400, b""), ("say", 0, "a")])  # type: ignore[arg-type]
    consumed, owed = reader.meter.so_far(), reader.meter.owed()
    assert (consumed.completion_tokens, consumed.reasoning_tokens) == (101, 100)
    assert (owed.completion_tokens, owed.reasoning_tokens) == (1, 0)
    assert not consumed.exact
    assert consumed.prompt_tokens > 800
