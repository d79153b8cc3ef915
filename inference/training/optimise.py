"""The optimizer of every training here: Muon for matrices and convolutions, AdamW for the rest; a moving average."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Final, overload

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from inference.training.precision import narrowest

# Coefficients of five steps towards the nearest orthogonal matrix (Polar Express, arXiv:2505.16932, table 1, rounded).
_STEPS: Final = (
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
)
# Scales an orthogonal update to the size of AdamW's, so that one learning rate serves both (arXiv:2502.16982, eq. 4).
_MATCH: Final = 0.2


def orthogonal(matrix: Tensor) -> Tensor:
    """Give the matrix with all singular values near one, by five matrix polynomials in `narrowest` numbers."""
    x = matrix.to(narrowest(matrix.device))
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / (x.norm() + 1e-7)
    for a, b, c in _STEPS:
        square = x @ x.T
        x = a * x + (b * square + c * (square @ square)) @ x
    straight: Tensor = x.T if tall else x
    return straight.to(matrix.dtype)


class Muon(Optimizer):
    """Muon with AdamW for parameters in groups marked `adamw` (kellerjordan.github.io/posts/muon).

    Args:
        parameters: By name; `uses_muon` decides which optimizer takes each.
        lr: Learning rate at scale one; `fit` sets it anew before each step.
    """

    def __init__(self, parameters: Iterable[tuple[str, nn.Parameter]], lr: float, weight_decay: float = 0.01) -> None:
        named = [(name, p) for name, p in parameters if p.requires_grad]
        groups = [
            {"params": [p for name, p in named if uses_muon(name, p)], "adamw": False},
            {"params": [p for name, p in named if not uses_muon(name, p)], "adamw": True},
        ]
        super().__init__([group for group in groups if group["params"]], {"lr": lr, "weight_decay": weight_decay})

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update the parameters from their gradients."""
        loss = None if closure is None else closure()
        for group in self.param_groups:
            update = _adamw if group["adamw"] else _muon
            for parameter in group["params"]:
                if parameter.grad is not None:
                    update(parameter, parameter.grad, self.state[parameter], group["lr"], group["weight_decay"])
        return loss


def uses_muon(name: str, parameter: nn.Parameter) -> bool:
    """Tell whether Muon takes it: matrices and kernels between hidden layers, not tables, inputs or outputs."""
    outer = any(part in name for part in ("embed", "conv_in", "conv_out", "lm_head"))
    return parameter.ndim >= 2 and not outer


def _muon(parameter: Tensor, grad: Tensor, state: dict[str, Any], lr: float, decay: float) -> None:
    momentum = state.setdefault("momentum", torch.zeros_like(parameter))
    momentum.lerp_(grad, 0.05)
    matrix = grad.lerp(momentum, 0.95).flatten(1)
    size = lr * _MATCH * math.sqrt(max(matrix.shape))
    parameter.mul_(1 - lr * decay).add_(orthogonal(matrix).view_as(parameter), alpha=-size)


def _adamw(parameter: Tensor, grad: Tensor, state: dict[str, Any], lr: float, decay: float) -> None:
    first = state.setdefault("first", torch.zeros_like(parameter))
    second = state.setdefault("second", torch.zeros_like(parameter))
    count = state["count"] = state.get("count", 0) + 1
    first.lerp_(grad, 0.1)
    second.mul_(0.98).addcmul_(grad, grad, value=0.02)
    spread = (second / (1 - 0.98**count)).sqrt_().add_(1e-8)
    parameter.mul_(1 - lr * decay).addcdiv_(first, spread, value=-lr / (1 - 0.9**count))


class Average:
    """An exponential moving average of parameters, which is what is shipped.

    Args:
        parameters: Those that are trained.
        decay: Share of the old average that a step keeps, once warm.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], decay: float) -> None:
        self.live = list(parameters)
        self.mean = [p.detach().clone() for p in self.live]
        self._decay = decay

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take the parameters of a step; early steps count more."""
        decay = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.mean, [p.detach() for p in self.live], 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the parameters with their average; a second call puts them back."""
        for parameter, mean in zip(self.live, self.mean, strict=True):
            held = parameter.detach().clone()
            parameter.copy_(mean)
            mean.copy_(held)
