"""What the auth process is told by its environment."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from services.common.content_sealing import ContentKeys
from services.common.settings import HOSTS, LISTED, DatabaseUrls, long_secrets, postgres_url

_SMTP_URL: Final = re.compile(r"(smtp|smtps|smtp\+starttls)://([^/@]*@)?[^/@:]+(:[0-9]{1,5})?/?$")
_LOOPBACK: Final = re.compile(r"localhost|127\.[0-9.]+|::1")
LEAST_KEPT_DAYS: Final = 35
"""For so long rows of the ledger cannot be removed, as the database demands: longer than any request or task lasts,
than a router that was killed may leave its journal, and than a month, over which amounts may be counted."""


class DatabaseSettings(DatabaseUrls):
    """Settings of the commands that touch the database and serve nothing."""

    service_token: SecretStr = SecretStr("")
    key_pepper: SecretStr = Field(min_length=16)
    """Mixed into every stored digest of a key, so that a stolen database verifies none. Changing it ends every key."""


class AuthSettings(DatabaseSettings):
    """Settings of the auth service."""

    service_token: SecretStr = Field(min_length=16)
    listen: str = "127.0.0.1:8102"
    """Where the other services reach it."""
    public_listen: str = "127.0.0.1:8105"
    """Where the edge reaches the public services (moa.account.v1)."""
    signup: Literal["open", "invite", "closed"] = "invite"
    """Who may sign up: everyone, those with an invitation, nobody. The launcher says `open` on a loopback address."""
    setup_token: SecretStr = SecretStr("")
    """What lets the first administrator choose an email and a password, once; empty: nothing does."""
    setup_until: float = 0.0
    """Until when, in seconds since 1970."""
    byok: bool = False
    """Whether there is an account for callers who bring their own key of a provider."""
    lease_s: float = Field(default=20.0, ge=1)
    """How long a router's lease lasts without renewal; what a vanished router held is free again after it."""
    block_s: float = Field(default=60.0, ge=2)
    """How long what a replica borrowed lasts while the database is away; what a vanished replica held is free again
    after it."""
    idempotency_lease_s: float = Field(default=30.0, ge=1)
    """How long a request with an idempotency key counts as being worked at after its router was last heard of, and so a
    response that is made in the background."""
    ledger_retention_days: int | None = Field(default=None, ge=LEAST_KEPT_DAYS)
    """For how many days rows of the ledger are kept at least, before their sums alone are; unset: for ever."""
    responses_stored: Literal["never", "asked", "always"] = "asked"
    """Whose responses of the Responses API are stored: nobody's, those of accounts that turned it on, or those of all
    that did not turn it off."""
    responses_secrets: SecretStr = SecretStr("")
    """What they are encrypted with: secrets of 16 characters or more, parted by commas. The first encrypts, and each of
    them decrypts; empty: the key pepper does both."""
    responses_days: float = Field(default=30.0, gt=0, le=3650)
    """For how many days a response or a conversation is kept after it was last gone on from."""
    responses_count: int = Field(default=10_000, ge=1)
    """How many responses and conversations one account may have stored."""
    responses_mb: int = Field(default=256, ge=1)
    """How many MiB of them."""
    database_wait_s: float = Field(default=1.0, gt=0)
    """How long a connection is waited for before the database counts as away and callers are told at once."""
    database_replica_url: SecretStr = SecretStr("")
    """A streaming replica of the database, which reports of spending are read from; empty: none."""
    database_replica_lag_s: float = Field(default=60.0, gt=0)
    """How far it may be behind; they are read from the database itself then."""
    servers: str = ""
    """Servers of one's own, whose models rules may name; the catalogue's reader reads them itself."""
    smtp_url: SecretStr = SecretStr("")
    """The server by which warnings are mailed: `smtp://host`, `smtp+starttls://user:password@host:587`,
    `smtps://user:password@host`; empty: none is mailed."""
    mail_from: str = "moa@localhost"
    """Whom they are from."""
    public_url: str = "http://127.0.0.1:8080"
    """Where callers reach the gateway, for the links of e-mails."""
    egress_allow: str = Field(default="", pattern=HOSTS)
    """Hosts beside public https ones that webhooks of warnings may go to, parted by commas."""
    request_log_keys: SecretStr = SecretStr("")
    """What encrypts logged prompts and answers: `name:64 hexadecimal digits`, parted by commas. The first encrypts, the
    others open what they encrypted; empty: none are kept."""
    request_log_bucket: str = ""
    """The bucket that logged requests are exported to, without prompts and answers; empty: none."""
    request_log_endpoint: str = ""
    """The base URL of an S3-compatible server with that bucket; empty: Amazon's."""
    request_log_region: str = ""
    """The bucket's region; empty: as botocore is configured."""
    request_log_access_key: SecretStr = SecretStr("")
    """The id of the credential by which the bucket is written; empty: as botocore finds one (an instance's role)."""
    request_log_secret_key: SecretStr = SecretStr("")
    """Its secret."""
    request_log_prefix: str = Field(default="requests/", pattern=r"^([A-Za-z0-9._=-]+/)*$")
    """What the names of exported objects begin with; it ends in a `/`, or is empty."""
    request_log_every_s: float = Field(default=300.0, gt=0)
    """How often what was logged is exported."""
    fresh_s: float = Field(default=1.5, gt=0, lt=2)
    """How long a router may go on with a verified key before it asks again."""

    oidc_issuer: str = ""
    """The identity provider that people may log in with, by its name, which is its address; empty: none."""
    oidc_client_id: str = ""
    """Whom it knows this gateway as."""
    oidc_client_secret: SecretStr = SecretStr("")
    """Empty: a public client, by PKCE alone."""
    oidc_name: str = "single sign-on"
    """What the page calls it."""
    oidc_scopes: str = "openid email profile"
    """What it is asked for, parted by spaces."""
    oidc_groups_claim: str = "groups"
    """Which claim of the ID token holds a person's groups; `a.b` looks within `a`."""
    oidc_groups: Path | None = None
    """A YAML file of which groups are in which team (docs/administration.md), read anew when it is changed."""
    oidc_signup: Literal["closed", "groups", "open"] = "closed"
    """Who gets an account at the first log-in: nobody, members of groups in that file, everybody."""
    oidc_domains: str = Field(default="", pattern=LISTED)
    """Of whom only those whose verified address is in one of these domains, parted by commas; empty: of any."""
    oidc_link_by_email: bool = False
    """Whether an account belongs to whoever has its address verified by the issuer; otherwise its owner links it."""

    @field_validator("database_replica_url")
    @classmethod
    def _is_replica(cls, value: SecretStr) -> SecretStr:
        return postgres_url(value)

    @field_validator("oidc_issuer")
    @classmethod
    def _vouches(cls, value: str) -> str:
        """Raise ValueError for an issuer whose answers others could change."""
        parts = urlsplit(value)
        if value and (
            not parts.hostname
            or parts.query
            or parts.fragment
            or (parts.scheme != "https" and not (parts.scheme == "http" and _LOOPBACK.fullmatch(parts.hostname)))
        ):
            raise ValueError("it is an https URL without a query (http on this machine alone)")
        return value

    @field_validator("oidc_client_id")
    @classmethod
    def _known(cls, value: str, info: ValidationInfo) -> str:
        """Raise ValueError where there is an issuer that would not know this client."""
        if info.data.get("oidc_issuer") and not value:
            raise ValueError("it is needed with MOA_OIDC_ISSUER")
        return value

    @field_validator("oidc_link_by_email")
    @classmethod
    def _addresses_are_known(cls, value: bool, info: ValidationInfo) -> bool:
        """Raise ValueError where whoever signs up may name anybody's address."""
        if value and info.data.get("signup") == "open":
            raise ValueError("it needs MOA_SIGNUP=invite or closed: whoever signs up may name another's address")
        return value

    @field_validator("oidc_groups", mode="before")
    @classmethod
    def _no_file(cls, value: object) -> object:
        """Return None for an empty text."""
        return None if value == "" else value

    @field_validator("smtp_url")
    @classmethod
    def _mails(cls, value: SecretStr) -> SecretStr:
        """Raise ValueError for a URL that names no mail server."""
        url = value.get_secret_value()
        if url and not _SMTP_URL.match(url):
            raise ValueError("it begins with smtp://, smtp+starttls:// or smtps://, and names a host")
        return value

    @field_validator("responses_secrets")
    @classmethod
    def _are_long(cls, value: SecretStr) -> SecretStr:
        """Raise ValueError for a secret that can be guessed."""
        return long_secrets(value)

    @field_validator(
        "responses_stored",
        "responses_days",
        "responses_count",
        "responses_mb",
        "request_log_every_s",
        "database_replica_lag_s",
        mode="before",
    )
    @classmethod
    def _usual(cls, value: object, info: ValidationInfo) -> object:
        """Return the default for the empty text that compose files make of a variable which is not set."""
        return cls.model_fields[info.field_name or ""].default if value == "" else value

    @field_validator("request_log_keys")
    @classmethod
    def _opens(cls, value: SecretStr) -> SecretStr:
        """Raise ValueError for keys that are none."""
        ContentKeys(value.get_secret_value())
        return value

    @field_validator("ledger_retention_days", mode="before")
    @classmethod
    def _unset(cls, value: object) -> object:
        """Return None for the empty text that compose files make of a variable which is not set."""
        return None if value == "" else value
