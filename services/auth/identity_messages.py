"""Identities as messages of moa.account.v1."""

from __future__ import annotations

from moa.account.v1 import oidc_service_pb2 as pb
from services.auth import render
from services.auth.adapters.identities import IdentityRecord


def linked(record: IdentityRecord) -> pb.Identity:
    """Return an identity as callers see it."""
    made = pb.Identity(identity_id=record.id, issuer=record.issuer, created_at=render.timestamp(record.created_at))
    if record.last_used_at is not None:
        made.last_used_at.CopyFrom(render.timestamp(record.last_used_at))
    return made
