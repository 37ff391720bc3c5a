"""AdamW (arXiv 1711.05101): Adam with weight decay that is not part of the gradient."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from deepseek.errors import ConfigError
from deepseek.optim.master_weights import MASTER, PIECE, MasterWeightOptimizer, flat_pieces, with_gradients

_FUSED_ON = ("cpu", "cuda")


class AdamW(MasterWeightOptimizer):
    """AdamW with float32 state and master weights. Defaults of betas and decay are V3's (arXiv 2412.19437, 4.2).

    fused: run PyTorch's one-pass kernel over pieces that fit the cache, a fifth of the time of the plain definition;
    by default where the device has it. Options may be given per parameter group.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.1,
        fused: bool | None = None,
    ) -> None:
        for name, holds in {
            f"lr must not be negative, not {lr}": lr >= 0,
            f"betas must lie in [0, 1), not {betas}": all(0 <= beta < 1 for beta in betas),
            f"eps must be above 0, not {eps}": eps > 0,
            f"weight_decay must not be negative, not {weight_decay}": weight_decay >= 0,
        }.items():
            if not holds:
                raise ConfigError(name)
        self._fused = fused
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def first_state(self, parameter: Tensor) -> dict[str, Tensor]:
        zeros = torch.zeros_like(parameter, dtype=torch.float32, memory_format=torch.contiguous_format)
        return {"exp_avg": zeros, "exp_avg_sq": zeros.clone(), "step": torch.zeros((), dtype=torch.float32)}

    def update(self, group: dict[str, Any], gradient_scale: float) -> None:
        for parameter in with_gradients(group):
            state = self.state[parameter]
            state["step"] += 1
            fused = parameter.device.type in _FUSED_ON if self._fused is None else self._fused
            run = _fused_update if fused else _plain_update
            assert parameter.grad is not None
            master = self.master(parameter)
            rounded = parameter if MASTER in state else None
            tensors = (master, state["exp_avg"], state["exp_avg_sq"], rounded if rounded is not None else master)
            buffer = torch.empty(min(PIECE, master.numel()), device=master.device)
            for weight, mean, square, target, gradient in flat_pieces(*tensors, parameter.grad):
                wide = buffer[: weight.numel()].copy_(gradient)
                if gradient_scale != 1.0:
                    wide *= gradient_scale
                run(weight, wide, mean, square, state["step"], group)
                if rounded is not None:
                    target.copy_(weight)


def _fused_update(
    weight: Tensor, gradient: Tensor, mean: Tensor, square: Tensor, step: Tensor, group: dict[str, Any]
) -> None:
    beta1, beta2 = group["betas"]
    torch._fused_adamw_(
        [weight],
        [gradient],
        [mean],
        [square],
        [],
        [step.to(weight.device)],
        lr=group["lr"],
        beta1=beta1,
        beta2=beta2,
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        amsgrad=False,
        maximize=False,
    )


def _plain_update(
    weight: Tensor, gradient: Tensor, mean: Tensor, square: Tensor, step: Tensor, group: dict[str, Any]
) -> None:
    """Slow twin of `_fused_update`: the paper's algorithm 2, line by line."""
    beta1, beta2 = group["betas"]
    taken = step.item()
    weight *= 1 - group["lr"] * group["weight_decay"]
    mean.lerp_(gradient, 1 - beta1)
    square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    deviation = (square / (1 - beta2**taken)).sqrt_().add_(group["eps"])
    weight.addcdiv_(mean, deviation, value=-group["lr"] / (1 - beta1**taken))
