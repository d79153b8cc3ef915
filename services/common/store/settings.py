"""Settings of a process that stores objects or links to them."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator

from services.common.settings import ServiceSettings
from services.common.store.links import Links
from services.common.store.model import Store


class StoreSettings(ServiceSettings):
    """What a process with objects adds to its settings, as a base class. Processes that share objects share these."""

    store_bucket: str = ""
    """The S3 bucket; empty: a folder of this machine."""
    store_endpoint: str = ""
    """Base URL of an S3-compatible server; empty: Amazon's."""
    store_region: str = ""
    """The bucket's region; empty: as botocore is configured."""
    store_dir: Path = Path(".moa/objects")
    """The folder, when there is no bucket."""
    public_url: str = "http://127.0.0.1:8080"
    """Where callers reach this gateway; links begin with it."""
    link_secret: SecretStr | None = Field(default=None, min_length=16)
    """Signs links; none: derived from the service token."""
    link_ttl_s: int = Field(default=86_400, gt=0)
    """How long a link lasts, in seconds."""

    @field_validator("public_url")
    @classmethod
    def _absolute(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment:
            raise ValueError("must be an absolute http or https URL")
        return value.rstrip("/")


def store_of(settings: StoreSettings) -> Store:
    """Open the store that the settings name."""
    if settings.store_bucket:
        # boto3 takes a third of the time in which a service that has no bucket starts.
        from services.common.store.s3 import S3Store

        return S3Store(settings.store_bucket, endpoint=settings.store_endpoint, region=settings.store_region)
    # Who keeps objects counts those that fail; every process loads these settings.
    from services.common.store.folder import FolderStore

    return FolderStore(settings.store_dir)


def identity_of(settings: StoreSettings) -> str:
    """Return what tells the store that the settings name from others: the same on each host that sees the same objects.

    A folder keeps it in a file; nothing where that cannot be written.
    """
    if settings.store_bucket:
        place = f"{settings.store_endpoint}/{settings.store_bucket}".encode()
        return hashlib.sha256(place).hexdigest()[:16]
    file = settings.store_dir / ".identity"
    try:
        settings.store_dir.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError), file.open("x") as made:
            made.write(secrets.token_hex(8))
        return file.read_text()[:16]
    except OSError:
        return ""


def links_of(settings: StoreSettings) -> Links:
    """Return the maker of links that the settings name."""
    if settings.link_secret is not None:
        secret = settings.link_secret.get_secret_value()
    else:
        token = settings.service_token.get_secret_value().encode()
        secret = hmac.new(token, b"moa link secret", hashlib.sha256).hexdigest()
    return Links(settings.public_url, secret, ttl_s=settings.link_ttl_s)
