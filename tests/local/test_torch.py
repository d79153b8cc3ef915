"""Which torch is installed."""

from __future__ import annotations

import sys

import pytest

from deploy.local import install_torch

CUDA = 'nvidia-cublas==13.1; platform_system == "Linux"'


@pytest.mark.parametrize(
    ("requirements", "kind"),
    [
        (["filelock", "sympy>=1.13.3"], "cpu"),
        (["filelock", 'nvidia-cublas==13.1; platform_system == "Windows"'], "cpu"),
        (['nvidia-cublas==13.1; extra == "gpu"'], "cpu"),
        pytest.param(["filelock", CUDA], "cuda", marks=pytest.mark.skipif(sys.platform != "linux", reason="Linux")),
        (["triton==3.7.0"], "cuda"),
    ],
)
def test_kind(requirements: list[str], kind: str) -> None:
    """A build is for CUDA when it would bring CUDA's libraries to this very system."""
    assert install_torch.kind_of(requirements) == kind


@pytest.mark.parametrize("choice", ["cpu", "cuda"])
def test_the_user_decides(choice: str) -> None:
    """MOA_TORCH has the last word."""
    assert install_torch.wanted(choice) == choice


def test_nonsense_is_refused() -> None:
    """Another value is an error that names it."""
    with pytest.raises(SystemExit, match="MOA_TORCH=gpu is not"):
        install_torch.wanted("gpu")


def test_this_environment_has_the_pinned_torch() -> None:
    """What the tests run with is the version that set-up pins."""
    assert install_torch.installed() in ("cpu", "cuda")
