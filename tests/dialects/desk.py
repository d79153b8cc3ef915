"""The dialect of desks."""

from __future__ import annotations

from typing import Final

from tests.dialects.rig import DialectRig

RIG: Final = DialectRig(
    name="desk",
    path="/v1/generate",
    code=lambda body: body["error_code"],
    message=lambda body: body["message"],
)
