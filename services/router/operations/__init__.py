"""What callers may ask for: one operation a module, which declares its `CALL`.

Nothing lists the modules. A new operation is a contract, a line of `services.common.operations`, its module here, and
its adapters.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, Final

from services.common.operations import CONTRACTS
from services.router.domain.operation import Call, Operation


def _calls() -> tuple[type[Call[Any, Any]], ...]:
    """Return every operation's requests, in the contracts' order. Raises LookupError where not each has its module."""
    modules = (import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__))
    calls: dict[str, type[Call[Any, Any]]] = {call.operation.name: call for call in (each.CALL for each in modules)}
    if odd := calls.keys() ^ CONTRACTS.keys():
        raise LookupError(f"no module here, or no line in services.common.operations: {', '.join(sorted(odd))}")
    return tuple(calls[name] for name in CONTRACTS)


CALLS: Final = _calls()
"""Every operation's requests."""
OPERATIONS: Final[Mapping[str, Operation[Any, Any]]] = {call.operation.name: call.operation for call in CALLS}
"""Every operation, by the name that catalogue rows write as `makes`."""
