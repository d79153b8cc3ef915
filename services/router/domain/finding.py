"""Which model a caller means by a name."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from services.catalogue import Catalogue, Model, Retirement, UnknownModel
from services.common.errors import InvalidField, ModelNotFound, ProviderNotConfigured, Unsupported
from services.common.operations import CONTRACTS
from services.router.domain import retirement
from services.router.domain.caller import Caller
from services.router.domain.operation import Operation


class Finder:
    """Finds the models that answer to callers' names.

    Args:
        catalogue: Returns the catalogue as it is now.
        relisted: Has providers list their models anew, and returns whether any did change; None: they list nothing.
    """

    def __init__(
        self, catalogue: Callable[[], Catalogue], relisted: Callable[[], Awaitable[bool]] | None = None
    ) -> None:
        self._catalogue = catalogue
        self._relisted = relisted

    async def find(
        self, name: str, provider: str, operation: Operation[Any, Any] | None, caller: Caller
    ) -> tuple[Model, Retirement | None]:
        """As `known`; a name that nobody has is looked for once more, when providers have told what they have now."""
        try:
            return self.known(name, provider, operation, caller)
        except UnknownModel:
            if caller.own_key or self._relisted is None or not await self._relisted():
                raise
        return self.known(name, provider, operation, caller)

    def known(
        self, name: str, provider: str, operation: Operation[Any, Any] | None, caller: Caller
    ) -> tuple[Model, Retirement | None]:
        """Return the model that answers to a name, and the retirement that its caller is to be told of.

        `operation`: what it is asked for; None: whatever it makes.
        Raises InvalidField without a name that is needed, else as `Catalogue.find`, and ProviderNotConfigured,
        ModelRetired or Unsupported for a model that cannot answer.
        """
        catalogue = self._catalogue()
        if name:
            makes = operation.name if operation is not None else ""
            asked = find(catalogue, name, provider=provider, makes=makes, own_key=caller.own_key)
        elif operation is not None and operation.nameless:
            asked = catalogue.first(operation.name)
        else:
            raise InvalidField("a model is required", param="model")
        model, ending = asked, None
        if asked.retirement is not None:
            model, ending = retirement.standing(catalogue, asked, retirement.today())
        if caller.own_key:
            # Told like an unknown one: a key that nobody has verified yet learns nothing of the rest.
            if not catalogue.providers[model.provider].takes_key(caller.own_key):
                raise ModelNotFound(f"unknown model {name[:200]!r}", param="model")
        elif not catalogue.is_reachable(model):
            raise ProviderNotConfigured(f"provider {model.provider} is not configured here", param="provider")
        makes = catalogue.providers[model.provider].makes
        if operation is not None and makes != operation.name:
            made, wanted = (CONTRACTS[word].made for word in (makes, operation.name))
            raise Unsupported(
                f"model {model.id} makes {made}, not {wanted}; ask it for {made}, or another model for {wanted}",
                param="model",
            )
        return model, ending


def find(catalogue: Catalogue, name: str, *, provider: str, makes: str, own_key: str) -> Model:
    """Return the model that a name means; for who brings a provider's key, one at a provider that takes it, if any.

    Raises as `Catalogue.find`.
    """
    if own_key and not provider:
        # What the operator has configured is no matter here: a name that no row has is that provider's.
        for each in catalogue.providers.values():
            if each.takes_key(own_key) and makes in ("", each.makes):
                with contextlib.suppress(UnknownModel):
                    return catalogue.find(name, provider=each.id, makes=makes)
    return catalogue.find(name, provider=provider, makes=makes)
