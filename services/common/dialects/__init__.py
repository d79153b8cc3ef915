"""Every dialect, registered once: which services speak it, how it words a failure, and how its streams end.

From this table the router renders in-band errors, the edge its script and its routes, and OpenAPI its error bodies. A
dialect has an envelope (a JSON shape with placeholders), statuses where it departs from
`services.common.errors.HTTP_STATUS`, and words for each reason. Another one is a module here, and a line below.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from services.common.dialects.anthropic import ANTHROPIC
from services.common.dialects.desk import DESK
from services.common.dialects.google import GOOGLE
from services.common.dialects.native import NATIVE
from services.common.dialects.openai import OPENAI
from services.common.dialects.predictions import PREDICTIONS
from services.common.dialects.responses import RESPONSES
from services.common.dialects.shape import FIELD, MESSAGE, PARAM, REQUEST_ID, STATUS, Dialect, StreamEnd
from services.common.dialects.task import TASK, TASK_QUERY

__all__ = [
    "ANTHROPIC",
    "BY_SERVICE",
    "DESK",
    "DIALECTS",
    "FIELD",
    "GOOGLE",
    "MESSAGE",
    "NATIVE",
    "OPENAI",
    "PARAM",
    "PREDICTIONS",
    "REQUEST_ID",
    "RESPONSES",
    "STATUS",
    "TASK",
    "TASK_QUERY",
    "Dialect",
    "StreamEnd",
]

DIALECTS: Final[Mapping[str, Dialect]] = {
    d.name: d for d in (NATIVE, OPENAI, RESPONSES, GOOGLE, ANTHROPIC, TASK, TASK_QUERY, PREDICTIONS, DESK)
}
"""By name."""

BY_SERVICE: Final[Mapping[str, Dialect]] = {
    service: dialect for dialect in DIALECTS.values() for service in dialect.services
}
"""By the full name of the gRPC service whose REST bindings speak it. A service that is not here has no REST."""
