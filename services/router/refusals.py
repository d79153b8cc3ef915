"""How the router words a refusal: to whom, and in whose terms."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

from moa.common.v1 import error_pb2
from services.catalogue import Catalogue, Model, UnknownModel, worded
from services.common import byok
from services.common.dialects import BY_SERVICE
from services.common.dialects.registrations import Registration, registrations
from services.common.errors import RULES, MoaError, Unauthenticated
from services.common.rpc import call as calls
from services.common.rpc.keys import key_of
from services.quota_client.labels import labelled
from services.quota_client.tags import tags_of
from services.router import dialects
from services.router.domain.request_log import Log, Unread
from services.router.operations import OPERATIONS
from services.router.serving import dialect_of

_OPEN: Final = "/moa.router.v1.FilesService/"
"""Files are had by their signed links; nobody needs a key."""
_LISTED: Final = "moa.router.v1.CatalogService"
"""What lists a gRPC caller's models."""


class Verifier(Protocol):
    """Who verifies keys."""

    async def identify(self, key: str) -> Any:
        """Verify a key. Raises Unauthenticated."""


class Refusals:
    """Rewords what handlers raise.

    A body is read before its caller is admitted, so that one call admits and reserves. Whoever has no valid key is told
    that all the same, whatever else is wrong, and learns nothing of the catalogue.

    Args:
        admission: Who verifies keys.
        catalogue: Gives the catalogue as it is now, for the names that a caller may have meant.
        takes_key: Tells whether a key is a provider's, which callers may bring; None: they may bring none.
        log: Takes what could not be read, where a team has its requests logged; None: nobody does.
    """

    def __init__(
        self,
        admission: Verifier,
        catalogue: Callable[[], Catalogue],
        *,
        takes_key: Callable[[str], bool] | None = None,
        log: Log | None = None,
    ) -> None:
        self._admission = admission
        self._catalogue = catalogue
        self._takes_key = takes_key
        self._log = log
        found = list(registrations(dialects, Registration))
        self._bodies = frozenset(name for each in found for name in _bodies(each))
        answered = (each.dialects for each in found)
        self._dialects = {**BY_SERVICE, **{name: dialect for of in answered for name, dialect in of.items()}}

    async def welcome(self, context: Any, method: str) -> str:
        """Return whose a large body is, before it is read, which may take seconds. Raises Unauthenticated.

        Empty where nobody needs a key, and where who asks cannot be told now.
        """
        key = key_of(context.invocation_metadata() or ())
        if self._is_own(key):
            return byok.ACCOUNT_ID
        if method.startswith(_OPEN):
            return ""
        try:
            verified_key = await self._admission.identify(key)
        except Unauthenticated:
            raise
        except MoaError:
            return ""  # The operation says so in its own words.
        return str(verified_key.account_id)

    async def __call__(self, context: Any, method: str, error: MoaError) -> MoaError:
        """Return the error that the caller is told: about the key first, then in the dialect's own names."""
        dialect = self._dialects.get(method[1:].partition("/")[0])
        if RULES[error.reason].blame == error_pb2.BLAME_REQUEST and not method.startswith(_OPEN):
            try:
                given = key_of(context.invocation_metadata() or ())
                verified_key = await self._admission.identify(calls.current().key or given)
            except Unauthenticated as stranger:
                return stranger
            except MoaError:
                pass  # Who asks cannot be told now; what is wrong with the request is as true.
            else:
                if not error.logged and self._log is not None and method in self._bodies:
                    self._log_unread(context, method, error, verified_key)
                # A key that only a provider could verify learns nothing of what there is.
                if isinstance(error, UnknownModel) and not self._is_own(given):
                    listed = dialect.listed if dialect is not None else _LISTED
                    error = self._worded(error, verified_key, listed)
        if dialect is None:
            return error
        error.headers = tuple(dialect.with_limits(error.headers))
        return dialect.in_its_words(error)

    def _is_own(self, key: str) -> bool:
        """Return whether a key is a provider's, which its caller may bring."""
        return self._takes_key is not None and self._takes_key(key)

    def _log_unread(self, context: Any, method: str, error: MoaError, verified_key: Any) -> None:
        """Log a request whose body never became one."""
        assert self._log is not None
        if not verified_key.request_logging:
            return
        try:
            tags = tags_of(context.invocation_metadata() or ())
        except MoaError:
            tags = frozenset()
        labels = labelled(dialect_of(method), tags)
        self._log.add(Unread(verified_key, labels, calls.current().request_id, error))

    def _worded(self, error: UnknownModel, verified_key: Any, listed: str) -> MoaError:
        """Return the refusal of an unknown model that names those of its caller's which are like it."""
        catalogue = self._catalogue()

        def may(model: Model) -> bool:
            quota = OPERATIONS[catalogue.makes(model)].quota
            return bool(verified_key.may(quota, model.provider, model.id))

        return worded(error, catalogue, may, listed=f"{listed} lists those that you may use")


def _bodies(registration: Registration[Any]) -> Iterable[str]:
    """Yield the methods (`/package.Service/Method`) that read a body which is paid for."""
    for service in registration.contract.services_by_name.values():
        for method in service.methods:
            declared = registration.methods.get(f"{service.name}.{method.name}")
            if declared is not None and declared.reads is not None and declared.is_paid:
                yield f"/{service.full_name}/{method.name}"
