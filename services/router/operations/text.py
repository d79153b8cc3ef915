"""Text, declared: a chat's request, what it may cost, who may answer in its place, and what its answer comes to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, Protocol, Self

from moa.common.v1 import media_pb2, usage_pb2
from moa.quota.v1 import quota_pb2
from moa.router.v1 import catalog_service_pb2
from moa.text.v1 import text_pb2
from moa.text.v1.text_service_pb2 import (
    CountTokensRequest,
    CountTokensResponse,
    GenerateTextRequest,
    GenerateTextResponse,
    GenerateWholeTextRequest,
    GenerateWholeTextResponse,
)
from services.catalogue import Model, Provider
from services.catalogue.waiting import may_be_long, whole_s
from services.common import limits, logs
from services.common.errors import ContextTooLong, MoaError, Unsupported
from services.common.helper_process import is_large_request
from services.common.metering import prompt_owed
from services.quota_client.amounts import UNLIMITED, Amount
from services.router.domain import bounds
from services.router.domain.answer import Answer
from services.router.domain.attempts import Attempts
from services.router.domain.conversation import conversation_of, modalities_of
from services.router.domain.growth import Collected, Growing, Growth, cut_short, increment
from services.router.domain.operation import Call, Carriage, CountingOperation, Metering, Method, Needed
from services.router.domain.ports import MessageStream, Payer, Reservation
from services.router.domain.prompt import Prompt
from services.router.domain.rescue import Rescue, rescue_for
from services.router.domain.text_metering import TextMetering

COUNT_S: Final = 3.0
"""How long a prompt may take to be counted for a caller who left: shorter than the backend waits with its word."""

_REQUEST_FIELD: Final = GenerateWholeTextRequest.REQUEST_FIELD_NUMBER << 3 | 2

_USUAL: Final = 512
"""Tokens of an answer as targets' prices are compared."""

_log = logs.get("text_call")

TextAnswer = Answer[GenerateTextResponse]


class _Reading(Protocol):
    async def prompt_of(self, request: GenerateTextRequest) -> Prompt: ...


def _carriage(request: GenerateTextRequest, model: Model, provider: Provider) -> Carriage:
    """Where no pieces are wanted a short answer is a unary call, which costs less than a stream.

    A long one, or one of the gateway's own models, whose queue may be long, is a stream even then: its empty messages
    tell that somebody works, and its last message is the answer. A large one is, too: the bytes of a unary call are
    kept to its end.
    """
    timeouts = provider.timeouts_for(model)
    streams = request.stream or model.load is not None or may_be_long(request, model)
    if streams or is_large_request(request):
        return Carriage(timeouts)
    return Carriage(timeouts, whole_s(timeouts, request, model))


def _noted(request: GenerateTextRequest) -> Mapping[str, Any]:
    noted: dict[str, Any] = {"gen_ai.output.type": "text", "gen_ai.request.stream": request.stream}
    if request.HasField("max_tokens"):
        noted["gen_ai.request.max_tokens"] = request.max_tokens
    if request.candidates > 1:
        noted["gen_ai.request.choice.count"] = request.candidates
    return noted


def _outcome(event: text_pb2.TextEvent, kind: str | None) -> str:
    if kind != "candidate_finished":
        return ""
    return text_pb2.FinishReason.Name(event.candidate_finished.reason).removeprefix("FINISH_REASON_").lower()


def _asked_whole(request: GenerateTextRequest) -> bytes:
    """Return the bytes of a `GenerateWholeTextRequest`: a message would copy the request, in twice the time."""
    data = request.SerializeToString()
    head, size = [_REQUEST_FIELD], len(data)
    while size > 0x7F:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return bytes(head) + data


def _inner(request: GenerateWholeTextRequest) -> GenerateTextRequest:
    request.request.stream = False
    return request.request


def _started(model: Model, ignored: Sequence[str]) -> GenerateTextResponse:
    started = text_pb2.Started(provider=model.provider, model=model.id, ignored=ignored)
    return GenerateTextResponse(events=[text_pb2.TextEvent(started=started)])


TEXT: Final = CountingOperation[GenerateTextRequest, GenerateTextResponse](
    name="text",
    quota=quota_pb2.OPERATION_TEXT,
    kind=catalog_service_pb2.MODEL_KIND_TEXT,
    stream=Method(name="GenerateText", request=GenerateTextRequest, response=GenerateTextResponse),
    whole=Method(
        name="GenerateWholeText",
        request=GenerateWholeTextRequest,
        response=GenerateWholeTextResponse,
        asked=_asked_whole,
        inner=_inner,
        # Of one field with one number: its bytes are copied in a quarter of the time of its objects.
        answered=lambda response: GenerateTextResponse.FromString(response.SerializeToString()),
        gathered=lambda messages: GenerateWholeTextResponse(events=[e for each in messages for e in each.events]),
    ),
    count=Method(name="CountTokens", request=CountTokensRequest, response=CountTokensResponse),
    counting=lambda request: TextCall(GenerateTextRequest(messages=request.messages, tools=request.tools)),
    carriage=_carriage,
    span="chat",
    noted=_noted,
    outcome=_outcome,
    started=_started,
)


class TextCall(Call[GenerateTextRequest, GenerateTextResponse]):
    """One request for text.

    Args:
        request: The request.
        prompt: Its prompt where somebody has looked through it already.
    """

    operation = TEXT

    def __init__(self, request: GenerateTextRequest, prompt: Prompt | None = None) -> None:
        super().__init__(request)
        self.prompt = prompt or Prompt.of(request)
        self.whole = not request.stream
        self.granted = 0
        """Tokens that each candidate's answer may have, as far as the quota goes."""
        self._growth: Growth | None = None
        """What is set aside as the answer grows; None: all of it was at first."""
        self._bounded = True
        """Whether anybody bounded the answer."""
        self._longest = 0
        """Tokens of the longest answer of any model that may give it; 0: unknown."""
        self._wanted = 0
        self._nearest: list[str] = []
        """Which of the request's values are not used as they are, with those that are."""
        self._bound = 0
        """Tokens of the prompt at most, told without a tokenizer."""
        self._reserved_prompt = 0
        """Tokens of the reservation that are the prompt's: the same, or its count."""
        self._rates = bounds.Rates(0, 0)
        self._payer: Payer | None = None
        self._needs: Sequence[limits.Need] | None = self.prompt.needs
        """What the request asks of a model, once somebody has looked."""

    @classmethod
    async def received(cls, request: GenerateTextRequest, reading: _Reading) -> Self:
        """Return the call of a typed request, whose prompt is looked through elsewhere where it is large."""
        return cls(request, await reading.prompt_of(request))

    def changed(self, request: GenerateTextRequest) -> Self:
        """As `Call.changed`."""
        return type(self)(request, Prompt.of(request, conversation=self.prompt.conversation))

    def check_request(self) -> None:
        """As `Call.check_request`."""
        if self._needs is None:
            self._needs = limits.check(self.request)

    def check(self, model: Model) -> None:
        """As `Call.check`."""
        self.check_request()
        limits.check_needs(self._needs or (), model)
        wanted = self.request.max_tokens if self.request.HasField("max_tokens") else model.default_max_tokens
        self._bounded = wanted > 0
        self._wanted = bounds.bounded(wanted or increment(model), model)
        if self._wanted < wanted and self.request.HasField("max_tokens"):
            self._shortened(model)

    def _shortened(self, model: Model) -> None:
        """Note that an answer may be shorter than was asked for. Raises Unsupported where the request is strict."""
        most = model.max_output_tokens
        if self.request.strict:
            message = (
                f"model {model.id!r} answers with at most {most} tokens, and this request ignores nothing (strict)"
            )
            raise Unsupported(message, param="max_tokens")
        self._nearest.append(f"max_tokens={most}")

    def check_able(self, model: Model) -> None:
        """As `Call.check_able`."""
        needs = limits.needs(self.request) if self._needs is None else self._needs
        limits.check_needs(needs, model)
        bounds.check_context(self._bound, model)

    def images(self) -> Sequence[tuple[str, media_pb2.ImageInput]]:
        """As `Call.images`."""
        messages = self.request.messages
        return [
            (f"messages[{number}].parts[{index}].image", messages[number].parts[index].image)
            for number, index in self.prompt.pictures
        ]

    def amount(self, models: Sequence[Model]) -> Needed:
        """As `Call.amount`: pictures count as they do where they cost most."""
        self._bound = bounds.prompt_bound(self.prompt, self.request, models)
        # What files come to is told about, not bounded, and so is no tier that they may reach.
        longest = None if self.prompt.files else self._bound
        self._rates = bounds.Rates.of(models, longest, sound=self.prompt.files)
        self._longest = bounds.longest(models)
        return self._amount(self._bound)

    def _amount(self, prompt: int) -> Needed:
        self._reserved_prompt = prompt
        candidates = max(1, self.request.candidates)
        most, rates = self._wanted * candidates, self._rates
        return Needed(
            Amount(tokens=prompt + most, nano_usd=rates.nano_usd(prompt, most)),
            Amount(tokens=prompt + candidates, nano_usd=rates.nano_usd(prompt, candidates)),
        )

    def outgrown(self, model: Model, others: Sequence[Model]) -> ContextTooLong | None:
        """As `Call.outgrown`."""
        if bounds.fits_context(self._bound, model.context_tokens):
            return None
        try:
            bounds.check_context(self._bound, model)
        except ContextTooLong as refusal:
            if any(bounds.fits_context(self._bound, other.context_tokens) for other in others):
                return refusal
            raise
        return None

    async def recounted(self, model: Model, payer: Payer) -> Needed | None:
        """As `Call.recounted`: the bound may be several times the truth (Korean text is three bytes a letter)."""
        if not bounds.fits_context(self._bound, model.context_tokens):
            return None
        exact = await self.backends.count_tokens(self._counting(model), model, self.caller, payer)
        return self._amount(exact) if exact < self._bound else None

    def _counting(self, model: Model) -> CountTokensRequest:
        asked = self.request
        return CountTokensRequest(model=model.id, provider=model.provider, messages=asked.messages, tools=asked.tools)

    def fetched(self, reserved: Reservation, models: Sequence[Model]) -> Reservation:
        """As `Call.fetched`: the sizes of pictures are known, and so what they cost at most."""
        return reserved.shrink(self.amount(models).need)

    def admitted(self, reserved: Reservation) -> None:
        """As `Call.admitted`."""
        left = reserved.amount.tokens - self._reserved_prompt
        if reserved.amount.nano_usd:
            left = min(left, self._rates.affordable(reserved.amount.nano_usd, self._reserved_prompt))
        candidates = max(1, self.request.candidates)
        self.granted = max(1, min(self._wanted, left // candidates))
        covered, most = self.granted * candidates, self._longest * candidates
        if not self._bounded and covered < most:
            # What the first increment lacks others may give back meanwhile.
            self._growth = Growth(reserved, covered=covered, rates=self._rates, candidates=candidates, most=most)
            self.granted += self._left(reserved, most) // candidates

    def _left(self, reserved: Reservation, most: int) -> int:
        """Return how many tokens of completion are left in all, beside those that are reserved; `most` are enough."""
        enough = Amount(tokens=most, nano_usd=self._rates.nano_usd(0, most)).of(reserved.amount)
        free = reserved.verified_key.free(enough)
        return min(free.tokens, self._rates.affordable(free.nano_usd, 0)) if enough.nano_usd else free.tokens

    def modalities(self) -> frozenset[str]:
        """As `Call.modalities`."""
        return modalities_of(self.request)

    def needs(self) -> frozenset[str]:
        """As `Call.needs`."""
        needs = limits.needs(self.request) if self._needs is None else self._needs
        return frozenset(need.capability for need in needs)

    def sticky_key(self) -> str:
        """As `Call.sticky_key`."""
        return conversation_of(self.request, self.prompt.conversation)

    @property
    def expected(self) -> usage_pb2.Usage:
        """As `Call.expected`."""
        asked = self.request.max_tokens if self.request.HasField("max_tokens") else _USUAL
        completion = min(asked, _USUAL) * max(1, self.request.candidates)
        return usage_pb2.Usage(prompt_tokens=self.prompt.guessed(self.request), completion_tokens=completion)

    @property
    def stake(self) -> usage_pb2.Usage:
        """As `Call.stake`."""
        return usage_pb2.Usage(prompt_tokens=self.prompt.guessed(self.request))

    def ask(self, model: Model, paying: Reservation) -> MessageStream[GenerateTextResponse]:
        """As `Call.ask`."""
        return self.ask_on(model, paying)

    def ask_on(
        self, model: Model, paying: Reservation, *, prefix: str = "", spent: int = 0, books: bool = True
    ) -> MessageStream[GenerateTextResponse]:
        """Begin an answer by a target.

        Args:
            prefix: What the answer begins with: the target goes on from there.
            spent: Tokens that were given already.
            books: Whether whoever answers may book what it delivered, should this process vanish.
        """
        request = self.request
        if prefix:
            request = GenerateTextRequest()
            request.CopyFrom(self.request)
            request.messages.add(role=text_pb2.ROLE_ASSISTANT).parts.add(text=prefix)
            # What goes on from the answer's text has done its reasoning.
            request.ClearField("reasoning")
        self._payer = paying
        request.model, request.provider = model.id, model.provider
        most = bounds.stated(self.granted - spent, self._bound, model, bounded=self._bounded)
        if most is None:
            request.ClearField("max_tokens")
        else:
            request.max_tokens = most
        bound = self._reserved_prompt + spent
        stream = self.backends.ask(TEXT, request, model, self.caller, paying, prompt_bound=bound, books=books)
        if self._growth is not None:
            stream = Growing(stream, self._growth)
        return Collected(stream, self._growth, prompt=self._guess()) if self.whole else stream

    def chargeable(self, paying: Reservation) -> int:
        """Return how many tokens may be charged at most: of an answer that grows, more than is set aside by now."""
        return paying.tokens if self._growth is None else UNLIMITED

    def ignored(self, first: GenerateTextResponse) -> Sequence[str]:
        """As `Call.ignored`. Who says nothing of it has read no field that only a vendor knows."""
        if not first.events or not first.events[0].HasField("started"):
            return [*self._nearest, *self.request.vendor.names]
        names = list(first.events[0].started.ignored)
        del first.events[0]
        return [*self._nearest, *names]

    def metering(self) -> TextMetering:
        """As `Call.metering`."""
        metering = TextMetering(self._guess(), self.prompt_tokens)
        if self._growth is not None and not self.whole:
            self._growth.meter_by(metering)
        return metering

    def _guess(self) -> Callable[[], int]:
        return partial(self.prompt.guessed, self.request)

    def way_on(self, attempts: Attempts[GenerateTextResponse], metering: Metering, *, others: bool) -> Rescue | None:
        """As `Call.way_on`."""
        assert isinstance(metering, TextMetering)
        return rescue_for(self, attempts, metering, others)

    def stopped(self, metering: Metering, came: Sequence[Any]) -> GenerateTextResponse:
        """As `Call.stopped`: its candidates end by `content_filter`, after what was delivered."""
        assert isinstance(metering, TextMetering)
        return cut_short(metering, text_pb2.FINISH_REASON_CONTENT_FILTER, max(1, self.request.candidates), came)

    async def prompt_tokens(self, model: Model) -> int:
        """Return what a caller who leaves owes for the prompt: as counted by who answers, else its bound."""
        if self._payer is None:
            return self._reserved_prompt
        try:
            async with asyncio.timeout(COUNT_S):
                exact = await self.backends.count_tokens(self._counting(model), model, self.caller, self._payer)
                return prompt_owed(self._reserved_prompt, exact)
        except (MoaError, TimeoutError):
            return self._reserved_prompt
        except Exception:
            # What is owed must be booked whatever happens here.
            _log.exception("prompt.not_counted", model=model.full_id)
            return self._reserved_prompt


CALL: Final = TextCall
