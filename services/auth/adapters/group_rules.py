"""The operator's file of what members of the identity provider's groups are here, read anew when it was changed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec
from prometheus_client import Gauge

from services.auth.domain.oidc import GroupRule
from services.common import logs

_LIMIT_BYTES: Final = 1024 * 1024
REFUSED: Final = Gauge(
    "moa_oidc_groups_refused", "Whether the file of groups has a fault, and what it said before counts."
)
_log = logs.get("auth")


class GroupRulesError(Exception):
    """The file cannot be used. The message says why."""


class _Row(msgspec.Struct, forbid_unknown_fields=True):
    group: str
    team: str | None = None
    role: Literal["owner", "member"] = "member"
    administrator: bool = False


def read(path: Path) -> list[GroupRule]:
    """Return the rules of a file, in its order. Raises GroupRulesError."""
    try:
        data = path.read_bytes()
        if len(data) > _LIMIT_BYTES:
            raise GroupRulesError(f"{path} has more than {_LIMIT_BYTES:,} bytes")
        rows = msgspec.yaml.decode(data, type=list[_Row] | None) or []
    except OSError as error:
        raise GroupRulesError(f"{path} cannot be read: {error.strerror}") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise GroupRulesError(f"{path}: {' '.join(str(error).split()) or 'it is too deep'}") from None
    for row in rows:
        if not row.group or (row.team is None) != row.administrator:
            raise GroupRulesError(f"{path}: a row has a `group`, and either a `team` or `administrator: true`")
    return [GroupRule(row.group, row.team, row.role, row.administrator) for row in rows]


class GroupRules:
    """Keeps the rules of a file as it is now; while it cannot be used, those of before.

    Args:
        path: None: there are none.

    Raises GroupRulesError where the file cannot be used at the start.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._stamp = self._stamped()
        self._rules: list[GroupRule] = read(path) if path is not None else []

    def _stamped(self) -> tuple[int, int, int] | None:
        if self._path is None:
            return None
        try:
            stat = self._path.stat()
        except OSError:
            return None
        return stat.st_ino, stat.st_mtime_ns, stat.st_size

    async def now(self) -> Sequence[GroupRule]:
        """Return the rules."""
        if self._path is None:
            return self._rules
        stamp = await asyncio.to_thread(self._stamped)
        if stamp != self._stamp:
            try:
                self._rules = await asyncio.to_thread(read, self._path)
                REFUSED.set(0)
                _log.info("oidc.groups_read", rules=len(self._rules))
            except GroupRulesError as error:
                REFUSED.set(1)
                _log.error("oidc.groups_refused", why=str(error))
            self._stamp = stamp
        return self._rules
