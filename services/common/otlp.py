"""Where traces and logged requests go, read from the variables that OpenTelemetry itself names."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

_PORT: Final = 4317
_DELAY_MS: Final = 5000
_ALL: Final = {"", "always_on", "parentbased_always_on"}
_NONE: Final = {"always_off", "parentbased_always_off"}
_SOME: Final = {"traceidratio", "parentbased_traceidratio"}


class BadTracing(ValueError):
    """A variable that says what cannot be done. Its words name it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Collector:
    """An OTLP collector that is spoken to by gRPC, and how much it is told."""

    host: str
    port: int
    trusted: Path | None
    """Certificates, PEM, by which it is known; None: it is spoken to without TLS."""
    headers: tuple[tuple[str, str], ...]
    """Sent with every export; they may hold a secret."""
    share: float
    """Share of the traces that begin here, 0 to 1."""
    delay_ms: int = _DELAY_MS
    """How long spans are gathered before they are told."""

    @property
    def address(self) -> str:
        """`host:port`."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def read(environ: Mapping[str, str]) -> Collector | None:
    """Return the collector of traces that the environment names; None where they are off. Raises BadTracing."""
    exporter = environ.get("OTEL_TRACES_EXPORTER", "")
    if not _named(environ, "TRACES") or exporter == "none":
        return None
    if exporter not in ("", "otlp"):
        raise BadTracing("OTEL_TRACES_EXPORTER: otlp or none")
    return _read(environ, "TRACES", share=_share(environ), delay_ms=_delay_ms(environ))


def read_logs(environ: Mapping[str, str]) -> Collector | None:
    """Return the collector of logged requests that the environment names; None where they are off. Raises BadTracing.

    They are off unless `OTEL_LOGS_EXPORTER` is `otlp`: whoever named a collector for traces asked for no more.
    """
    exporter = environ.get("OTEL_LOGS_EXPORTER", "")
    if exporter in ("", "none"):
        return None
    if exporter != "otlp":
        raise BadTracing("OTEL_LOGS_EXPORTER: otlp or none")
    return _read(environ, "LOGS", share=1.0, delay_ms=_DELAY_MS) if _named(environ, "LOGS") else None


def _named(environ: Mapping[str, str], signal: str) -> bool:
    """Return whether a collector is named for a signal."""
    return bool(_first(environ, _names(signal, "ENDPOINT"))[1]) and (
        environ.get("OTEL_SDK_DISABLED", "").lower() != "true"
    )


def _read(environ: Mapping[str, str], signal: str, *, share: float, delay_ms: int) -> Collector:
    name, protocol = _first(environ, _names(signal, "PROTOCOL"))
    if protocol not in ("", "grpc"):
        raise BadTracing(f"{name}: only grpc is spoken here")
    host, port, encrypted = _target(*_first(environ, _names(signal, "ENDPOINT")))
    return Collector(
        host=host,
        port=port,
        trusted=_trusted(environ, signal) if encrypted else None,
        headers=_headers(environ, signal),
        share=share,
        delay_ms=delay_ms,
    )


def _names(signal: str, what: str) -> tuple[str, str]:
    """Return the variables that say something of a signal, its own first."""
    return f"OTEL_EXPORTER_OTLP_{signal}_{what}", f"OTEL_EXPORTER_OTLP_{what}"


def _first(environ: Mapping[str, str], names: tuple[str, str]) -> tuple[str, str]:
    """Return the first variable that is set, and its value; an empty one is an unset one."""
    for name in names:
        if environ.get(name):
            return name, environ[name]
    return names[-1], ""


def _target(name: str, endpoint: str) -> tuple[str, int, bool]:
    try:
        parts = urlsplit(endpoint)
        host, port = parts.hostname, parts.port or _PORT
    except ValueError:
        host, port = None, 0
    if not host or parts.scheme not in ("http", "https") or parts.path not in ("", "/") or parts.query:
        raise BadTracing(f"{name}: http://HOST:{_PORT}, or https:// for TLS, without a path")
    return host, port, parts.scheme == "https"


def _trusted(environ: Mapping[str, str], signal: str) -> Path:
    name, given = _first(environ, _names(signal, "CERTIFICATE"))
    result = Path(given or ssl.get_default_verify_paths().cafile or "")
    if not result.is_file():
        raise BadTracing(f"{name}: {'no such file' if given else 'the system has no certificates; name a file'}")
    return result.resolve()


def _headers(environ: Mapping[str, str], signal: str) -> tuple[tuple[str, str], ...]:
    name, given = _first(environ, _names(signal, "HEADERS"))
    results = []
    for part in filter(None, (part.strip() for part in given.split(","))):
        key, sign, value = part.partition("=")
        if not sign or not key.strip():
            raise BadTracing(f"{name}: name=value,name=value")
        results.append((unquote(key.strip()).lower(), unquote(value.strip())))
    return tuple(results)


def _share(environ: Mapping[str, str]) -> float:
    sampler = environ.get("OTEL_TRACES_SAMPLER", "")
    if sampler in _ALL:
        return 1.0
    if sampler in _NONE:
        return 0.0
    if sampler not in _SOME:
        raise BadTracing(f"OTEL_TRACES_SAMPLER: one of {', '.join(sorted((_ALL - {''}) | _NONE | _SOME))}")
    try:
        share = float(environ.get("OTEL_TRACES_SAMPLER_ARG") or 1.0)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise BadTracing("OTEL_TRACES_SAMPLER_ARG: a number from 0 to 1")
    return share


def _delay_ms(environ: Mapping[str, str]) -> int:
    given = environ.get("OTEL_BSP_SCHEDULE_DELAY", "")
    if not given:
        return _DELAY_MS
    if not (given.isascii() and given.isdigit() and 0 < int(given) <= 3_600_000):
        raise BadTracing("OTEL_BSP_SCHEDULE_DELAY: milliseconds, from 1 to 3600000")
    return int(given)
