"""A text request as it is put to one target after another."""

from __future__ import annotations

from typing import Protocol

from moa.text.v1 import text_pb2, text_service_pb2
from services.common.catalogue import Model
from services.router.domain import bounds
from services.router.domain.caller import Caller
from services.router.domain.capabilities import check_text
from services.router.domain.ports import Booking, Source

TextSource = Source[text_service_pb2.GenerateTextResponse]


class TextBackends(Protocol):
    """Whoever really answers."""

    def generate_text(
        self,
        request: text_service_pb2.GenerateTextRequest,
        model: Model,
        caller: Caller,
        reserved: Booking,
        *,
        books: bool = True,
    ) -> TextSource:
        """Begin a text answer; `books`: whether the service may book what it delivered, should this process vanish."""


class TextCall:
    """One request.

    Args:
        request: Changed at each call: model, provider and bound are the target's.
        prompt: Tokens of the prompt at most.
        granted: Tokens that the reservation has for each candidate's answer.
    """

    def __init__(
        self,
        request: text_service_pb2.GenerateTextRequest,
        caller: Caller,
        backends: TextBackends,
        *,
        prompt: int,
        granted: int,
    ) -> None:
        self.request = request
        self._caller = caller
        self._backends = backends
        self._prompt = prompt
        self.granted = granted

    def check(self, model: Model) -> None:
        """Raise Unsupported, InvalidField or ContextTooLong where a model cannot do what is asked."""
        check_text(self.request, model)
        bounds.check_context(self._prompt, model)

    def ask(self, model: Model, paying: Booking, *, prefix: str = "", spent: int = 0, books: bool = True) -> TextSource:
        """Begin an answer by a target.

        Args:
            prefix: What the answer begins with: the target goes on from there.
            spent: Tokens that were given already.
            books: Whether whoever answers may book what it delivered, should this process vanish.
        """
        request = self.request
        if prefix:
            request = text_service_pb2.GenerateTextRequest()
            request.CopyFrom(self.request)
            request.messages.add(role=text_pb2.ROLE_ASSISTANT).parts.add(text=prefix)
            # What goes on from the answer's text has done its reasoning.
            request.ClearField("reasoning")
        request.model, request.provider = model.id, model.provider
        request.max_tokens = bounds.bounded(self.granted - spent, model)
        return self._backends.generate_text(request, model, self._caller, paying, books=books)
