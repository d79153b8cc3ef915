"""The samplers by name, each with the model's own noise schedule."""

from __future__ import annotations

from typing import Any

from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    UniPCMultistepScheduler,
)

BY_NAME: dict[str, Any] = {
    "euler": EulerDiscreteScheduler,
    "euler-a": EulerAncestralDiscreteScheduler,
    "dpm++": DPMSolverMultistepScheduler,
    "unipc": UniPCMultistepScheduler,
    "ddim": DDIMScheduler,
    "lcm": LCMScheduler,
}
"""For models that predict noise or velocity on a schedule of betas."""

_NAMES = {kind: name for name, kind in BY_NAME.items()}


def made(base: Any, name: str) -> Any:
    """Make a fresh scheduler: the named one, or the model's own, on the model's configuration.

    Args:
        base: The pipeline's scheduler, after the pipeline's constructor has corrected its configuration.
        name: A key of BY_NAME; empty: the model's own kind.
    """
    kind = BY_NAME[name] if name else type(base)
    return kind.from_config(base.config)


def name_of(scheduler: Any) -> str:
    """Return a scheduler's name: ours, or its class's."""
    return _NAMES.get(type(scheduler), type(scheduler).__name__)
