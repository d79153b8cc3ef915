"""Requests that a provider's batch API answers: all that comes before whoever answers is asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from moa.common.v1 import media_pb2
from services.catalogue import Catalogue, Model, at_factor
from services.policies import Asked
from services.quota_client import TaskReservation, permissions, unpriced
from services.quota_client.amounts import Amount
from services.quota_client.grants import ActingFor
from services.quota_client.labels import Labels
from services.router.domain.caller import Caller
from services.router.domain.finding import Finder
from services.router.domain.operation import Call, Operation
from services.router.domain.policies import Policies
from services.router.domain.ports import Admission, MessageStream, Reservation, VerifiedKey
from services.router.domain.routes import Planning


class HandedOver(NamedTuple):
    """A request as it is handed to a provider."""

    model: Model
    request: Any
    need: Amount
    """What it costs at most, at the batch's price."""


class HandingOver:
    """Prepares requests for providers' batch APIs.

    Args:
        catalogue: Gives the catalogue as it is now.
        admission: Knows keys.
        finder: Finds models.
        planning: Tells who answers.
        policies: Judge requests; None: none do.
    """

    def __init__(
        self,
        catalogue: Callable[[], Catalogue],
        admission: Admission,
        finder: Finder,
        planning: Planning,
        policies: Policies | None,
    ) -> None:
        self._catalogue = catalogue
        self._admission = admission
        self._finder = finder
        self._planning = planning
        self._policies = policies

    async def prepare(self, call: Call[Any, Any], caller: Caller) -> HandedOver | None:
        """Return a request as it is handed over; None where it is asked for as any other.

        That is so where nobody has a batch API for its model, where several models may answer, and where it holds
        links, which are fetched when it is asked. Raises as `Operations.begin` does for a request that is refused.
        """
        model, _ = await self._finder.find(call.request.model, call.request.provider, call.operation, caller)
        catalogue = self._catalogue()
        factor = None if catalogue.route(model) is not None else catalogue.batch_price_factor(model)
        if factor is None or not catalogue.is_reachable(model):
            return None
        who: Any = await self._admission.identify(caller.key)
        if not who.may(call.operation.quota, model.provider, model.id):
            raise permissions.refused(f"model {model.id}", param="model")
        if self._policies is not None:
            asked = Asked(request_id=caller.request_id, account_id=who.account_id, operation=call.operation.name)
            request = await self._policies.before(asked, call.request)
            if request is not call.request:
                call = call.changed(request)
                model, _ = self._finder.known(request.model, request.provider, call.operation, caller)
        unpriced.check(who.asking(model.provider, model.id, tuple(caller.tags)), model)
        taking = _Taking()
        call.bind(caller, taking)
        call.check(model)
        if any(image.WhichOneof("source") == "url" for _, image in _images(call)):
            return None
        need = call.amount((model,)).need
        call.outgrown(model, ())
        paying = paid(who, Labels())
        paying.amount = need
        call.admitted(paying)
        call.ask(model, paying)
        need = need._replace(nano_usd=at_factor(need.nano_usd, factor)).of_request()
        return HandedOver(model, taking.request, need)


def paid(who: VerifiedKey, labels: Labels) -> Any:
    """Return what stands for a reservation that another service holds, and settles."""
    key: Any = who
    paying = TaskReservation(key, ActingFor(account_id=who.account_id, key_id=key.key_id))
    paying.labels = labels
    return paying


def _images(call: Call[Any, Any]) -> list[tuple[str, media_pb2.ImageInput]]:
    return list(call.images())


class _Taking:
    """Takes the request that would be asked, and asks nobody."""

    request: Any = None

    def ask(
        self,
        operation: Operation[Any, Any],
        request: Any,
        model: Model,
        caller: Caller,
        reserved: Reservation,
        *,
        prompt_bound: int | None = None,
        books: bool = True,
    ) -> MessageStream[Any]:
        """Take a request."""
        self.request = request
        return _Nothing()

    async def count_tokens(self, request: Any, model: Model, caller: Caller, payer: object) -> int:
        """Count nothing: a request is handed over by its bound."""
        raise AssertionError


class _Nothing:
    """An answer that never comes."""

    async def read(self) -> None:
        """Return nothing."""

    def cancel(self) -> None:
        """Nothing runs."""

    def close(self) -> None:
        """Nothing runs."""
