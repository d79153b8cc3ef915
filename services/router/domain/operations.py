"""The operations themselves: find the model, admit the caller, call whoever answers, and give the answer.

Every dialect and the gRPC API come through here, so policy exists once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import replace
from typing import Final, Protocol

from moa.common.v1 import media_pb2, usage_pb2
from moa.image.v1 import image_pb2, image_service_pb2
from moa.quota.v1 import quota_pb2
from moa.text.v1 import text_service_pb2
from services.catalogue import Catalogue, Model, Retirement
from services.common import limits
from services.common.errors import (
    ContextTooLong,
    InvalidField,
    MoaError,
    ModelNotFound,
    PermissionDenied,
    ProviderNotConfigured,
    QuotaExhausted,
    Unsupported,
)
from services.common.estimate import Meter
from services.router.background import Background
from services.router.domain import bounds, fallbacks, retirement
from services.router.domain.answer import ImageAnswer, TextAnswer
from services.router.domain.attempts import RETRIES, Attempts, Patience, Terms
from services.router.domain.breaker import Breakers
from services.router.domain.caller import Caller
from services.router.domain.ports import Booking, Identity, Linked, Payer, Source
from services.router.domain.prompt import Prompt
from services.router.domain.rescue import rescue_for
from services.router.domain.text_call import TextBackends, TextCall


class Admission(Protocol):
    """Who verifies keys and lends quota; `services.quota_client.Admission` is one."""

    async def identify(self, key: str) -> Identity:
        """Verify a key."""

    async def arrive(self, key: str) -> Identity:
        """Verify a key, and count a request that needs no quota. Raises RateLimited."""

    async def reserve(
        self,
        key: str,
        *,
        operation: quota_pb2.Operation.ValueType,
        provider: str,
        model: str,
        tokens: int = 0,
        images: int = 0,
        min_tokens: int = 0,
        request_id: str,
    ) -> Booking:
        """Verify a key and lend it quota."""


class Backends(TextBackends, Protocol):
    """Whoever really answers."""

    def generate_image(
        self, request: image_service_pb2.GenerateImageRequest, model: Model, caller: Caller, reserved: Booking
    ) -> Source[image_service_pb2.GenerateImageResponse]:
        """Begin images."""

    async def count_tokens(
        self, request: text_service_pb2.CountTokensRequest, model: Model, caller: Caller, payer: Payer
    ) -> int:
        """Count a prompt's tokens, in the turns of its account."""


MOST_LINKS: Final = 16
"""How many images of one request may be links."""


class Inputs(Protocol):
    """Who reads the images that callers give as links."""

    def fetched(self, linked: Sequence[Linked], *, account_id: str, owner: str) -> AbstractAsyncContextManager[None]:
        """Put the images in the place of their links; their memory is accounted for until the block is left."""


class Operations:
    """The gateway's operations, over the catalogue as it is at each request."""

    def __init__(
        self,
        *,
        catalogue: Callable[[], Catalogue],
        admission: Admission,
        backends: Backends,
        inputs: Inputs,
        patience: Patience | None = None,
    ) -> None:
        self._catalogue = catalogue
        self._admission = admission
        self._backends = backends
        self._inputs = inputs
        self._patience = patience or Patience()
        self._background = Background()

    async def generate_text(
        self, request: text_service_pb2.GenerateTextRequest, caller: Caller, prompt: Prompt | None = None
    ) -> TextAnswer:
        """Begin a text answer; its first message is in hand when this returns.

        `request` is changed: model and provider are resolved, and the bound on tokens fits the reservation. `prompt` is
        its prompt where somebody has looked through it already.
        Raises MoaError for everything that can be known before the first event.
        """
        name = request.model
        model, ending = self._model(name, request.provider, "text", caller)
        with retirement.speaking_for(name, ending):
            return await self._begin_text(request, prompt or Prompt.of(request), model, ending, caller)

    async def _begin_text(
        self,
        request: text_service_pb2.GenerateTextRequest,
        said: Prompt,
        model: Model,
        ending: Retirement | None,
        caller: Caller,
    ) -> TextAnswer:
        said.check(request)
        said.check_able(request, model)
        pictures = [request.messages[number].parts[index].image for number, index in said.pictures]
        linked = _linked([("image_url", image) for image in pictures])
        wanted = self._bounded(request, model)
        catalogue = self._catalogue()
        others = list(fallbacks.reachable(catalogue, model, caller))
        # One reservation pays, whoever answers: pictures count as they do where they cost most.
        prompt = bounds.prompt_bound(said, request, (model, *others))
        outgrown = _outgrown(prompt, model, others)
        bound, reserved = await self._reserve_text(request, model, caller, prompt, wanted, countable=not linked)
        async with AsyncExitStack() as fetching:
            if linked:
                await self._fetch(fetching, linked, reserved, caller)
                # Now that their sizes are known, so is what they cost at most.
                prompt = bound = bounds.prompt_bound(said, request, (model, *others))
                reserved = reserved.shrunk(bound + wanted * max(1, request.candidates))
            granted = max(1, min(wanted, (reserved.tokens - bound) // max(1, request.candidates)))
            call = TextCall(
                request, caller, self._backends, prompt=said, bound=prompt, reserved_prompt=bound, granted=granted
            )
            paying = reserved
            attempts: Attempts[text_service_pb2.GenerateTextResponse] = Attempts(
                model,
                lambda: fallbacks.able(catalogue, model, caller, paying, call.check),
                terms=self._terms(caller, paying, whole=not request.stream),
                outgrown=outgrown,
                stake=usage_pb2.Usage(prompt_tokens=said.guess),
            )
            begun = await attempts.first(call.ask)
        return TextAnswer(
            begun=begun,
            attempts=attempts,
            request_id=caller.request_id,
            meter=Meter(said.guess),
            prompt=call.prompt_tokens,
            background=self._background,
            ending=ending,
            rescue=rescue_for(call, attempts, others=caller.fallback and bool(model.fallback)),
        )

    async def generate_image(self, request: image_service_pb2.GenerateImageRequest, caller: Caller) -> ImageAnswer:
        """Begin images; the first message is in hand when this returns. As `generate_text`."""
        name = request.model
        model, ending = self._model(name, request.provider, "image", caller)
        with retirement.speaking_for(name, ending):
            return await self._begin_image(request, model, ending, caller)

    async def _begin_image(
        self, request: image_service_pb2.GenerateImageRequest, model: Model, ending: Retirement | None, caller: Caller
    ) -> ImageAnswer:
        if request.operation == image_pb2.OPERATION_UNSPECIFIED:
            request.operation = image_pb2.OPERATION_EDIT if request.images else image_pb2.OPERATION_GENERATE
        limits.check(request)
        limits.check_able(request, model)
        given = [(f"images[{index}]", image) for index, image in enumerate(request.images)]
        given += [("mask", request.mask)] if request.HasField("mask") else []
        linked = _linked(given)
        request.count = max(1, request.count)
        reserved = await self._admission.reserve(
            caller.key,
            operation=quota_pb2.OPERATION_IMAGE,
            provider=model.provider,
            model=model.id,
            images=request.count,
            request_id=caller.request_id,
        )
        catalogue = self._catalogue()

        def ask(target: Model, paying: Booking) -> Source[image_service_pb2.GenerateImageResponse]:
            request.model, request.provider = target.id, target.provider
            return self._backends.generate_image(request, target, caller, paying)

        attempts: Attempts[image_service_pb2.GenerateImageResponse] = Attempts(
            model,
            lambda: fallbacks.able(catalogue, model, caller, reserved, lambda other: limits.check_able(request, other)),
            terms=self._terms(caller, reserved, whole=True),
            stake=usage_pb2.Usage(images=request.count),
        )
        async with AsyncExitStack() as fetching:
            if linked:
                await self._fetch(fetching, linked, reserved, caller)
            begun = await attempts.first(ask)
        others = caller.fallback and model.fallback
        return ImageAnswer(
            begun=begun,
            attempts=attempts,
            request_id=caller.request_id,
            ending=ending,
            ask=ask if others else None,
        )

    async def aclose(self) -> None:
        """Wait until what callers who left owe is known. Takes no longer than `text_call.COUNT_S`."""
        await self._background.drain()

    def model(self, name: str, caller: Caller, *, provider: str = "") -> tuple[Model, str]:
        """Find the model that a caller names, and what it makes: `text` or `image`.

        For dialects where one call serves both. Raises as the operations do.
        """
        model, _ = self._model(name, provider, "", caller)
        return model, self._catalogue().providers[model.provider].makes

    async def count_tokens(self, request: text_service_pb2.CountTokensRequest, caller: Caller) -> int:
        """Count a prompt's tokens as its model would. Costs nothing, and counts as a request.

        Raises ContextTooLong for one that cannot fit however it is tokenized: nobody counts it.
        """
        model, _ = self._model(request.model, request.provider, "text", caller)
        await self._admission.arrive(caller.key)
        identity = await self._permitted(caller, quota_pb2.OPERATION_TEXT, model)
        whole = text_service_pb2.GenerateTextRequest(messages=request.messages, tools=request.tools)
        bounds.check_context(bounds.prompt_bound(Prompt.of(whole), whole, (model,)), model)
        request.model, request.provider = model.id, model.provider
        return await self._backends.count_tokens(request, model, caller, identity)

    async def _fetch(
        self, fetching: AsyncExitStack, linked: Sequence[Linked], reserved: Booking, caller: Caller
    ) -> None:
        """Put the images in the place of links; where that fails nothing was consumed."""
        # Strangers share the account of those who bring their own key: none of them owns its files.
        owner = "" if caller.own_key else reserved.account_id
        try:
            fetched = self._inputs.fetched(linked, account_id=reserved.account_id, owner=owner)
            await fetching.enter_async_context(fetched)
        except BaseException:
            reserved.release()
            raise

    async def _permitted(self, caller: Caller, operation: quota_pb2.Operation.ValueType, model: Model) -> Identity:
        """Return who asks, for what is done without a reservation. Raises Unauthenticated or PermissionDenied."""
        identity = await self._admission.identify(caller.key)
        if not identity.may(operation, model.provider, model.id):
            raise PermissionDenied(f"this key may not use model {model.id}", param="model")
        return identity

    def _model(self, name: str, provider: str, makes: str, caller: Caller) -> tuple[Model, Retirement | None]:
        """Find the model that answers to a name, and the retirement that its caller is to be told of."""
        catalogue = self._catalogue()
        if not name:
            raise InvalidField("a model is required", param="model")
        asked = catalogue.find(name, provider=provider)
        model, ending = retirement.standing(catalogue, asked, retirement.today())
        if caller.own_key:
            # Told like an unknown one: a key that nobody has verified yet learns nothing of the rest.
            if not catalogue.providers[model.provider].takes_caller_keys:
                raise ModelNotFound(f"unknown model {name[:200]!r}", param="model")
        elif model.provider not in catalogue.configured:
            raise ProviderNotConfigured(f"provider {model.provider} is not configured here", param="provider")
        if makes and catalogue.providers[model.provider].makes != makes:
            raise Unsupported(f"model {model.id} does not make {makes}", param="model")
        return model, ending

    def _terms(self, caller: Caller, reserved: Booking, *, whole: bool) -> Terms:
        # Tasks come again by themselves, and remember it.
        retries = 0 if reserved.operation == quota_pb2.OPERATION_TASK else RETRIES
        return Terms(
            booking=reserved,
            request_id=caller.request_id,
            until=caller.until,
            retries=retries,
            whole=whole,
            heard=caller.heard,
            # A key of the caller's own says nothing of the operator's.
            patience=replace(self._patience, breakers=Breakers()) if caller.own_key else self._patience,
        )

    @staticmethod
    def _bounded(request: text_service_pb2.GenerateTextRequest, model: Model) -> int:
        """Return the bound on a candidate's tokens: the caller's, else the catalogue's, and never above the model's."""
        wanted = request.max_tokens if request.HasField("max_tokens") else model.default_max_tokens
        return bounds.bounded(wanted, model)

    async def _reserve_text(
        self,
        request: text_service_pb2.GenerateTextRequest,
        model: Model,
        caller: Caller,
        prompt: int,
        wanted: int,
        *,
        countable: bool,
    ) -> tuple[int, Booking]:
        """Return how many of the reserved tokens the prompt takes at most, and the reservation.

        `countable`: whether the prompt can be counted already, with nothing in it left to be fetched.
        """

        async def reserve(prompt_tokens: int) -> Booking:
            return await self._admission.reserve(
                caller.key,
                operation=quota_pb2.OPERATION_TEXT,
                provider=model.provider,
                model=model.id,
                tokens=prompt_tokens + wanted * max(1, request.candidates),
                min_tokens=prompt_tokens + max(1, request.candidates),
                request_id=caller.request_id,
            )

        try:
            return prompt, await reserve(prompt)
        except QuotaExhausted as refused:
            if not countable or not bounds.fits_context(prompt, model.context_tokens):
                raise
            # The bound may be several times the truth (Korean text is three bytes a letter); before a caller is
            # refused, whoever would answer counts.
            try:
                exact = await self._backends.count_tokens(
                    text_service_pb2.CountTokensRequest(
                        model=model.id, provider=model.provider, messages=request.messages, tools=request.tools
                    ),
                    model,
                    caller,
                    await self._admission.identify(caller.key),
                )
            except MoaError:
                raise refused from None
            if exact >= prompt:
                raise
            return exact, await reserve(exact)


def _linked(given: Iterable[tuple[str, media_pb2.ImageInput]]) -> list[Linked]:
    """Return the images that are links. Raises InvalidField for too many."""
    linked = [Linked(param, image) for param, image in given if image.WhichOneof("source") == "url"]
    if len(linked) > MOST_LINKS:
        raise InvalidField(
            f"at most {MOST_LINKS} images of a request may be links, not {len(linked)}; send the others inline",
            param=linked[MOST_LINKS].param,
        )
    return linked


def _outgrown(prompt: int, model: Model, others: Iterable[Model]) -> ContextTooLong | None:
    """Tell why a prompt plainly does not fit a model, where it may fit another; raise it where it fits none."""
    try:
        bounds.check_context(prompt, model)
    except ContextTooLong as refusal:
        if any(bounds.fits_context(prompt, other.context_tokens) for other in others):
            return refusal
        raise
    return None
