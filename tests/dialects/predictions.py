"""Replicate's dialect of predictions."""

from __future__ import annotations

from typing import Final

from tests.dialects.rig import DialectRig

RIG: Final = DialectRig(
    name="predictions",
    path="/v1/predictions",
    code=lambda body: body["title"],
    message=lambda body: body["detail"],
)
