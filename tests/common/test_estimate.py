"""Guesses of token counts: the same wherever a cut stream is charged."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from unittest.mock import Mock

import pytest

from moa.common.v1 import media_pb2
from moa.text.v1 import text_pb2, text_service_pb2
from services.common.estimate import Meter, prompt_tokens, tokens_of
from services.providers.text.reading import BaseReader
from tests.router.answering import text_answer

TEXTS = ("", "a", "Once upon a time", "옛날 옛적에", "mixed 섞인 text", "🙂" * 9, "x" * 1000)


@pytest.mark.parametrize("text", TEXTS)
def test_letters_beyond_ascii_weigh_more(text: str) -> None:
    """Four ASCII letters make a token, and four others three."""
    ascii_count = sum(letter < "\x80" for letter in text)
    assert tokens_of(text) == -(-(ascii_count + 3 * (len(text) - ascii_count)) // 4)


def asked() -> text_service_pb2.GenerateTextRequest:
    request = text_service_pb2.GenerateTextRequest(model="m", stream=True)
    for text in TEXTS:
        request.messages.add(role=text_pb2.ROLE_USER).parts.add(text=text)
    request.messages[0].parts.add(image=media_pb2.ImageInput(url="https://example.com/a.png"))
    request.messages[1].parts.add(tool_call=text_pb2.ToolCall(name="look", arguments_json='{"at": "옛날"}'))
    request.tools.add(name="look", description="looks at things", parameters_json='{"type": "object"}')
    return request


class Telling(BaseReader):
    """A reader that is told what came, rather than reading it."""

    def message_of(self, reasoning: str, texts: Iterable[str]) -> text_service_pb2.GenerateTextResponse:
        """Take reasoning, then text in pieces; return the message that they make."""
        self._reason(0, reasoning)
        for text in texts:
            self._say(0, text)
        return text_service_pb2.GenerateTextResponse(events=self._events)

    def _take(self, payload: Any) -> None:
        raise AssertionError("nothing is read here")

    def _take_whole(self, data: bytes) -> None:
        raise AssertionError("nothing is read here")


async def test_a_cut_stream_is_guessed_alike_by_router_and_backend() -> None:
    """Whoever of them charges for a stream that was cut, it is the same."""
    request = asked()
    request.reasoning.include = True
    backend = Telling(request, None)
    message = backend.message_of("Let me think of a long word: antidisestablishmentarianism.", TEXTS[1:])
    booking = Mock()
    router = text_answer(booking, Mock(), message, meter=Meter(prompt_tokens(request)))
    await router.next()
    router.settle()
    told = booking.settle.call_args.kwargs["usage"]
    assert told == backend.usage_so_far().usage
    assert told.prompt_tokens > 800
    assert told.completion_tokens > 250
    assert told.reasoning_tokens
    assert not told.exact
