"""Muon: momentum whose matrices are orthogonalised, so that a weight learns alike in every direction.

Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon). torch's own orthogonalises in bf16, which a CPU without
bf16 units multiplies many times slower than float32; this one works in float32 there. Knows tensors only.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

_QUINTIC = (3.4445, -4.7750, 2.0315)  # steepest at zero of those that stay near one
_STEPS = 5
_RMS = 0.8  # root mean square of an update's elements: AdamW's learning rate then serves for both


def orthogonal(matrices: Tensor) -> Tensor:
    """Nearly orthogonal matrices (k, m, n) with the row and column spaces of those given, by Newton-Schulz steps:
    singular values end between about 0.7 and 1.2."""
    a, b, c = _QUINTIC
    x = matrices.bfloat16() if matrices.is_cuda else matrices
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrices.dtype)


class Muon(torch.optim.Optimizer):
    """For the matrices inside a network; a group's "parts" says of how many matrices, stacked, each weight is made."""

    def __init__(
        self, groups: Iterable[dict[str, Any]], lr: float, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "parts": 1})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step for all weights that have a gradient; those of one shape together."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for weight in group["params"]:
                if weight.grad is not None:
                    by_shape.setdefault(weight.shape, []).append(weight)
            for shape, weights in by_shape.items():
                moved = torch.stack([self._moved(weight, weight.grad, group["momentum"]) for weight in weights])
                parts = moved.view(-1, shape[0] // group["parts"], shape[1])
                update = orthogonal(parts) * (_RMS * max(parts.shape[1:]) ** 0.5)
                for weight, change in zip(weights, update.reshape(moved.shape), strict=True):
                    weight.mul_(1 - group["lr"] * group["weight_decay"]).sub_(change, alpha=group["lr"])

    def _moved(self, weight: Tensor, gradient: Tensor | None, momentum: float) -> Tensor:
        """A weight's gradient with Nesterov momentum."""
        state = self.state[weight]
        gradient = torch.zeros_like(weight) if gradient is None else gradient
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        state["momentum"].lerp_(gradient, 1 - momentum)
        return gradient.lerp(state["momentum"], momentum)
