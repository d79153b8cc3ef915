"""Families of diffusion models. A family is one module: what its denoiser is given and how its latents are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inference.image.families.base import Condition, Family
from inference.image.families.flux import Flux
from inference.image.families.sd import StableDiffusion
from inference.image.families.sd3 import StableDiffusion3
from inference.image.families.sdxl import StableDiffusionXL
from services.common.errors import ModelMisconfigured

FAMILIES: dict[str, type[Family]] = {
    "StableDiffusionPipeline": StableDiffusion,
    "StableDiffusionXLPipeline": StableDiffusionXL,
    "StableDiffusion3Pipeline": StableDiffusion3,
    "FluxPipeline": Flux,
}
"""By the pipeline class that a model's folder names."""


def family_of(pipeline: Any, options: Mapping[str, Any]) -> Family:
    """Wrap a pipeline. Raises ModelMisconfigured for a kind that the engine does not know."""
    name = type(pipeline).__name__
    if name not in FAMILIES:
        raise ModelMisconfigured(f"the engine does not know {name}; it knows {', '.join(sorted(FAMILIES))}")
    return FAMILIES[name](pipeline, options)


__all__ = ["FAMILIES", "Condition", "Family", "family_of"]
