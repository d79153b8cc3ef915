"""Whether rules permit a request: the one meaning of a rule, for auth and for whoever caches its grants."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from moa.quota.v1 import quota_pb2
from services.common.catalogue.model import matches


def permitted(
    rules: Sequence[quota_pb2.Rule],
    scopes: Sequence[quota_pb2.Rule],
    operation: quota_pb2.Operation.ValueType,
    provider: str,
    model: str,
) -> bool:
    """Tell whether a rule of the account matches, and one of the key's scopes where it has any.

    An unspecified operation and an empty provider or model ask for nothing particular: any rule's will do.
    """
    return _any(rules, operation, provider, model) and (not scopes or _any(scopes, operation, provider, model))


def _any(rules: Iterable[quota_pb2.Rule], operation: quota_pb2.Operation.ValueType, provider: str, model: str) -> bool:
    return any(
        (not operation or not rule.operations or operation in rule.operations)
        and (not provider or matches(rule.provider or "*", provider))
        and (not model or matches(rule.model or "*", model))
        for rule in rules
    )
