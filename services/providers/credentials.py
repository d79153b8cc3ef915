"""A provider's secrets: read from the environment or from files, several keys of one provider in rotation."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from moa.common.v1.rates_pb2 import UpstreamRates
from services.catalogue import Provider
from services.common import scrub
from services.common.errors import ProviderNotConfigured
from services.providers.http.client import Outgoing

_MINUTE_S: Final = 60.0
REST_S: Final = 30.0
"""How long a key that was refused or limited is passed over while there are others."""

JSON_HEADERS: Final[Mapping[str, str]] = {
    "Content-Type": "application/json",
    "User-Agent": "moa",
    "Accept-Encoding": "identity",
}
"""Headers of a JSON request. Compression would only cost time: answers are short or already compressed."""


_NO_SECRETS: Final = frozenset({"tenant_id", "client_id", "identity_endpoint", "managed_identity"})
"""Credentials that say who or where, and prove nothing."""


class Authority(Protocol):
    """Puts a provider's credentials on a request."""

    async def headers(self, outgoing: Outgoing) -> Mapping[str, str]:
        """Return all headers of the request: its own and the credentials'."""
        ...

    def rest(self, headers: Mapping[str, str], seconds: float) -> bool:
        """Pass over the key that made `headers`, for a while: the provider refused or limited it.

        Tells whether there is another key that can be tried now.
        """
        ...


class Keys:
    """Keys in turns: the one with most left of its provider's limits, where that is known, else in rotation.

    A key that was set to rest is passed over while another is awake.
    """

    def __init__(self, keys: list[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._keys = keys
        self._until = [0.0] * len(keys)
        self._limits: dict[int, _Limit] = {}
        self._next = 0
        self._clock = clock

    def __len__(self) -> int:
        return len(self._keys)

    def take(self) -> int:
        """Return the index of the key whose turn it is; of keys that all rest, the one that wakes first."""
        count = len(self._keys)
        if count == 1:
            return 0
        now = self._clock()
        turns = [(self._next + step) % count for step in range(count)]
        awake = [index for index in turns if self._until[index] <= now]
        if not awake:
            index = min(range(count), key=self._until.__getitem__)
        elif not self._limits:
            index = awake[0]
        else:
            # Of several with as much left the one whose turn it is.
            index = max(awake, key=lambda index: self._left(index, now))
            if (limit := self._limits.get(index)) is not None:
                limit.left -= limit.a_request
        self._next = index + 1
        return index

    def learn(self, index: int, rates: UpstreamRates) -> None:
        """Take what the provider said of a key's limits."""
        parts = [1.0]
        if rates.HasField("requests_left"):
            parts.append(rates.requests_left / rates.requests_per_minute)
        if rates.HasField("tokens_left"):
            parts.append(rates.tokens_left / rates.tokens_per_minute)
        a_request = 1 / rates.requests_per_minute if rates.requests_per_minute else 0.0
        self._limits[index] = _Limit(min(parts), self._clock(), a_request)

    def _left(self, index: int, now: float) -> float:
        """Return what part of a key's limits is left, as far as is known: what was used comes back within a minute."""
        limit = self._limits.get(index)
        return 1.0 if limit is None else min(1.0, limit.left + (now - limit.at) / _MINUTE_S)

    def rest(self, index: int, seconds: float) -> bool:
        """Pass over a key for a while. Tells whether another one is awake."""
        now = self._clock()
        self._until[index] = now + seconds
        return any(until <= now for until in self._until)


@dataclass(slots=True)
class _Limit:
    """What is known of a key's limits."""

    left: float
    """What part was left at `at`, less what was asked since."""
    at: float
    a_request: float
    """What part one request is."""


class HeaderKeys:
    """Credentials that are a constant header, or none at all: what most providers take.

    Args:
        header: The header's name (`Authorization`); with no keys, nothing is sent.
        values: One header value a key.
        more: Headers that every request carries.
    """

    def __init__(self, header: str, values: list[str], more: Mapping[str, str]) -> None:
        self._header = header
        self._made: list[dict[str, str]] = [{**more, header: value} for value in values] or [dict(more)]
        self._keys = Keys(values or [""])
        self.has_several = len(self._keys) > 1
        """Whether it chooses among several keys."""

    async def headers(self, outgoing: Outgoing) -> Mapping[str, str]:
        """Return the request's headers with the key whose turn it is."""
        made = self._made[self._keys.take()]
        return {**made, **outgoing.headers} if outgoing.headers else made

    def rest(self, headers: Mapping[str, str], seconds: float) -> bool:
        """Pass over the key that made `headers`, for a while. Tells whether another one is awake."""
        index = self._of(headers)
        return index is not None and self._keys.rest(index, seconds)

    def learn(self, headers: Mapping[str, str], rates: UpstreamRates) -> None:
        """Take what the provider said of the limits of the key that made `headers`."""
        if (index := self._of(headers)) is not None:
            self._keys.learn(index, rates)

    def _of(self, headers: Mapping[str, str]) -> int | None:
        value = headers.get(self._header)
        return next((index for index, made in enumerate(self._made) if made.get(self._header) == value), None)


def bearers(keys: str, more: Mapping[str, str] = JSON_HEADERS) -> HeaderKeys:
    """Return what sends the keys in `one,two,three` as bearer tokens, or nothing where there are none."""
    return HeaderKeys("Authorization", [f"Bearer {key}" for key in keys_of(keys)], more)


def secret(provider: Provider, name: str, environment: Mapping[str, str]) -> str:
    """Return the secret `name` of a provider, from the variable that the catalogue names or the file `<variable>_FILE`.

    Raises ProviderNotConfigured when it is not set.
    """
    result = optional_secret(provider, name, environment)
    if not result:
        raise ProviderNotConfigured(f"provider {provider.id!r} has no credentials here")
    return result


def optional_secret(provider: Provider, name: str, environment: Mapping[str, str]) -> str:
    """Return the secret `name` of a provider, or the empty string when the catalogue names none or it is not set."""
    variable = provider.credentials.get(name)
    if not variable:
        return ""
    result = _value_of(provider, variable, environment)
    if name not in _NO_SECRETS:
        scrub.renewed(f"{provider.id} {variable}", *keys_of(result))
    return result


def _value_of(provider: Provider, variable: str, environment: Mapping[str, str]) -> str:
    file = environment.get(f"{variable}_FILE")
    if file:
        try:
            return Path(file).read_text().strip()
        except OSError as error:
            raise ProviderNotConfigured(f"provider {provider.id!r}: {variable}_FILE cannot be read") from error
    return environment.get(variable, "").strip()


def files_of(provider: Provider, environment: Mapping[str, str]) -> tuple[Path, ...]:
    """Return the files that hold a provider's secrets."""
    names = (environment.get(f"{variable}_FILE") for variable in provider.credentials.values())
    return tuple(Path(name) for name in names if name)


def keys_of(text: str) -> list[str]:
    """Return the keys in `one,two,three`."""
    return [key for key in (part.strip() for part in text.split(",")) if key]
