"""By what Moa's processes know each other over TLS: a certificate, its key, and authorities. Changes are read."""

from __future__ import annotations

import datetime
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from services.common import logs
from services.common.metrics import CERTIFICATE_EXPIRES

CHAIN, KEY, AUTHORITIES = "tls.crt", "tls.key", "ca.crt"
"""What the folder holds, by the names that Kubernetes and cert-manager give."""
LOOK_S: Final = 1.0
"""How often the files are looked at, at most; nobody looks while nobody calls, connects or reads metrics."""
SETTLE_S: Final = 0.2
"""For how long a thread that must run for 50 µs may have no core, on a machine where all are in use."""
_TOLD_S: Final = 60.0
"""How often the log is told that a certificate has expired."""

_log = logs.get("certificates")


class BadCertificate(Exception):
    """The files are not there or do not belong together. The message says which and why."""


@dataclass(frozen=True, kw_only=True)
class Held:
    """A certificate as it was read."""

    chain: bytes
    key: bytes
    authorities: bytes
    names: tuple[str, ...]
    """The DNS names that it is for."""
    until: datetime.datetime
    """When it expires."""


class Certificates:
    """The certificate of this process.

    Args:
        folder: Where `tls.crt`, `tls.key` and `ca.crt` are.
        name: What a process's certificate is for, with `{}` in place of the process's name.
        clock: Monotonic seconds.
        now: The time.
        sleep: Waits for so many seconds.

    Raises BadCertificate.
    """

    def __init__(
        self,
        folder: Path,
        *,
        name: str = "{}",
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._folder = folder
        self._name = name
        self._clock = clock
        self._now = now
        self._sleep = sleep
        self._lock = threading.Lock()
        self._stamp = _stamp(folder)
        self._looked_at = clock()
        self._told_at = float("-inf")
        self._held = read(folder)
        # Connections may stand for weeks, and only handshakes would look at the files.
        CERTIFICATE_EXPIRES.set_function(lambda: self.held(looks=False).until.timestamp())
        self._tell_read()

    def name_of(self, process: str) -> str:
        """Return what a process's certificate must be for."""
        return self._name.format(process)

    def held(self, *, looks: bool = True) -> Held:
        """Return the certificate, as the files say now; where they are bad, the one before.

        `looks` tells whether they are looked at however lately they were.
        """
        with self._lock:
            at = self._clock()
            if looks or at - self._looked_at >= LOOK_S:
                self._looked_at = at
                self._look()
            if self._held.until <= self._now() and at - self._told_at >= _TOLD_S:
                self._told_at = at
                _log.error("certificate.expired", names=list(self._held.names), until=self._held.until.isoformat())
            return self._held

    def _look(self) -> None:
        stamp = _stamp(self._folder)
        if stamp == self._stamp:
            return
        try:
            held = read(self._folder)
        except BadCertificate as error:
            # The files may be replaced one by one: they are read again with the next change.
            _log.error("certificate.refused", why=str(error))
        else:
            self._held = held
            self._tell_read()
        self._stamp = stamp

    def _tell_read(self) -> None:
        _log.info("certificate.read", names=list(self._held.names), until=self._held.until.isoformat())

    def server_credentials(self) -> grpc.ServerCredentials:
        """Return what a server shows, as it is at each handshake; clients must show one, too."""
        given = self.held()

        def changed() -> grpc.ServerCertificateConfiguration | None:
            nonlocal given
            held = self.held()
            if held is given:
                return None
            # gRPC frees what it made of the certificate before while other threads, which were told of no change, may
            # be about to take hold of it: signal 11 (grpc/grpc#36693). Meanwhile gRPC lets no further one in here.
            self._sleep(SETTLE_S)
            given = held
            return _configuration(held)

        # None says that there is no change; gRPC's types leave it out.
        return grpc.dynamic_ssl_server_credentials(_configuration(given), cast(Any, changed), True)


def _configuration(held: Held) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(held.key, held.chain)], held.authorities)


def credentials_of(held: Held) -> grpc.ChannelCredentials:
    """Return what a client shows, and whom it trusts."""
    return grpc.ssl_channel_credentials(held.authorities, held.key, held.chain)


def _stamp(folder: Path) -> tuple[tuple[int, int, int] | None, ...]:
    return tuple(_stamp_of(folder / name) for name in (CHAIN, KEY, AUTHORITIES))


def _stamp_of(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_ino, found.st_mtime_ns, found.st_size)


def read(folder: Path) -> Held:
    """Return the certificate in a folder. Raises BadCertificate."""
    try:
        chain, key, authorities = ((folder / name).read_bytes() for name in (CHAIN, KEY, AUTHORITIES))
    except OSError as error:
        raise BadCertificate(f"{error.filename}: {error.strerror}") from None
    first = _certificates(folder / CHAIN, chain)[0]
    _certificates(folder / AUTHORITIES, authorities)
    try:
        private = load_pem_private_key(key, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise BadCertificate(f"{folder / KEY} is no private key in PEM without a password") from None
    if private.public_key() != first.public_key():
        raise BadCertificate(f"{folder / KEY} is not the key of {folder / CHAIN}")
    try:
        named = first.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        raise BadCertificate(f"{folder / CHAIN} is for no name") from None
    names = tuple(named.get_values_for_type(x509.DNSName))
    if not names:
        raise BadCertificate(f"{folder / CHAIN} is for no DNS name")
    return Held(chain=chain, key=key, authorities=authorities, names=names, until=first.not_valid_after_utc)


def _certificates(path: Path, content: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError:
        raise BadCertificate(f"{path} has no certificate in PEM") from None
