"""Numbers that an enum does not have."""

from __future__ import annotations

from typing import Any

import pytest

from moa.account.v1 import account_service_pb2, admin_service_pb2
from moa.image.v1 import image_service_pb2
from moa.quota.v1 import quota_pb2
from moa.task.v1 import task_pb2, task_service_pb2
from moa.text.v1 import text_pb2, text_service_pb2
from services.common.errors import InvalidField
from services.common.rpc.known import refuse_unknown

NO_SUCH: Any = 99
TEXT = text_service_pb2.GenerateTextRequest
IMAGE = image_service_pb2.GenerateImageRequest


@pytest.mark.parametrize(
    ("message", "param"),
    [
        (admin_service_pb2.UpdateAccountRequest(role=NO_SUCH), "role"),
        (IMAGE(output_format=NO_SUCH), "output_format"),
        (
            account_service_pb2.CreateKeyRequest(scopes=[quota_pb2.Rule(operations=[NO_SUCH])]),
            "scopes[0].operations",
        ),
        (TEXT(messages=[text_pb2.Message(role=NO_SUCH)]), "messages[0].role"),
        (TEXT(tool_choice=text_pb2.ToolChoice(mode=NO_SUCH)), "tool_choice.mode"),
        (
            task_service_pb2.CreateTaskRequest(work=task_pb2.TaskWork(image=IMAGE(quality=NO_SUCH))),
            "work.image.quality",
        ),
    ],
)
def test_an_unknown_number_is_named(message: Any, param: str) -> None:
    """Wherever it stands: a handler would take it for the default, or stumble."""
    with pytest.raises(InvalidField) as refused:
        refuse_unknown(message)
    assert refused.value.param == param


def test_known_numbers_pass() -> None:
    """Each value of the enum, and zero for what is not set."""
    operations = quota_pb2.Operation.values()
    refuse_unknown(account_service_pb2.CreateKeyRequest(scopes=[quota_pb2.Rule(operations=operations)]))
    refuse_unknown(TEXT(messages=[text_pb2.Message(role=text_pb2.ROLE_USER)]))
    refuse_unknown(IMAGE())
