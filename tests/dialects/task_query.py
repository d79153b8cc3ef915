"""The dialect of questions after image tasks."""

from __future__ import annotations

from typing import Final

from tests.dialects.rig import DialectRig

RIG: Final = DialectRig(
    name="task_query",
    path="/api/task/query",
    code=lambda body: body["code"],
    message=lambda body: body["message"],
    is_query=True,
)
