"""Which model a caller means by a name."""

from __future__ import annotations

import contextlib

from services.catalogue import Catalogue, Model, UnknownModel


def find(catalogue: Catalogue, name: str, *, provider: str, makes: str, own_key: bool) -> Model:
    """Return the model that a name means; for who brings a provider's key, one at a provider that takes it, if any.

    Raises as `Catalogue.find`.
    """
    if own_key and not provider:
        # What the operator has configured is no matter here: a name that no row has is that provider's.
        for each in catalogue.providers.values():
            if each.takes_caller_keys and makes in ("", each.makes):
                with contextlib.suppress(UnknownModel):
                    return catalogue.find(name, provider=each.id, makes=makes)
    return catalogue.find(name, provider=provider, makes=makes)
