"""Methods of a dialect, as modules of its package declare them: one operation's methods in one module, as `METHODS`.

Nothing lists such modules: what the package holds is served, described to OpenAPI, and called by its own names of
fields. A further operation in a dialect is its methods in the dialect's contract, and its module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import Any, Final

import grpc
from google.protobuf.descriptor import FileDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass

from services.common.dialects import BY_SERVICE, Dialect
from services.common.dialects.registrations import Method, Registration
from services.router.dialects.parts import Parts

_REGISTRATION: Final = "registration"
"""The module that asks for the others."""


@dataclass(frozen=True, kw_only=True)
class MethodSet:
    """Methods of a dialect that belong together.

    Args:
        servicer: Makes what serves them, of what the router has and the dialect with all its names of fields: an object
            with a coroutine of each method's name.
        methods: By name, what the contract does not tell of each.
        makes: Which operations' models they ask, by the names that catalogue rows write as `makes`.
        fields: The dialect's names of the fields of those operations' requests, as `Dialect.fields` has them.
    """

    servicer: Callable[[Parts, Dialect], object]
    methods: Mapping[str, Method]
    makes: tuple[str, ...] = ()
    fields: Mapping[str, str] = field(default_factory=dict)


def method_sets(package: ModuleType) -> list[MethodSet]:
    """Return the methods that modules of a dialect's package declare."""
    names = sorted(module.name for module in iter_modules(package.__path__) if module.name != _REGISTRATION)
    modules = (import_module(f"{package.__name__}.{name}") for name in names)
    return [module.METHODS for module in modules if hasattr(module, "METHODS")]


def registered(contract: FileDescriptor, package: ModuleType) -> Registration[Parts]:
    """Return the registration of a dialect with one gRPC service, whose methods modules of a package declare.

    Raises LookupError where a method of the contract is declared by none or by several, a declared one is not in the
    contract, or a field has two names.
    """
    (service,) = contract.services_by_name.values()
    sets = method_sets(package)
    owners = _owners(service, sets)
    dialect = replace(BY_SERVICE[service.full_name], fields=_fields(service.full_name, sets))

    def serve(server: grpc.aio.Server, parts: Parts) -> None:
        servicers = {id(each): each.servicer(parts, dialect) for each in sets}
        handlers = {name: _handler(service.methods_by_name[name], servicers[id(of)]) for name, of in owners.items()}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, handlers),))

    methods = {f"{service.name}.{name}": of.methods[name] for name, of in owners.items()}
    return Registration(contract=contract, serve=serve, methods=methods, fields=dialect.fields)


def _owners(service: ServiceDescriptor, sets: Iterable[MethodSet]) -> Mapping[str, MethodSet]:
    owners: dict[str, MethodSet] = {}
    for each in sets:
        for name in each.methods:
            if name not in service.methods_by_name:
                raise LookupError(f"{service.full_name} has no method {name}")
            if name in owners:
                raise LookupError(f"{service.full_name}.{name} is declared by two modules")
            owners[name] = each
    if missing := service.methods_by_name.keys() - owners.keys():
        raise LookupError(f"no module declares {service.full_name}.{min(missing)}")
    return owners


def _fields(service: str, sets: Iterable[MethodSet]) -> Mapping[str, str]:
    fields = dict(BY_SERVICE[service].fields)
    for each in sets:
        for name, word in each.fields.items():
            if fields.setdefault(name, word) != word:
                raise LookupError(f"{service} calls the field {name} both {fields[name]} and {word}")
    return fields


def _handler(method: MethodDescriptor, servicer: object) -> grpc.RpcMethodHandler[Any, Any]:
    serve = getattr(servicer, method.name)
    read, write = GetMessageClass(method.input_type).FromString, GetMessageClass(method.output_type).SerializeToString
    if method.server_streaming:
        return grpc.unary_stream_rpc_method_handler(serve, read, write)
    return grpc.unary_unary_rpc_method_handler(serve, read, write)
