"""What keeps responses, put together of the process's settings."""

from __future__ import annotations

from services.auth.adapters.background_responses import BackgroundResponses
from services.auth.adapters.content_sealing import ContentSealer
from services.auth.adapters.postgres import Postgres
from services.auth.adapters.stored_responses import StoredResponses
from services.auth.adapters.stored_room import Bounds
from services.auth.domain.storing import Storing
from services.auth.settings import AuthSettings, secrets_in


def storing_of(config: AuthSettings) -> Storing:
    """Return whose responses are stored."""
    return Storing(allowed=config.responses_stored != "never", usual=config.responses_stored == "always")


def responses_of(config: AuthSettings, postgres: Postgres) -> tuple[StoredResponses, BackgroundResponses]:
    """Return what keeps them, and what keeps those that are made in the background."""
    secrets = secrets_in(config.responses_secrets) or [config.key_pepper.get_secret_value()]
    bounds = Bounds(
        keep_s=config.responses_days * 86400, entries=config.responses_count, bytes=config.responses_mb * 1024 * 1024
    )
    sealer = ContentSealer([secret.encode() for secret in secrets])
    stored = StoredResponses(postgres, sealer, bounds)
    return stored, BackgroundResponses(postgres, sealer, bounds, stored)
