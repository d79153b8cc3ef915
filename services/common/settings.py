"""Settings that every process has, and how a process reads its own."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeVar, get_origin

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from services.common import low_priority, scrub

S = TypeVar("S", bound="ServiceSettings")

LEAST_SECRET_CHARS: Final = 16
AUTHORITIES: Final = "SSL_CERT_FILE"
"""The variable by which TLS libraries know whom to believe."""
LISTED: Final = r"^[\s,]*([^\s,]+(\s*,[\s,]*[^\s,]+)*)?[\s,]*$"
"""The pattern of a text of entries, parted by commas, none of which has a blank within."""
_HOST: Final = r"(\[[0-9A-Fa-f:.]+\]|[^\s,/:@\[\]]+)(:[0-9]{1,5})?"
HOSTS: Final = rf"^[\s,]*({_HOST}(\s*,[\s,]*{_HOST})*)?[\s,]*$"
"""Likewise of hosts, with or without a port: no URLs."""


class Settings(BaseModel):
    """Settings that are not given come from the environment variables `MOA_<NAME>`; a sequence is written as JSON."""

    model_config = ConfigDict(frozen=True, extra="ignore", validate_default=True)

    def __init__(self, **given: Any) -> None:
        read = ((name, _from_environment(name, field.annotation)) for name, field in type(self).model_fields.items())
        super().__init__(**{**{name: value for name, value in read if value is not None}, **given})


def _from_environment(name: str, kind: Any) -> Any:
    """Return what the environment says of a setting; None where it says nothing."""
    value = os.environ.get(f"MOA_{name}".upper())
    if value is not None and get_origin(kind) is tuple and value.startswith("["):
        try:
            return json.loads(value)
        except ValueError:
            return value  # of the wrong type: the validation names the variable
    return value


class ServiceSettings(Settings):
    """Settings common to all processes."""

    service_token: SecretStr = Field(min_length=16)
    """The credential with which Moa's processes know each other; secrets that are not set are derived from it."""
    service_token_file: Path | None = None
    """A file of credentials in its place, one a line, for a change without a restart: the first is sent, each is
    accepted, and a change is read within a second. Secrets are derived from `service_token` all the same."""
    catalogue: Path = Path("gateway/catalogue.yaml")
    """The catalogue file."""
    variables_set: str = ""
    """Names of variables that are set for the services that ask providers, parted by commas. Who only has to know which
    providers there are is told these, and no credential."""
    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$")
    """The least severe level that is logged."""
    metrics_port: int = Field(default=0, ge=0, le=65535)
    """Where `/metrics` is answered; 0: nowhere."""
    metrics_fd: int | None = Field(default=None, ge=3)
    """A socket bound to that port, inherited from who started this process; None: this process binds one."""
    metrics_host: str = "127.0.0.1"
    """Where `/metrics` is bound: loopback on one machine, the private network in containers."""
    yields: int = Field(default=0, ge=0, le=19)
    """How much lower the process's priority is than that of others, as a nice value."""
    drain_s: float = Field(default=10.0, ge=0)
    """How long running calls may go on after the process was asked to stop, in seconds."""
    connection_age_s: float = Field(default=0.0, ge=0)
    """After how long other processes are asked to connect anew, by when they look up who serves: where replicas come
    and go. What runs ends where it began. 0: never."""
    service_tls_dir: Path | None = None
    """A folder with `tls.crt`, `tls.key` and `ca.crt`: with it processes serve and call each other over TLS alone, each
    side shows its certificate, and files that change are read without a restart. None: TLS between processes is off."""
    service_tls_name: str = Field(default="{}.moa.internal", pattern=r"^[a-z0-9.-]*\{\}[a-z0-9.-]*$")
    """The DNS name that a process's certificate is for, with `{}` in place of the process's name (`router`)."""
    service_callers: str = ""
    """Which processes may call this one, parted by commas; asked with `service_tls_dir` alone."""
    health_listen: str = ""
    """Where health is asked without TLS while `service_tls_dir` is set, `host:port`; empty: nowhere."""


def postgres_url(value: SecretStr) -> SecretStr:
    """Return an address of PostgreSQL, or none; raise ValueError, which does not tell it, for what is neither."""
    # Half of the processes have no database.
    from psycopg import Error, conninfo

    try:
        hosts = str(conninfo.conninfo_to_dict(value.get_secret_value()).get("host", ""))
    except Error:
        hosts = "@"
    if "@" in hosts:
        # libpq's own words hold the password.
        raise ValueError(
            "it is no address of PostgreSQL: postgresql://user:password@host:5432/database, with each @ : / % of the "
            "password written as %40 %3A %2F %25"
        )
    return value


class DatabaseUrls(ServiceSettings):
    """Where a process finds its database."""

    database_url: SecretStr = Field(min_length=1)
    """`postgresql://…`, as libpq takes it. A pooler's in transaction mode (PgBouncer), where the next one is set."""
    database_session_url: SecretStr = SecretStr("")
    """The same database without a pooler, for what needs a session of its own: news of what others committed (LISTEN),
    audits and migrations; empty: the one above."""

    @field_validator("database_url", "database_session_url")
    @classmethod
    def _is_postgres(cls, value: SecretStr) -> SecretStr:
        return postgres_url(value)

    @property
    def session_url(self) -> str:
        """The database's own address."""
        return (self.database_session_url.get_secret_value() or self.database_url.get_secret_value()).strip()

    @property
    def is_pooled(self) -> bool:
        """Whether each transaction may run in another of a pooler's sessions."""
        return bool(self.database_session_url.get_secret_value())


class CatalogueSettings(ServiceSettings):
    """Settings of processes that cannot serve without a catalogue."""

    catalogue_kept: Path | None = None
    """The folder where the catalogue is kept as it was last read without a fault, for a start at which the file has
    one; None: nowhere."""


class FactsSettings(CatalogueSettings):
    """Settings of processes that go by what is known of providers' models."""

    servers: str = ""
    """Servers of one's own, beside the catalogue file's (docs/models.md); the catalogue's reader reads them itself."""
    facts_url: str = Field(default="", pattern=r"^(https?://[^\s]+)?$")
    """Where newer facts of models are (docs/models.md); empty: those that ship are all."""
    facts_every_s: float = Field(default=3600.0, ge=1)
    """How often they are asked for."""
    facts_dir: Path | None = None
    """Where they are kept for the next start; None: nowhere, the last good ones end with the process."""


def secrets_in(value: SecretStr) -> list[str]:
    """Return the secrets that a setting lists, parted by commas, without those that are empty."""
    return [secret for each in value.get_secret_value().split(",") if (secret := each.strip())]


def long_secrets(value: SecretStr) -> SecretStr:
    """Return a setting that lists secrets. Raises ValueError for one that can be guessed."""
    if any(len(secret) < LEAST_SECRET_CHARS for secret in secrets_in(value)):
        raise ValueError(f"each secret has {LEAST_SECRET_CHARS} characters or more")
    return value


def providers_environment(config: ServiceSettings) -> Mapping[str, str]:
    """Return by what a process that asks no provider decides which are configured: its own variables, and names."""
    named = dict.fromkeys(filter(None, config.variables_set.split(",")), "set")
    return {**named, **os.environ}


def _check_authorities(named: str) -> None:
    """End the process where `SSL_CERT_FILE` names no certificates: OpenSSL would go without any, in silence."""
    try:
        if not named or b"-----BEGIN" in Path(named).read_bytes():
            return
        why = "it holds no certificate (PEM)"
    except OSError as error:
        why = error.strerror or "it cannot be read"
    print(f"bad setting {AUTHORITIES}: {named}: {why}", file=sys.stderr)
    raise SystemExit(2)


def read(kind: type[S]) -> S:
    """Read a process's settings from the environment; bad ones end the process with the variable's name.

    The process has its priority from here on, and its secrets are known to what takes them out of errors, logs and
    traces.
    """
    _check_authorities(os.environ.get(AUTHORITIES, ""))
    try:
        result = kind()  # type: ignore[call-arg]  # the fields come from the environment
    except ValidationError as error:
        for problem in error.errors():
            name = "MOA_" + "_".join(str(part) for part in problem["loc"]).upper()
            print(f"bad setting {name}: {problem['msg']}", file=sys.stderr)
        raise SystemExit(2) from None
    if result.yields:
        low_priority.yield_to_others(result.yields)
    values = (getattr(result, name) for name in kind.model_fields)
    scrub.know(*(value.get_secret_value() for value in values if isinstance(value, SecretStr)))
    return result
