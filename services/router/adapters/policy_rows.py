"""The file of policies (`MOA_POLICIES`): which there are, in their order. `docs/policies.md` shows one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final, Literal

import grpc
import msgspec
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from services.common.rpc.client import channel
from services.policies import Hook, cap, deny_list
from services.router.adapters.remote_policy import RemotePolicy
from services.router.domain.policies import Policies, Policy

GROUP: Final = "moa.policies"
"""The group of entry points by which packages offer kinds of policies."""
_SHIPPED: Final[Mapping[str, Callable[[Mapping[str, Any]], Hook]]] = {"deny-list": deny_list.made, "cap": cap.made}


class PoliciesError(ValueError):
    """A file of policies that is not taken; says where and why."""


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")
    kind: str = ""
    """Of a policy in this process."""
    address: str = ""
    """Of a policy in another: `host:port`."""
    settings: dict[str, Any] = Field(default_factory=dict)
    operations: tuple[Literal["text", "image", "embedding"], ...] = ("text", "image", "embedding")
    judges: tuple[Literal["requests", "answers"], ...] = ("requests", "answers")
    deadline_ms: int = Field(default=1000, ge=1, le=60_000)
    on_failure: Literal["refuse", "allow"] = "refuse"
    holds: int = Field(default=0, ge=0, le=4096)
    """Characters of a text that are held back for a policy in another process."""

    @model_validator(mode="after")
    def _one_place(self) -> _Row:
        if bool(self.kind) == bool(self.address):
            raise ValueError("a policy has a kind or an address")
        if self.address and self.settings:
            raise ValueError("settings are for a policy with a kind")
        if self.kind and self.holds:
            raise ValueError("holds is for a policy with an address")
        return self


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    policies: tuple[_Row, ...]


class PolicyRows:
    """The policies of a file, and the channels to those in other processes."""

    def __init__(self, path: Path) -> None:
        """Raises PoliciesError where the file cannot be read, or says something that is not known."""
        try:
            rows = _File.model_validate(msgspec.yaml.decode(path.read_bytes())).policies
        except (OSError, msgspec.DecodeError) as error:
            raise PoliciesError(f"{path}: {error}") from None
        except ValidationError as error:
            raise PoliciesError(f"{path}: {_faults(error)}") from None
        self._channels: list[grpc.aio.Channel] = []
        made: dict[str, Policy] = {}
        for row in rows:
            if row.name in made:
                raise PoliciesError(f"{path}: two policies are called {row.name}")
            try:
                made[row.name] = self._policy(row)
            except ValidationError as error:
                raise PoliciesError(f"{path}: {row.name}: {_faults(error)}") from None
            except ValueError as error:
                raise PoliciesError(f"{path}: {row.name}: {error}") from None
        self.policies = Policies(list(made.values()))

    async def aclose(self) -> None:
        """Close the channels."""
        for each in self._channels:
            await each.close()

    def _policy(self, row: _Row) -> Policy:
        hook = self._remote(row) if row.address else _kind(row.kind)(row.settings)
        kind = type(hook)
        return Policy(
            name=row.name,
            hook=hook,
            deadline_s=row.deadline_ms / 1000,
            fails_open=row.on_failure == "allow",
            operations=frozenset(row.operations),
            judges_requests="requests" in row.judges and kind.before is not Hook.before,
            judges_answers="answers" in row.judges and kind.watch is not Hook.watch,
        )

    def _remote(self, row: _Row) -> RemotePolicy:
        self._channels.append(channel(row.address))
        return RemotePolicy(self._channels[-1], holds=row.holds)


def _kind(name: str) -> Callable[[Mapping[str, Any]], Hook]:
    """Return what makes policies of a kind. Raises ValueError for an unknown one."""
    if (made := _SHIPPED.get(name)) is not None:
        return made
    offered = {each.name: each for each in entry_points(group=GROUP)}
    if name not in offered:
        raise ValueError(f"unknown kind {name!r}; there are {', '.join(sorted({*_SHIPPED, *offered}))}")
    found: Callable[[Mapping[str, Any]], Hook] = offered[name].load()
    return found


def _faults(error: ValidationError) -> str:
    return "; ".join(": ".join(filter(None, (".".join(map(str, each["loc"])), each["msg"]))) for each in error.errors())
