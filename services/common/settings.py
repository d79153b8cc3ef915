"""Settings that every process has, and how a process reads its own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TypeVar

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.common import scrub

S = TypeVar("S", bound="ServiceSettings")


class ServiceSettings(BaseSettings):
    """Settings common to all processes. Each comes from the environment variable `MOA_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix="MOA_", frozen=True, extra="ignore")

    service_token: SecretStr = Field(min_length=16)
    """The credential with which Moa's processes know each other."""
    catalogue: Path = Path("gateway/catalogue.yaml")
    """The catalogue file."""
    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$")
    """The least severe level that is logged."""
    metrics_host: str = "127.0.0.1"
    """Where `/metrics` is bound: loopback on one machine, the private network in containers."""
    drain_s: float = Field(default=10.0, ge=0)
    """How long running calls may go on after the process was asked to stop, in seconds."""


def read(kind: type[S]) -> S:
    """Read a process's settings from the environment; bad ones end the process with the variable's name.

    Its secrets are known from here on to what takes them out of errors, logs and traces.
    """
    try:
        found = kind()  # type: ignore[call-arg]  # the fields come from the environment
    except ValidationError as error:
        for problem in error.errors():
            name = "MOA_" + "_".join(str(part) for part in problem["loc"]).upper()
            print(f"bad setting {name}: {problem['msg']}", file=sys.stderr)
        raise SystemExit(2) from None
    values = (getattr(found, name) for name in kind.model_fields)
    scrub.know(*(value.get_secret_value() for value in values if isinstance(value, SecretStr)))
    return found
