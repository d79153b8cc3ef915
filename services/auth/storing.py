"""What keeps responses, put together of the process's settings."""

from __future__ import annotations

from typing import NamedTuple

from services.auth.adapters.background_responses import BackgroundResponses
from services.auth.adapters.postgres import Postgres
from services.auth.adapters.stored_conversations import StoredConversations
from services.auth.adapters.stored_responses import StoredResponses
from services.auth.adapters.stored_room import Bounds
from services.auth.domain.storing import Storing
from services.auth.settings import AuthSettings
from services.common.content_sealing import ContentSealer
from services.common.settings import secrets_in


class Kept(NamedTuple):
    """What keeps responses: those that have ended, those that are made in the background, and conversations."""

    responses: StoredResponses
    background: BackgroundResponses
    conversations: StoredConversations


def storing_of(config: AuthSettings) -> Storing:
    """Return whose responses are stored."""
    return Storing(allowed=config.responses_stored != "never", usual=config.responses_stored == "always")


def responses_of(config: AuthSettings, postgres: Postgres) -> Kept:
    """Return what keeps them."""
    secrets = secrets_in(config.responses_secrets) or [config.key_pepper.get_secret_value()]
    bounds = Bounds(
        keep_s=config.responses_days * 86400, entries=config.responses_count, bytes=config.responses_mb * 1024 * 1024
    )
    sealer = ContentSealer([secret.encode() for secret in secrets])
    conversations = StoredConversations(postgres, sealer, bounds)
    stored = StoredResponses(postgres, sealer, bounds, conversations)
    return Kept(
        stored, BackgroundResponses(postgres, sealer, bounds, stored, lease_s=config.idempotency_lease_s), conversations
    )
