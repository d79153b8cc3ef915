"""The dialect of image tasks."""

from __future__ import annotations

from typing import Final

from tests.dialects.rig import DialectRig

RIG: Final = DialectRig(
    name="task",
    path="/api/image/gen",
    code=lambda body: body["code"],
    message=lambda body: body["message"],
)
