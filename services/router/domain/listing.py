"""Which models a key may see."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from services.catalogue import Catalogue, Model
from services.common.errors import ModelNotFound, ProviderNotConfigured
from services.quota_client.permissions import refused
from services.router.domain import retirement
from services.router.domain.caller import Caller
from services.router.domain.described import Description, described
from services.router.domain.operation import Operation
from services.router.domain.ports import Admission, VerifiedKey

Readiness = Mapping[str, Any]
"""`status`, and `percent` or `detail` where there is one."""


async def _unknown() -> Mapping[str, Readiness]:
    return {}


class Listing:
    """Reads the catalogue, and what providers list, through a key's permissions.

    Args:
        operations: What callers may ask for, by the names that catalogue rows write as `makes`.
        catalogue: Gives the catalogue as it is now.
        admission: Tells who calls.
        states: Tells how far the models of the gateway's own are, by full id; none where that cannot be told.
    """

    def __init__(
        self,
        *,
        operations: Mapping[str, Operation[Any, Any]],
        catalogue: Callable[[], Catalogue],
        admission: Admission,
        states: Callable[[], Awaitable[Mapping[str, Readiness]]] = _unknown,
    ) -> None:
        self._operations = operations
        self._catalogue = catalogue
        self._admission = admission
        self._states = states
        self._owners: tuple[Catalogue | None, dict[str, str]] = None, {}

    def name(self, model: Model) -> str:
        """Return the id by which a model is listed: with its provider's before it where its own is another's.

        So no two are listed alike, and each is answered by what it is listed as.
        """
        catalogue = self._catalogue()
        known, owners = self._owners
        if known is not catalogue:
            owners = {}
            for each in (*catalogue.models, *catalogue.discovered):
                if catalogue.is_reachable(each):
                    owners.setdefault(each.id, each.full_id)
            self._owners = catalogue, owners
        return model.id if owners.get(model.id, model.full_id) == model.full_id else model.full_id

    async def readiness(self, model: Model) -> dict[str, Any]:
        """Tell how far a model of the gateway's own is, and of a server of one's own that it does not answer.

        Empty for others, and where it cannot be told.
        """
        if model.load is None:
            why = self._catalogue().unavailable(model.provider)
            return {"status": "unavailable", "detail": why} if why else {}
        return dict((await self._states()).get(model.full_id, {}))

    async def models(self, caller: Caller, *, provider: str = "") -> list[Model]:
        """List the models of configured providers that the key may use.

        Raises Unauthenticated; NotFound for an unknown provider; ProviderNotConfigured.
        """
        verified_key = await self._admission.arrive(caller.key)
        catalogue = self._catalogue()
        on = retirement.today()
        if provider:
            catalogue.provider(provider)
            if provider not in catalogue.configured:
                raise ProviderNotConfigured(f"provider {provider} is not configured here", param="provider")
        # What the operator's key is shown is no matter of those who bring their own.
        discovered = () if caller.own_key else catalogue.discovered
        return [
            model
            for model in (*catalogue.models, *discovered)
            if self._reaches(catalogue, model, caller)
            and not retirement.is_over(model, on)
            and (not provider or model.provider == provider)
            and self._may(verified_key, catalogue, model)
        ]

    async def model(self, caller: Caller, name: str) -> Model:
        """Return one model; a retired one's successor.

        Raises as `models`, and ModelNotFound, ModelRetired, PermissionDenied.
        """
        verified_key = await self._admission.arrive(caller.key)
        catalogue = self._catalogue()
        model, _ = retirement.standing(catalogue, catalogue.find(name), retirement.today())
        if not self._reaches(catalogue, model, caller):
            if caller.own_key:
                raise ModelNotFound(f"unknown model {name[:200]!r}", param="model")
            raise ProviderNotConfigured(f"provider {model.provider} is not configured here", param="model")
        if not self._may(verified_key, catalogue, model):
            raise refused(f"model {model.id}", param="model")
        return model

    @staticmethod
    def _reaches(catalogue: Catalogue, model: Model, caller: Caller) -> bool:
        """Return whether the model can be asked: by the gateway's credentials, or the caller's own."""
        if caller.own_key:
            return catalogue.providers[model.provider].takes_key(caller.own_key)
        return catalogue.is_reachable(model)

    def described(self, model: Model) -> Description:
        """Return what is known of a model."""
        return described(self._catalogue(), model)

    def operation(self, model: Model) -> Operation[Any, Any]:
        """Return what a model is asked for."""
        return self._operations[self._catalogue().makes(model)]

    def _may(self, verified_key: VerifiedKey, catalogue: Catalogue, model: Model) -> bool:
        operation = self._operations[catalogue.makes(model)]
        return verified_key.may(operation.quota, model.provider, model.id)
