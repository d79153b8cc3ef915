"""What the task process is told by its environment."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr, field_validator

from services.common.rpc.target import Addresses
from services.common.settings import HOSTS, DatabaseUrls, FactsSettings, long_secrets
from services.common.store import StoreSettings


class TaskSettings(StoreSettings, FactsSettings, DatabaseUrls):
    """Settings of the task service and of its workers."""

    listen: str = "127.0.0.1:8106"
    """Where it serves, `host:port`."""
    auth_address: Addresses = "127.0.0.1:8102"
    """The auth service."""
    router_address: Addresses = "127.0.0.1:8101"
    """The router, which does the work of image tasks."""
    text_address: Addresses = "127.0.0.1:8103"
    """The text service, which asks providers for batches."""
    desk_address: Addresses = "127.0.0.1:8107"
    """The desk service."""
    desk_fd: int | None = Field(default=None, ge=3)
    """An open file into which one byte is written before the first call of the desk service: whoever reads it starts
    that service then; none: it runs."""

    desk_model: str = "moa-tiny-image"
    """The image model that desks are made with."""
    egress_allow: str = Field(default="", pattern=HOSTS)
    """Hosts beside public https ones that callers' URLs may name, parted by commas (`127.0.0.1:9000`, `localhost`)."""

    task_workers: int = Field(default=4, ge=0, le=1000)
    """Tasks that this process runs at once; 0: it answers only."""
    task_per_account: int = Field(default=2, ge=1)
    """Tasks of one account that run at once, over all processes."""
    task_waiting_per_account: int = Field(default=1000, ge=1)
    """Tasks of one account that may wait."""
    task_lease_s: float = Field(default=15.0, gt=0)
    """How long a worker that fell silent keeps a task before another takes it."""
    task_deadline_s: float = Field(default=3600.0, gt=0, le=86400)
    """How long a task may take, waiting included, unless its caller says otherwise."""
    task_attempts: int = Field(default=8, ge=1)
    """How often a task is taken up before it fails."""
    task_retry_s: float = Field(default=1.0, gt=0)
    """Pause before the first retry; each later one is twice as long, at most a minute."""
    task_keep_s: float = Field(default=7 * 86400.0, gt=0)
    """How long an ended task and its outputs are kept."""
    batch_workers: int = Field(default=4, ge=0, le=1000)
    """Requests of batches of messages that this process has answered at once; 0: none."""
    batch_per_account: int = Field(default=4, ge=1)
    """Requests of one account's batches that are answered at once, over all processes."""
    batch_lease_s: float = Field(default=60.0, gt=0)
    """How long a worker that fell silent keeps such a request before another takes it."""
    provider_batches: bool = True
    """Whether batches go to the providers' batch APIs, by the text service; else each request is asked for alone."""
    batch_keep_s: float = Field(default=29 * 86400.0, gt=0)
    """How long a batch that has ended is kept with its results."""
    batch_secrets: SecretStr = SecretStr("")
    """What batches are encrypted with: secrets of 16 characters or more, parted by commas. The first encrypts, and each
    of them decrypts; empty: the service credential does both."""
    task_provenance: bool = False
    """Whether outputs carry how they were made, inside the file."""
    task_c2pa_cert: Path | None = None
    """A PEM file with the certificate chain that signs that as C2PA content credentials; none: it is not signed."""
    task_c2pa_key: Path | None = None
    """A PEM file with the certificate's private key."""
    task_c2pa_timestamp_url: str = ""
    """A time-stamping authority for those signatures; empty: none."""

    webhook_secret: SecretStr = SecretStr("")
    """What accounts' webhook secrets are derived from; empty: from the service credential."""
    webhook_pauses_s: tuple[float, ...] = (5, 300, 1800, 7200, 18000, 36000, 36000)
    """Pauses between a delivery's attempts; after the last it is given up."""
    webhook_timeout_s: float = Field(default=15.0, gt=0)
    """How long a receiver may take to answer."""

    @field_validator("batch_secrets")
    @classmethod
    def _are_long(cls, value: SecretStr) -> SecretStr:
        """Raise ValueError for a secret that can be guessed."""
        return long_secrets(value)
