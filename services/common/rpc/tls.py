"""TLS between Moa's processes, as far as a process's settings turn it on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from services.common.settings import ServiceSettings

if TYPE_CHECKING:
    from services.common.rpc.certificates import Certificates


@dataclass(frozen=True, kw_only=True)
class Tls:
    """How a process serves and calls over TLS."""

    certificates: Certificates
    callers: tuple[str, ...]
    """The processes that may call it."""
    health_listen: str = ""
    """Where its health is asked without TLS; empty: nowhere."""

    @property
    def names(self) -> frozenset[bytes]:
        """Return the names of certificates by which its callers are known."""
        return frozenset(self.certificates.name_of(caller).encode() for caller in self.callers)

    def called_by(self, *callers: str) -> Tls:
        """Return the same for another server of the process, which others may call."""
        return replace(self, callers=callers, health_listen="")


def tls_of(config: ServiceSettings) -> Tls | None:
    """Return what the settings say; None: TLS is off. Bad files end the process with the variable's name."""
    if config.service_tls_dir is None:
        return None
    # The library takes longer to load than all else of a small service.
    from services.common.rpc.certificates import BadCertificate, Certificates

    callers = tuple(caller for each in config.service_callers.split(",") if (caller := each.strip()))
    if not callers:
        raise SystemExit("bad setting MOA_SERVICE_CALLERS: with MOA_SERVICE_TLS_DIR it names who may call this process")
    try:
        certificates = Certificates(config.service_tls_dir, name=config.service_tls_name)
    except BadCertificate as error:
        raise SystemExit(f"bad setting MOA_SERVICE_TLS_DIR: {error}") from None
    return Tls(certificates=certificates, callers=callers, health_listen=config.health_listen)
