"""Muon: momentum whose every matrix is made orthogonal (Jordan et al. 2024; scaled as in Moonlight, arXiv 2502.16982).

Shape suffixes: n matrices, r rows, c columns.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from deepseek.errors import ConfigError
from deepseek.models.device import fast_dtype
from deepseek.optim.master_weights import MASTER, MasterWeightOptimizer, with_gradients

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # the steepest start that still converges to about 1 (Jordan et al.)
ADAMW_SIZE = 0.2  # root mean square of an update, about AdamW's, so that both take one learning rate
STACK_ELEMENTS = 1 << 22  # matrices made orthogonal at once


class Muon(MasterWeightOptimizer):
    """For hidden matrices (r, c) and stacks of them (n, r, c); embeddings, head, router and norms belong to AdamW.

    Group option `matrices_per_weight`: so many matrices stand one above the other in each weight (2: gate and up), and
    each is made orthogonal by itself.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        *,
        momentum: float = 0.95,
        weight_decay: float = 0.1,
        iterations: int = 5,
    ) -> None:
        if not 0 <= momentum < 1:
            raise ConfigError(f"momentum must lie in [0, 1), not {momentum}")
        options = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "iterations": iterations}
        super().__init__(params, {**options, "matrices_per_weight": 1})

    def first_state(self, parameter: Tensor) -> dict[str, Tensor]:
        if parameter.dim() not in (2, 3):
            raise ConfigError(
                f"Muon takes matrices and stacks of them, not a weight of shape {list(parameter.shape)}: give it to "
                "AdamW (see deepseek.optim.groups)"
            )
        return {"momentum": torch.zeros_like(parameter, dtype=torch.float32)}

    def update(self, group: dict[str, Any], gradient_scale: float) -> None:
        alike: dict[tuple[int, ...], list[Parameter]] = defaultdict(list)
        for parameter in with_gradients(group):
            alike[tuple(parameter.shape)].append(parameter)
        for parameters in alike.values():
            size = max(1, STACK_ELEMENTS // parameters[0].numel())
            for start in range(0, len(parameters), size):
                self._update_alike(parameters[start : start + size], group, gradient_scale)

    def _update_alike(self, parameters: list[Parameter], group: dict[str, Any], gradient_scale: float) -> None:
        """Weights of one shape, their matrices as one stack."""
        nesterov = [self._momentum(parameter, group, gradient_scale) for parameter in parameters]
        stacks_nrc = [
            torch.unflatten(update, -2, (group["matrices_per_weight"], -1)).flatten(0, -3) for update in nesterov
        ]
        updates_nrc = orthogonalised(torch.cat(stacks_nrc), group["iterations"])
        scale = ADAMW_SIZE * max(updates_nrc.shape[-2:]) ** 0.5
        for parameter, update_nrc in zip(parameters, updates_nrc.chunk(len(parameters)), strict=True):
            master = self.master(parameter)
            master.mul_(1 - group["lr"] * group["weight_decay"])
            master.add_(update_nrc.reshape(master.shape), alpha=-group["lr"] * scale)
            if MASTER in self.state[parameter]:
                parameter.copy_(master)

    def _momentum(self, parameter: Parameter, group: dict[str, Any], gradient_scale: float) -> Tensor:
        """The Nesterov update; its size does not matter, for what follows divides by it."""
        assert parameter.grad is not None
        gradient = parameter.grad.float() * gradient_scale
        mean = self.state[parameter]["momentum"].lerp_(gradient, 1 - group["momentum"])
        return gradient.lerp_(mean, group["momentum"]).to(fast_dtype(gradient.device))


def orthogonalised(x_nrc: Tensor, iterations: int) -> Tensor:
    """Every matrix with its singular values moved to about 1 (between 0.7 and 1.2), by Newton-Schulz.

    In bfloat16, which is exact enough, where the device is fast at it.
    """
    a, b, c = COEFFICIENTS
    tall = x_nrc.shape[-2] > x_nrc.shape[-1]
    x_nrc = (x_nrc.mT if tall else x_nrc).to(fast_dtype(x_nrc.device))
    norms_n11 = torch.linalg.vector_norm(x_nrc, dim=(-2, -1), keepdim=True, dtype=torch.float32)
    x_nrc = x_nrc / (norms_n11 + 1e-7).to(x_nrc.dtype)
    for _ in range(iterations):
        gram_nrr = x_nrc @ x_nrc.mT
        mixed_nrr = torch.baddbmm(gram_nrr, gram_nrr, gram_nrr, beta=b, alpha=c)
        x_nrc = torch.baddbmm(x_nrc, mixed_nrr, x_nrc, beta=a)
    return x_nrc.mT if tall else x_nrc
