"""What contracts do not tell of methods: as the dialects register it, and of the services that are no dialect."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Final

import services.router.dialects
import services.tasks.dialects
from services.common.dialects.registrations import Method, Registration, registrations

HOSTS: Final[tuple[ModuleType, ...]] = (services.router.dialects, services.tasks.dialects)
"""The packages of dialects."""

METHODS: Final[Mapping[str, Method]] = {
    f"{each.contract.package}.{name}": method
    for host in HOSTS
    for each in registrations(host, Registration)
    for name, method in each.methods.items()
}
"""By full name. A method that is not here has typed bodies, or any object."""

ANSWERED_ONCE: Final = (
    "Names the request, so that it can be sent again: the same request under the same key is done and charged once, "
    "and answered alike for 24 hours."
)
CREATED_ONCE: Final = (
    "Names the request: sent again under the same key it gives the same task, as long as that is kept."
)

FILES: Final = frozenset({"moa.router.v1.FilesService.GetFile"})
"""Methods that answer with a file."""

TABLES: Final = frozenset(
    {"moa.account.v1.AccountService.DownloadSpend", "moa.account.v1.AdminService.DownloadSpendReport"}
)
"""Methods that answer with comma-separated values."""

REDIRECTS: Final = frozenset({"moa.account.v1.OidcService.StartOidc", "moa.account.v1.OidcService.FinishOidc"})
"""Methods that send a browser elsewhere."""

KEYLESS: Final = (
    FILES
    | REDIRECTS
    | {f"moa.account.v1.AccountService.{name}" for name in ("SignUp", "LogIn", "AskPasswordReset", "ResetPassword")}
    | {f"moa.account.v1.OidcService.{name}" for name in ("GetLogInMethods", "LogInByOidc")}
)
"""Methods of no dialect that need no key."""
SESSION_ENDS: Final = frozenset({"moa.account.v1.AccountService.LogOut"})
"""Methods that read a session's token where one is sent, and need none."""


def registered(name: str) -> Method:
    """Return what is registered of a method, by its full name."""
    return METHODS.get(name, _PLAIN)


_PLAIN: Final = Method()
