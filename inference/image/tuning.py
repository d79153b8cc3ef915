"""How a pipeline runs, by the catalogue's options: attention, compiled blocks, 8-bit weights, encoders off the device.

attention: sdpa | eager, and for transformers any backend of diffusers' own list
compile: {backend: inductor, mode: default}
quantize: int8 | float8   the denoiser's weights in 8 bits, with a scale a row; they compute as before
offload: [text_encoder, …]   these come to the device for their calls alone
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import nn

from inference.image.families import Family
from inference.image.lanes import SCALE
from services.common.errors import ModelMisconfigured

_QUANTISED: Final = {"int8": (torch.int8, 127.0), "float8": (torch.float8_e4m3fn, torch.finfo(torch.float8_e4m3fn).max)}
"""Formats of weights, with the largest number of each."""


def tune(family: Family, options: Mapping[str, Any]) -> None:
    """Apply the options to a loaded pipeline, adapters included.

    Raises ModelMisconfigured for an option that this pipeline or machine does not have.
    """
    if "attention" in options:
        _attend(family.denoiser, str(options["attention"]))
    if "quantize" in options:
        _quantise(family.denoiser, str(options["quantize"]))
    if "offload" in options:
        _offload(family, tuple(options["offload"]))
    if "compile" in options:
        _compile(family, dict(options["compile"]))


def _attend(denoiser: Any, name: str) -> None:
    """Choose the kernel of attention. UNets of diffusers know two, its transformers a list."""
    from diffusers.models.attention_dispatch import _AttentionBackendRegistry
    from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

    if hasattr(denoiser, "set_attn_processor") and hasattr(denoiser, "down_blocks"):
        kinds = {"eager": AttnProcessor, "sdpa": AttnProcessor2_0}
        if name not in kinds:
            raise ModelMisconfigured(f"this model's attention is one of {', '.join(kinds)}, not {name!r}")
        denoiser.set_attn_processor(kinds[name]())
        return
    # The call also changes what every later model of the process gets; that is put back.
    before, _ = _AttentionBackendRegistry.get_active_backend()
    try:
        denoiser.set_attention_backend({"sdpa": "native", "eager": "_native_math"}.get(name, name))
    except (ValueError, RuntimeError, ImportError) as error:
        raise ModelMisconfigured(f"this machine has no attention {name!r}: {error}"[:300]) from error
    finally:
        _AttentionBackendRegistry.set_active_backend(before)


def _quantise(denoiser: nn.Module, name: str) -> None:
    """Keep weights of linear layers and convolutions in 8 bits; the layers widen them as they run (`lanes.steady`)."""
    if name not in _QUANTISED:
        raise ModelMisconfigured(f"weights are quantised to {' or '.join(_QUANTISED)}, not to {name!r}")
    kind, most = _QUANTISED[name]
    for module in denoiser.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            rows = module.weight.flatten(1).abs().amax(1).clamp(min=1e-12)
            scale = (rows / most).view(-1, *[1] * (module.weight.dim() - 1))
            narrow = module.weight / scale
            module.register_buffer(SCALE, scale)
            module.weight = nn.Parameter(narrow.to(kind) if kind.is_floating_point else narrow.round().to(kind), False)


def _offload(family: Family, names: tuple[str, ...]) -> None:
    """Keep text encoders in the CPU's memory between their calls: a T5 is idle for all of a picture's steps."""
    for name in names:
        part = family.pipeline.components.get(name)
        if not name.startswith("text_encoder") or not isinstance(part, nn.Module):
            raise ModelMisconfigured(f"only text encoders can be off the device, and {name!r} is none of this model")
        part.register_forward_pre_hook(lambda module, given: _moved(module, family.device))
        part.register_forward_hook(lambda module, given, made: _moved(module, torch.device("cpu")), always_call=True)


def _moved(module: nn.Module, device: torch.device) -> None:
    module.to(device)


def _compile(family: Family, how: dict[str, Any]) -> None:
    """Compile the blocks that the denoiser repeats: an eighth of the time that compiling all of it takes."""
    import torch._dynamo

    # Every block of a kind shares one code, and each bucket and number of lanes is a shape of its own.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 256)
    try:
        family.denoiser.compile_repeated_blocks(**{"dynamic": False, **how})  # type: ignore[operator]
    except (ValueError, RuntimeError, TypeError) as error:
        raise ModelMisconfigured(f"this model cannot be compiled so: {error}"[:300]) from error
    family.uncompiled = _uncompiled


def _uncompiled() -> contextlib.AbstractContextManager[None]:
    """Run compiled blocks as they were written, for the body."""
    return torch.compiler.set_stance("force_eager")  # type: ignore[no-any-return]
