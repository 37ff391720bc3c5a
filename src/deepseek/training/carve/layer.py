"""A feed-forward layer while it is carved: all neurons side by side, and a mask of experts over them.

On a CPU a small layer is faster computed whole and masked than gathered, and while training every expert's output is
there, chosen or not: the router learns from both. It is saved as an ordinary mixture-of-experts layer.

Shape suffixes: n tokens, m model size, i neurons (shared first, then expert after expert), e experts.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepseek.models.mlp import Mlp
from deepseek.training.carve.grouping import Grouping
from deepseek.training.carve.routing import choose
from deepseek.training.carve.target import stored_router

_SOFTNESS = 0.5  # in spreads of logits: how far from the threshold the router still gets a gradient


class CarvedMlp(nn.Module):
    """down(mask * silu(gate(x)) * up(x)), the mask 1 on shared neurons and on those of the `active` best experts."""

    def __init__(self, dense: Mlp, grouping: Grouping, active: int) -> None:
        super().__init__()
        order_i = grouping.order_i
        self.gate_proj = nn.Parameter(dense.gate_proj.weight.detach()[order_i].clone())
        self.up_proj = nn.Parameter(dense.up_proj.weight.detach()[order_i].clone())
        self.down_proj = nn.Parameter(dense.down_proj.weight.detach()[:, order_i].clone())
        self.router = nn.Linear(self.gate_proj.shape[1], grouping.experts)
        self.shared, self.width, self.active = grouping.shared, grouping.width, active

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.masked(self.activations(x), self.open_experts(x)), self.down_proj)

    def activations(self, x: Tensor) -> Tensor:
        return F.silu(F.linear(x, self.gate_proj)) * F.linear(x, self.up_proj)

    def masked(self, activations: Tensor, open_: Tensor) -> Tensor:
        """activations (..., i) with those of closed experts at zero."""
        shared, routed = activations.tensor_split([self.shared], dim=-1)
        routed = torch.unflatten(routed, -1, (open_.shape[-1], self.width)) * open_.to(routed.dtype)[..., None]
        return torch.cat((shared, routed.flatten(-2)), dim=-1)

    def open_experts(self, x: Tensor) -> Tensor:
        """(..., e), 1 for the chosen. Its gradient is that of a sigmoid around the threshold of the choice.

        It stops at the router, and says nothing of all experts together: raising every logit opens none.
        """
        with torch.autocast(x.device.type, enabled=False):
            logits = self.router(x.detach().float())
        if self.active == logits.shape[-1]:
            return torch.ones_like(logits)
        open_ = choose(logits.detach(), self.active)
        if not torch.is_grad_enabled():
            return open_
        logits = logits - logits.mean(dim=-1, keepdim=True)
        threshold = logits.detach().topk(self.active + 1, dim=-1).values[..., -2:].mean(dim=-1, keepdim=True)
        soft = torch.sigmoid((logits - threshold) / _SOFTNESS)
        return open_ + (soft - soft.detach())

    def set_router(self, weight_em: Tensor, bias_e: Tensor, x_nm: Tensor) -> None:
        """x: the layer's inputs over the calibration text, over which logits get a spread of 1 and a mean of 0."""
        with torch.no_grad():
            logits_ne = x_nm @ weight_em.T + bias_e
            spread = logits_ne.std().clamp(min=1e-12)
            self.router.weight.copy_(weight_em / spread)
            self.router.bias.copy_((bias_e - logits_ne.mean()) / spread)

    def checkpoint_tensors(self) -> dict[str, Tensor]:
        """The tensors of a mixture-of-experts layer by their names after `mlp.`."""
        weight_em, bias_e = stored_router(self.router.weight.detach(), self.router.bias.detach())
        tensors = {"gate.weight": weight_em, "gate.e_score_correction_bias": bias_e}
        for name, tensor in self._matrices():
            if self.shared:
                tensors[f"shared_experts.{name}.weight"] = _as_stored(name, tensor[: self.shared])
            for number, expert in enumerate(torch.split(tensor[self.shared :], self.width)):
                tensors[f"experts.{number}.{name}.weight"] = _as_stored(name, expert)
        return tensors

    def _matrices(self) -> list[tuple[str, Tensor]]:
        """Each with a row a neuron."""
        gate, up, down = self.gate_proj.detach(), self.up_proj.detach(), self.down_proj.detach()
        return [("gate_proj", gate), ("up_proj", up), ("down_proj", down.T)]

    def extra_repr(self) -> str:
        return f"shared={self.shared}, width={self.width}, active={self.active}"


def _as_stored(name: str, rows: Tensor) -> Tensor:
    return (rows.T if name == "down_proj" else rows).contiguous()


def carved_layers(model: Any) -> list[CarvedMlp]:
    return [layer.mlp for layer in model.main_layers if isinstance(layer.mlp, CarvedMlp)]
