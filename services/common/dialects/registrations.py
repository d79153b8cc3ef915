"""What a service that answers in a dialect registers of it: its servicer, and what OpenAPI tells of its methods.

It stands as `REGISTRATION` in the module `registration` of the dialect's package, which is named as the dialect is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import Any, Final, Generic, TypeVar

import grpc
from google.protobuf.descriptor import FileDescriptor

from services.common.dialects import BY_SERVICE, DIALECTS, Dialect

Parts = TypeVar("Parts")
"""What a service has for the servicers of its dialects."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """What the contract of a method whose bodies are raw does not tell.

    Args:
        reads: The model of its request's body; None where it takes none, or one that is typed in the contract.
        answers: The shape of its answer, which is rendered as plain objects; None for any object.
        streams: Whether it can answer with server-sent events.
        takes_form: Whether it also takes a multipart form of the same fields, with `image` and `mask` as files.
        creates_task: Whether it makes a task.
        is_paid: Whether it is paid for, where it takes a body.
        needs_key: Whether its caller needs a key.
        degrades: Whether it answers 503, with the same body, when a part is down.
    """

    reads: Any = None
    answers: Any = None
    streams: bool = False
    takes_form: bool = False
    creates_task: bool = False
    is_paid: bool = True
    needs_key: bool = True
    degrades: bool = False


@dataclass(frozen=True, kw_only=True)
class Registration(Generic[Parts]):
    """A dialect in the service that answers in it.

    Args:
        contract: The file of its gRPC services, all of which are served.
        serve: Adds its servicers to a server, made of what the service has for them.
        methods: By service and method (`OpenAIService.CreateImage`).
        fields: The dialect's names of fields, those that its methods here declare with those of the registry.
    """

    contract: FileDescriptor
    serve: Callable[[grpc.aio.Server, Parts], None]
    methods: Mapping[str, Method] = field(default_factory=dict)
    fields: Mapping[str, str] = field(default_factory=dict)

    @property
    def dialects(self) -> Mapping[str, Dialect]:
        """Its services' dialects with all names of fields, by the services' full names."""
        return {
            name: replace(dialect, fields={**dialect.fields, **self.fields})
            for name in self.services
            if (dialect := BY_SERVICE.get(name)) is not None
        }

    @property
    def services(self) -> list[str]:
        """The full names of its gRPC services."""
        return [service.full_name for service in self.contract.services_by_name.values()]

    def method(self, service: str, method: str) -> Method:
        """Return what is told of a method, by the names of its service and itself."""
        return self.methods.get(f"{service}.{method}", _PLAIN)


_PLAIN: Final = Method()

Host = TypeVar("Host", bound=Registration[Any])


def registrations(package: ModuleType, kind: type[Host]) -> list[Host]:
    """Return what the packages of a service's dialects register, in the registry's order.

    Raises LookupError for a package that is named as no registered dialect, and TypeError for one that registers
    something else than `kind`.
    """
    packages = {module.name for module in iter_modules(package.__path__) if module.ispkg}
    if unknown := packages - DIALECTS.keys():
        raise LookupError(f"not in services.common.dialects: {', '.join(sorted(unknown))}")
    results = []
    for name in DIALECTS:
        if name in packages:
            registration = import_module(f"{package.__name__}.{name}.registration").REGISTRATION
            if not isinstance(registration, kind):
                raise TypeError(f"{package.__name__}.{name} registers no {kind.__name__}")
            results.append(registration)
    return results
