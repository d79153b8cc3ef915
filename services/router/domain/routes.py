"""Who is asked for one request: the model that it names, or a virtual model's targets in the order that was chosen."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final

from services.catalogue import Catalogue, Model, Route
from services.common.errors import (
    ContextTooLong,
    InvalidField,
    MoaError,
    ModelRetired,
    ProviderNotConfigured,
    Unsupported,
)
from services.quota_client import unpriced
from services.router.domain import fallbacks, retirement
from services.router.domain.caller import Caller
from services.router.domain.choice import Chosen, choose
from services.router.domain.measures import Measures, Watch
from services.router.domain.operation import Call
from services.router.domain.ports import Reservation, VerifiedKey

_NAMED: Final = 5
"""How many targets a refusal names."""


@dataclass(slots=True)
class Plan:
    """Who is asked for one request."""

    first: Model
    """Who is asked first."""
    others: Sequence[Model]
    """Who may answer in its place."""
    able: Callable[[Reservation], Sequence[Model]]
    """Returns those of them that can do what is asked."""
    route: Route | None = None
    """The virtual model that was asked for."""
    shadows: Sequence[Model] = field(default=())
    """Who is asked too, for an answer that nobody gets."""

    def payable(self, verified_key: VerifiedKey) -> Plan:
        """Return the plan without those whose cost nobody knows, for a key that is under a limit in dollars.

        Raises PermissionDenied where the model that was asked for is one, or all targets of a virtual model are.
        """
        if self.route is None:
            unpriced.check(verified_key, self.first)
            return replace(self, others=[other for other in self.others if unpriced.may_pay(verified_key, other)])
        payable = [each for each in (self.first, *self.others) if unpriced.may_pay(verified_key, each)]
        if not payable:
            unpriced.check(verified_key, self.first)
        first, *others = payable
        return replace(self, first=first, others=others, able=lambda _: others)

    def has_others(self, caller: Caller) -> bool:
        """Return whether another may answer in the place of the first."""
        return caller.fallback and bool(self.first.fallback if self.route is None else self.others)

    @property
    def retries_first(self) -> bool:
        """Whether the first is asked once more before the others."""
        return (self.first if self.route is None else self.route).on_first_failure == "retry"


class Planning:
    """Plans requests.

    Args:
        measures: What was measured of virtual models' targets.
        chance: Returns a number from 0 to 1.
    """

    def __init__(self, measures: Measures, chance: Callable[[], float] = random.random) -> None:
        self.measures = measures
        self._chance = chance

    def plan(self, catalogue: Catalogue, model: Model, call: Call[Any, Any], caller: Caller) -> Plan:
        """Return who is asked for a call that names `model`, and has its caller bound.

        Raises InvalidField for a wrong request, and for a virtual model none of whose targets can do it Unsupported,
        ContextTooLong or ProviderNotConfigured.
        """
        if catalogue.route(model) is None:
            return Plan(
                model,
                list(fallbacks.reachable(catalogue, model, caller)) if model.fallback else (),
                lambda paying: fallbacks.able(catalogue, model, caller, paying, call.check_able),
            )
        call.check_request()
        return self._virtual(catalogue, model, call, caller)

    def watch(self, route: Route, *, whole: bool) -> Watch:
        """Return what notes the calls of a request for a virtual model."""
        return self.measures.watch(route.id, whole=whole, hedges=route.hedge)

    def _virtual(self, catalogue: Catalogue, virtual: Model, call: Call[Any, Any], caller: Caller) -> Plan:
        leaves = _Leaves(catalogue, call)
        chosen = choose(
            virtual,
            CallFacts(call, caller, catalogue),
            self.measures.view(whole=call.whole),
            behind=catalogue.route,
            leaf=leaves,
            chance=self._chance,
        )
        if not chosen.order:
            raise _refusal(virtual, chosen, leaves.refusals)
        found = catalogue.route(virtual)
        assert found is not None
        first, *others = chosen.order
        if not caller.fallback:
            others = []
        return Plan(first, others, lambda _: others, found[0], chosen.shadows)


class _Leaves:
    """Finds who answers for the models that targets name, and keeps why the others do not."""

    def __init__(self, catalogue: Catalogue, call: Call[Any, Any]) -> None:
        self._catalogue = catalogue
        self._call = call
        self._today = retirement.today()
        self.refusals: dict[str, MoaError] = {}

    def __call__(self, named: Model) -> Model | None:
        """Return who answers for a model; None where nobody can."""
        try:
            model, _ = retirement.standing(self._catalogue, named, self._today)
            if model.provider not in self._catalogue.configured:
                raise ProviderNotConfigured(f"provider {model.provider} is not configured here", param="model")
            self._call.amount((model,))
            self._call.check_able(model)
        except (ContextTooLong, InvalidField, ModelRetired, ProviderNotConfigured, Unsupported) as refusal:
            self.refusals[named.full_id] = refusal.with_traceback(None)
            return None
        return model


def _refusal(virtual: Model, chosen: Chosen, refusals: dict[str, MoaError]) -> MoaError:
    """Return why no target of a virtual model can do a request: for each what it lacks."""
    reasons = [*chosen.unfit, *((name, error.message) for name, error in refusals.items())]
    listed = "; ".join(f"{name}: {why}" for name, why in reasons[:_NAMED])
    more = f"; and {len(reasons) - _NAMED} more" if len(reasons) > _NAMED else ""
    message = f"no target of {virtual.id} can do this request ({listed}{more})"
    kinds = {type(error) for error in refusals.values()}
    param = next((error.param for error in refusals.values() if error.param), "model")
    if not chosen.unfit and kinds == {ContextTooLong}:
        return ContextTooLong(message, param=param)
    if not chosen.unfit and kinds == {ProviderNotConfigured}:
        return ProviderNotConfigured(message, param="model")
    return Unsupported(message, param="model" if chosen.unfit else param)


class CallFacts:
    """What a call says of itself, found out when it is asked for: `services.router.domain.choice.Facts`."""

    def __init__(self, call: Call[Any, Any], caller: Caller, catalogue: Catalogue) -> None:
        self._call = call
        self._caller = caller
        self._catalogue = catalogue

    @cached_property
    def prompt_tokens(self) -> int:
        """As `Facts.prompt_tokens`."""
        return self._call.expected.prompt_tokens

    @cached_property
    def modalities(self) -> frozenset[str]:
        """As `Facts.modalities`."""
        return self._call.modalities()

    @cached_property
    def needs(self) -> frozenset[str]:
        """As `Facts.needs`."""
        return self._call.needs() | self.modalities

    @property
    def tags(self) -> frozenset[str]:
        """As `Facts.tags`."""
        return self._caller.tags

    @cached_property
    def sticky_key(self) -> str:
        """As `Facts.sticky_key`."""
        return self._call.sticky_key()

    def price(self, model: Model) -> int | None:
        """As `Facts.price`: a model of the gateway's own without a price costs nothing."""
        if model.price() is None:
            return None if model.load is None else 0
        return self._call.cost(self._catalogue)(self._call.expected, model.provider, model.id)
