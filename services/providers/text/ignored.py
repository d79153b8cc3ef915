"""What of a request has no effect at the model that answers it: told to the caller, or refused where that is strict."""

from __future__ import annotations

from collections.abc import Iterable

from moa.text.v1.text_service_pb2 import GenerateTextRequest
from services.common.errors import Unsupported


class Ignored:
    """Gathers the names of fields that only tune or hint and that a model, or its provider, does not take.

    Args:
        strict: Whether such fields are refused.
    """

    __slots__ = ("_names", "_strict")

    def __init__(self, *, strict: bool = False) -> None:
        self._strict = strict
        self._names: dict[str, None] = {}

    @classmethod
    def of(cls, request: GenerateTextRequest) -> Ignored:
        """Return one that follows the request's wish."""
        return cls(strict=request.strict)

    def add(self, name: str, why: str) -> None:
        """Note a field without effect. Raises Unsupported where the request is strict."""
        if self._strict:
            raise Unsupported(f"{why}, and this request ignores nothing (strict)", param=name)
        self._names[name] = None

    def nearest(self, name: str, value: object, why: str) -> None:
        """Note a field of which the nearest value is used. Raises as `add`."""
        if self._strict:
            raise Unsupported(f"{why}, and this request ignores nothing (strict)", param=name)
        self._names[f"{name}={value}"] = None

    def extend(self, names: Iterable[str]) -> None:
        """Note fields that nobody here knows. Raises as `add`."""
        for name in names:
            self.add(name, f"{name} has no effect on this model")

    @property
    def names(self) -> list[str]:
        """Their names, in the order in which they were found."""
        return list(self._names)
