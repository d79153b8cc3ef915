"""moa.account.v1.ProviderKeyService: providers' keys that are set while the gateway runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from moa.account.v1 import provider_key_service_pb2 as pb
from moa.account.v1 import provider_key_service_pb2_grpc
from services.auth import render
from services.auth.adapters.accounts import Accounts
from services.auth.adapters.keys import Keys
from services.auth.adapters.offered import Offered
from services.auth.adapters.provider_keys import ProviderKeys
from services.auth.callers import Callers
from services.auth.managers import manager_of
from services.common import scrub
from services.common.errors import InvalidField

_LONGEST: Final = 8192

Form = Mapping[str, str]


class ProviderKeyServicer(provider_key_service_pb2_grpc.ProviderKeyServiceServicer):
    """Answers administrators, and refuses everyone else."""

    def __init__(
        self, *, provider_keys: ProviderKeys, offered: Offered, accounts: Accounts, keys_kept: Keys, callers: Callers
    ) -> None:
        self._provider_keys = provider_keys
        self._offered = offered
        self._accounts = accounts
        self._keys = keys_kept
        self._callers = callers

    async def SetProviderKey(self, request: pb.SetProviderKeyRequest, context: Any) -> pb.SetProviderKeyResponse:
        """Store the credentials of a provider."""
        scrub.of_call(*(given.value for given in request.credentials))
        actor = await self._administrator(context, gives=True)
        credentials = {given.name: given.value.strip() for given in request.credentials}
        form = _form(request.provider_id, await self._offered.forms(request.provider_id), credentials)
        for name, value in credentials.items():
            _check(name, value)
        rows = await self._provider_keys.set(
            request.provider_id, {form[name]: value for name, value in credentials.items()}, actor=actor
        )
        kept = [
            pb.ProviderKey(
                variable=row.variable, last_four=row.last_four, set_at=render.timestamp(row.set_at), set_by=row.set_by
            )
            for row in rows
        ]
        return pb.SetProviderKeyResponse(keys=kept)

    async def DeleteProviderKey(
        self, request: pb.DeleteProviderKeyRequest, context: Any
    ) -> pb.DeleteProviderKeyResponse:
        """Forget the stored credentials of a provider."""
        actor = await self._administrator(context, gives=False)
        forms = await self._offered.forms(request.provider_id)
        variables = {variable for form in forms for variable in form.values()}
        await self._provider_keys.delete(request.provider_id, variables, actor=actor)
        return pb.DeleteProviderKeyResponse()

    async def _administrator(self, context: Any, *, gives: bool) -> str:
        caller = await self._callers.of(context)
        return (await manager_of(self._accounts, self._keys, caller, "", gives=gives)).account_id


def _form(provider_id: str, forms: Sequence[Form], credentials: Mapping[str, str]) -> Form:
    """Return the form that has exactly the names that were given. Raises InvalidField."""
    form = next((form for form in forms if form.keys() == credentials.keys()), None)
    if form is not None:
        return form
    if not forms:
        message = f"provider {provider_id!r} takes no credentials that can be stored"
    else:
        ways = ", or ".join(" and ".join(form) for form in forms)
        message = f"provider {provider_id!r} takes {ways}"
    raise InvalidField(message, param="credentials")


def _check(name: str, value: str) -> None:
    if not value or len(value) > _LONGEST or not value.isprintable() or " " in value:
        message = f"{name} has 1 to {_LONGEST:,} printable characters without spaces"
        raise InvalidField(message, param="credentials")
