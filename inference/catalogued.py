"""Find the model that a call means among the models of one's own."""

from __future__ import annotations

import contextlib

from services.catalogue import Model, Watched
from services.common.errors import InvalidField, ModelNotFound
from services.common.rpc import call as calls


def find(catalogue: Watched, name: str, provider: str, makes: str) -> Model:
    """Return the model of this service that `name` means, if it makes what is asked for.

    Raises InvalidField without a name, NotFound or ModelNotFound for an unknown one or one that others serve.
    """
    if not name:
        raise InvalidField("a model is required", param="model")
    now = catalogue.now
    model = now.find(name, provider=provider)
    if model.load is None or now.provider(model.provider).makes != makes:
        raise ModelNotFound(f"model {model.id!r} does not make {makes} here", param="model")
    calls.current().fields["model"] = model.id
    return model


def of_pool(catalogue: Watched, pool: str) -> list[Model]:
    """Return the models that the processes of a pool load; without a pool, those whose provider names none."""
    now = catalogue.now
    found = [m for m in now.models if m.load is not None and now.provider(m.provider).pool == pool]
    return found if pool else [*found, *(model for model in now.vision if model.load is not None)]


def any_named(catalogue: Watched, name: str) -> Model:
    """Return the model of a name, whatever it makes; raise ModelNotFound."""
    now = catalogue.now
    with contextlib.suppress(ModelNotFound):
        return now.find_vision(name)
    return now.find(name)
