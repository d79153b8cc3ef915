"""The native API's errors."""

from __future__ import annotations

from typing import Final

from services.common.dialects.shape import CODES, MESSAGE, Dialect, StreamEnd

NATIVE: Final = Dialect(
    name="native",
    services=(
        "moa.router.v1.NativeService",
        "moa.router.v1.FilesService",
        "moa.router.v1.ReadinessService",
        "moa.account.v1.AccountService",
        "moa.account.v1.AdminService",
        "moa.account.v1.TeamService",
        "moa.account.v1.BudgetService",
        "moa.account.v1.OidcService",
        "moa.account.v1.RequestLogService",
        "moa.account.v1.ProviderKeyService",
        "moa.router.v1.OperatorService",
        "moa.task.v1.TaskService",
        "moa.task.v1.WebhookService",
    ),
    large=("moa.router.v1.NativeService", "moa.router.v1.OperatorService", "moa.task.v1.TaskService"),
    strays=("/",),
    listed="GET /models/{provider}",
    fields={
        "model": "model_id",
        "count": "n",
        "images": "image_data",
        "operation": "image_data",
        "steps": "num_inference_steps",
        "messages.parts": "messages[].content",
        "messages.parts.image": "image_data",
        "messages.parts.tool_call": "messages[].tool_calls",
        "messages.parts.tool_result": "messages[].tool_call_id",
        "tools.parameters_json": "function.parameters",
        "tools.name": "function.name",
        "tools.description": "function.description",
        "tool_choice.mode": "tool_choice",
    },
    envelope={"detail": MESSAGE, "code": "$code"},
    words={"code": CODES},
    stream_end=StreamEnd(mark="[DONE]", failure_field="error", marks_failure=True),
)
"""The native API: `{"detail", "code"}`."""
