"""Azure's form of OpenAI's paths, which names the model: `/openai/deployments/{model}/…`."""

from __future__ import annotations

from typing import Any, Final

from services.common.rpc.call import metadata_of

DEPLOYMENT_KEY: Final = "moa-deployment"
"""The header in which the edge tells the model."""


def deployment(context: Any) -> str:
    """Return the model that the path names; the edge has moved it to a header. Empty where it names none."""
    for name, value in metadata_of(context):
        if name == DEPLOYMENT_KEY:
            return str(value)
    return ""
