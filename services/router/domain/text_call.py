"""A text request as it is put to one target after another."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from moa.text.v1 import text_pb2, text_service_pb2
from services.catalogue import Model
from services.common import logs
from services.common.errors import MoaError
from services.router.domain import bounds
from services.router.domain.caller import Caller
from services.router.domain.ports import Booking, Payer, Source
from services.router.domain.prompt import Prompt

_log = logs.get("text_call")

COUNT_S: Final = 3.0
"""How long a prompt may take to be counted for a caller who left: shorter than the backend waits with its word."""

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
        prompt_bound: int,
        books: bool = True,
    ) -> TextSource:
        """Begin a text answer.

        Args:
            prompt_bound: How many tokens the prompt has at most.
            books: Whether the service may book what it delivered, should this process vanish.
        """

    async def count_tokens(
        self, request: text_service_pb2.CountTokensRequest, model: Model, caller: Caller, payer: Payer
    ) -> int:
        """Count a prompt's tokens, in the turns of its account."""


class TextCall:
    """One request.

    Args:
        request: Changed at each call: model, provider and bound are the target's.
        prompt: The request's prompt, looked through.
        bound: Tokens of the prompt at most, told without a tokenizer.
        reserved_prompt: Tokens of the reservation that are the prompt's: the same, or its count.
        granted: Tokens that the reservation has for each candidate's answer.
    """

    def __init__(
        self,
        request: text_service_pb2.GenerateTextRequest,
        caller: Caller,
        backends: TextBackends,
        *,
        prompt: Prompt,
        bound: int,
        reserved_prompt: int,
        granted: int,
    ) -> None:
        self.request = request
        self._caller = caller
        self._backends = backends
        self._prompt = prompt
        self._bound = bound
        self._reserved_prompt = reserved_prompt
        self.granted = granted
        self._payer: Payer | None = None

    def check(self, model: Model) -> None:
        """Raise Unsupported, InvalidField or ContextTooLong where a model cannot do what is asked."""
        self._prompt.check_able(self.request, model)
        bounds.check_context(self._bound, model)

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
        self._payer = paying
        request.model, request.provider = model.id, model.provider
        request.max_tokens = bounds.bounded(self.granted - spent, model)
        bound = self._reserved_prompt + spent
        return self._backends.generate_text(request, model, self._caller, paying, prompt_bound=bound, books=books)

    async def prompt_tokens(self, model: Model) -> int:
        """Return what a caller who leaves owes for the prompt: as counted by who answers, else its bound."""
        counted = text_service_pb2.CountTokensRequest(
            model=model.id, provider=model.provider, messages=self.request.messages, tools=self.request.tools
        )
        if self._payer is None:
            return self._reserved_prompt
        try:
            async with asyncio.timeout(COUNT_S):
                exact = await self._backends.count_tokens(counted, model, self._caller, self._payer)
                return min(self._reserved_prompt, exact)
        except (MoaError, TimeoutError):
            return self._reserved_prompt
        except Exception:
            # What is owed must be booked whatever happens here.
            _log.exception("prompt.not_counted", model=model.full_id)
            return self._reserved_prompt
