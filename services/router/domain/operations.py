"""What happens to every request: find the model, admit the caller, call whoever answers, and give the answer.

Every dialect and the gRPC API come through here, so policy exists once, whatever the operation.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import replace
from functools import partial
from typing import Any, Final, Protocol

import msgspec

from moa.common.v1 import media_pb2
from moa.quota.v1 import quota_pb2
from services.catalogue import Catalogue, Model, Retirement
from services.common.errors import (
    InvalidField,
    MoaError,
    ModelNotFound,
    PermissionDenied,
    QuotaExhausted,
    Unsupported,
)
from services.policies import Asked
from services.quota_client import costless, permissions
from services.quota_client.labels import Labels, labelled
from services.router.background import Background
from services.router.domain import retirement
from services.router.domain.answer import Answer
from services.router.domain.attempts import Attempts
from services.router.domain.breaker import Breakers
from services.router.domain.caller import Caller
from services.router.domain.durable import Durable
from services.router.domain.finding import Finder
from services.router.domain.handed_over import HandingOver, paid
from services.router.domain.measures import Headroom, Measures
from services.router.domain.operation import Backends, Call, CountingOperation, Needed
from services.router.domain.paced_attempts import PacedAttempts
from services.router.domain.policies import Policies, Screen
from services.router.domain.ports import Admission, Linked, LoggedKey, M, Reservation, VerifiedKey
from services.router.domain.request_log import Log, Recording, refused
from services.router.domain.routes import Plan, Planning
from services.router.domain.shadows import Shadows
from services.router.domain.terms import RETRIES, Patience, Terms
from services.router.domain.upstreams import Upstreams

MOST_LINKS: Final = 16
"""How many images of one request may be links."""
_NOT_FETCHING: Final = contextlib.nullcontext(AsyncExitStack())
"""For a request without links."""


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
        policies: Policies | None = None,
        headroom: Headroom | None = None,
        relisted: Callable[[], Awaitable[bool]] | None = None,
        upstreams: Upstreams | None = None,
        request_log: Log | None = None,
    ) -> None:
        self._catalogue = catalogue
        self._admission = admission
        self._backends = backends
        self._inputs = inputs
        self._patience = patience or Patience()
        self._policies = policies
        self._finder = Finder(catalogue, relisted)
        self._upstreams = upstreams
        self._request_log = request_log
        self._background = Background()
        self.planning = Planning(Measures(self._patience.clock, headroom or upstreams), self._patience.jitter)
        """Who is asked for which request."""
        self.handing_over = HandingOver(catalogue, admission, self._finder, self.planning, policies)
        """Prepares requests for providers' batch APIs."""
        self.shadows = Shadows(backends, upstreams)
        """The shadows that run."""

    async def begin(self, call: Call[Any, M], caller: Caller) -> Answer[M]:
        """Begin an answer; its first message is in hand when this returns.

        The call's request is changed: model and provider are resolved, and what it asks for fits the reservation.
        Raises MoaError for everything that can be known before the first event.
        """
        name, provider = call.request.model, call.request.provider
        model: Model | None = None
        try:
            model, ending = await self._finder.find(name, provider, call.operation, caller)
            try:
                if self._policies is None:
                    return await self._begin(call, model, ending, caller)
                return await self._begin_judged(self._policies, call, model, ending, caller)
            except Unsupported as error:
                retirement.name_the_retired(error, name, ending)
                raise
        except BaseException as error:
            if self._request_log is not None:
                asked = model.full_id if model is not None else f"{provider}/{name}" if provider else name
                refused(self._request_log, call, caller, error, asked=asked)
            raise

    async def _begin_judged(
        self, policies: Policies, call: Call[Any, M], model: Model, ending: Retirement | None, caller: Caller
    ) -> Answer[M]:
        """As `begin`, where policies judge the request and its answer."""
        verified_key = await self._admission.identify(caller.key)
        asked = Asked(request_id=caller.request_id, account_id=verified_key.account_id, operation=call.operation.name)
        try:
            request = await policies.before(asked, call.request)
        except MoaError:
            # What is refused is a request too: else it would have no pace.
            await self._admission.arrive(caller.key)
            raise
        if request is not call.request:
            call = call.changed(request)
            model, ending = self._finder.known(request.model, request.provider, call.operation, caller)
        return await self._begin(call, model, ending, caller, policies.screen(asked, request))

    async def _begin(
        self,
        call: Call[Any, M],
        model: Model,
        ending: Retirement | None,
        caller: Caller,
        screen: Screen[M] | None = None,
    ) -> Answer[M]:
        call.bind(caller, self._backends)
        catalogue = self._catalogue()
        plan = self.planning.plan(catalogue, model, call, caller)
        if not caller.own_key and [each for each in (plan.first, *plan.others) if each.lacks_price]:
            who = await self._admission.identify(caller.key)
            plan = plan.payable(who.asking(model.provider, model.id, labels_of(call, caller).tags))
        first, others = plan.first, plan.others
        if plan.route is not None and others:
            call.bind(msgspec.structs.replace(caller, has_others=True), self._backends)
        call.check(first)
        linked = _linked(images) if (images := call.images()) else ()
        # One reservation pays, whoever answers.
        amount = call.amount((first, *others))
        outgrown = call.outgrown(first, others)
        if call.is_answered:
            paying: Reservation = paid(await self._admission.identify(caller.key), labels_of(call, caller))
        else:
            paying = await self._reserve(call, model, first, caller, amount, countable=not linked)
        if caller.is_durable:
            paying = Durable(paying)
        async with AsyncExitStack() if linked else _NOT_FETCHING as fetching:
            if linked:
                await self._fetch(fetching, linked, paying, caller)
                paying = call.fetched(paying, (first, *others))
            call.admitted(paying)
            if self._request_log is not None:
                key: LoggedKey = paying.verified_key  # type: ignore[assignment]  # played ones know no log
                if key.request_logging:
                    asked, route = model.full_id, "" if plan.route is None else plan.route.id
                    call.recording = Recording(self._request_log, call, caller, key, paying.labels, asked, route)
            shadows = self.shadows.prepared(call, plan.shadows) if plan.shadows else ()
            attempts: Attempts[M] = self._attempts(caller, paying, is_answered=call.is_answered)(
                first,
                lambda: plan.able(paying),
                terms=self._terms(caller, paying, plan, call),
                outgrown=outgrown,
                stake=lambda: call.stake,
            )
            begun = await attempts.first(call.ask)
            if call.recording is not None:
                call.recording.began(begun.model)
        if shadows:
            self.shadows.begin(shadows, caller, catalogue)
        metering = call.metering()
        return Answer(
            begun=begun,
            attempts=attempts,
            metering=metering,
            request_id=caller.request_id,
            background=self._background,
            ending=ending,
            ignored=call.ignored(begun.first),
            way_on=call.way_on(attempts, metering, others=plan.has_others(caller)),
            route="" if plan.route is None else plan.route.id,
            screen=screen,
            learn=_unlearned if self._upstreams is None or caller.own_key else self._upstreams.learn,
            stopped=call.stopped,
            recording=call.recording,
        )

    def _attempts(self, caller: Caller, paying: Reservation, *, is_answered: bool) -> Callable[..., Attempts[Any]]:
        """Return what makes a request's attempts. What is known of the operator's limits says nothing of own keys'."""
        if self._upstreams is None or caller.own_key or is_answered or not self._upstreams.are_known:
            return Attempts
        return partial(
            PacedAttempts,
            upstreams=self._upstreams,
            account=paying.account_id,
            max_wait_s=caller.max_wait_s,
        )

    async def aclose(self) -> None:
        """End the shadows; wait until what callers who left owe is known: for as long as a prompt may be counted."""
        await self.shadows.aclose()
        await self._background.drain()

    async def usual(self, call: Call[Any, Any], caller: Caller) -> str:
        """Return the model for a request whose caller named none: the dialect's, which stands in it, where it can.

        Its successor where it is retired, of which the caller is not told. Else the first that the caller may use and
        that can do what is asked.
        Raises Unauthenticated, PermissionDenied, ModelNotFound.
        """
        preferred: str = call.request.model
        catalogue, on = self._catalogue(), retirement.today()
        with contextlib.suppress(MoaError):
            named = catalogue.find(preferred)
            model, _ = retirement.standing(catalogue, named, on)
            preferred = preferred if model is named else model.full_id
        if caller.own_key:
            return preferred
        verified_key = await self._admission.identify(caller.key)
        quota, makes = call.operation.quota, call.operation.name
        with contextlib.suppress(MoaError):
            model, _ = retirement.standing(catalogue, catalogue.find(preferred), on)
            if _is_able(call, model, catalogue) and verified_key.may(quota, model.provider, model.id):
                return preferred
        able = [
            model
            for model in catalogue.models
            if catalogue.makes(model) == makes
            and not retirement.is_over(model, on)
            and _is_able(call, model, catalogue)
        ]
        for model in able:
            if verified_key.may(quota, model.provider, model.id):
                return model.full_id
        if able:
            raise PermissionDenied("this key may use no model that can do this", param="model")
        raise ModelNotFound("no model can do this here; name one of those that GET /v1/models lists", param="model")

    async def model(self, name: str, caller: Caller, *, provider: str = "") -> tuple[Model, str]:
        """Find the model that a caller names, and what it makes: the name of its operation.

        For dialects where one call serves both. Raises as the operations do.
        """
        model, _ = await self._finder.find(name, provider, None, caller)
        return model, self._catalogue().providers[model.provider].makes

    async def count_tokens(self, operation: CountingOperation[Any, Any], request: Any, caller: Caller) -> int:
        """Count a prompt's tokens as its model would. Costs nothing, and counts as a request.

        `request`: what the operation's `count` takes. Raises ContextTooLong for a prompt that cannot fit however it is
        tokenized: nobody counts it.
        """
        model, _ = await self._finder.find(request.model, request.provider, operation, caller)
        await self._admission.arrive(caller.key)
        verified_key = await self.permitted(caller, operation.quota, model)
        call = operation.counting(request)
        model = self.planning.plan(self._catalogue(), model, call, caller).first
        call.amount((model,))
        call.outgrown(model, ())
        request.model, request.provider = model.id, model.provider
        return await self._backends.count_tokens(request, model, caller, verified_key)

    async def _fetch(
        self, fetching: AsyncExitStack, linked: Sequence[Linked], reserved: Reservation, caller: Caller
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

    async def permitted(self, caller: Caller, operation: quota_pb2.Operation.ValueType, model: Model) -> VerifiedKey:
        """Return who asks, for what is done without a reservation. Raises Unauthenticated or PermissionDenied."""
        verified_key = await self._admission.identify(caller.key)
        if not verified_key.may(operation, model.provider, model.id):
            raise permissions.refused(f"model {model.id}", param="model")
        return verified_key

    def _terms(self, caller: Caller, reserved: Reservation, plan: Plan, call: Call[Any, Any]) -> Terms:
        # Tasks come again by themselves, and remember it.
        retries = 0 if reserved.operation == quota_pb2.OPERATION_TASK else RETRIES
        return Terms(
            reservation=reserved,
            request_id=caller.request_id,
            until=caller.until,
            retries=retries,
            whole=call.whole,
            heard=caller.heard,
            # A key of the caller's own says nothing of the operator's.
            patience=replace(self._patience, breakers=Breakers()) if caller.own_key else self._patience,
            retries_first=plan.retries_first,
            watch=self.planning.watch(plan.route, whole=call.whole) if plan.route is not None else None,
            recording=call.recording,
        )

    async def _reserve(
        self, call: Call[Any, M], model: Model, first: Model, caller: Caller, needed: Needed, *, countable: bool
    ) -> Reservation:
        """Lend a call what it needs at most; where there is less, what it needs as whoever would answer counts.

        The key is permitted what it named: for a virtual model it need not be permitted each target.
        `countable`: whether it can be counted already, with nothing in it left to be fetched.
        """

        # Those who bring their own key pay their provider themselves.
        cost = costless if caller.own_key else call.cost(self._catalogue())

        async def reserve(needed: Needed) -> Reservation:
            if caller.own_key:
                needed = Needed(*(amount._replace(nano_usd=0) for amount in needed))
            reserved = await self._admission.reserve(
                caller.key,
                operation=call.operation.quota,
                provider=model.provider,
                model=model.id,
                need=needed.need,
                least=needed.least,
                cost=cost,
                request_id=caller.request_id,
                tags=labels.tags,
            )
            reserved.labels = labels
            return reserved

        labels = labels_of(call, caller)
        try:
            return await reserve(needed)
        except QuotaExhausted as refused:
            if not countable:
                raise
            try:
                counted = await call.recounted(first, await self._admission.identify(caller.key))
            except MoaError:
                raise refused from None
            if counted is None:
                raise
            return await reserve(counted)


def labels_of(call: Call[Any, Any], caller: Caller) -> Labels:
    """Return what a request is called in reports, and by budgets."""
    labels, user = labelled(caller.dialect, caller.tags), getattr(call.request, "user", "")
    return labels.of_user(user) if user else labels


def _unlearned(*_: object) -> None:
    """Learn nothing of a provider's limits."""


def _is_able(call: Call[Any, Any], model: Model, catalogue: Catalogue) -> bool:
    """Return whether a model can be asked, and can do what a call asks for."""
    if not catalogue.is_reachable(model):
        return False
    try:
        call.check_able(model)
    except MoaError:
        return False
    return True


def _linked(given: Iterable[tuple[str, media_pb2.ImageInput]]) -> list[Linked]:
    """Return the images that are links. Raises InvalidField for too many."""
    linked = [Linked(param, image) for param, image in given if image.WhichOneof("source") == "url"]
    if len(linked) > MOST_LINKS:
        raise InvalidField(
            f"at most {MOST_LINKS} images of a request may be links, not {len(linked)}; send the others inline",
            param=linked[MOST_LINKS].param,
        )
    return linked
