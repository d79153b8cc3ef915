from __future__ import annotations

import pytest
import torch

from inference.training.precision import narrowest


@pytest.mark.parametrize(
    ("capabilities", "dtype"),
    [
        ({"architecture": "x86_64", "avx2": True, "avx512_bf16": False}, torch.float32),
        ({"architecture": "x86_64", "avx512_f": True, "avx512_bf16": True}, torch.bfloat16),
        ({"architecture": "arm64", "neon": True, "bf16": True}, torch.bfloat16),
        ({"architecture": "arm64", "neon": True}, torch.float32),
    ],
)
def test_a_processor_computes_in_what_it_has(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, object], dtype: torch.dtype
) -> None:
    """Training takes bfloat16 only on processors that have it: elsewhere it is emulated, at a tenth of the speed."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert narrowest(torch.device("cpu")) is dtype


def test_a_gpu_computes_in_bfloat16() -> None:
    """A GPU has it, whatever the processor beside it."""
    assert narrowest(torch.device("cuda")) is torch.bfloat16
