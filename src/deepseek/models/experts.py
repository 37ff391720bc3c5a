"""All routed experts of a layer as a few products, with a backward pass of its own.

Shape suffixes: n tokens (batch and sequence together), m model size, e experts, i intermediate size of an expert,
k chosen experts of a token, p places of the experts' buffer (see `routing.Dispatch`).
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from deepseek.config import ModelConfig
from deepseek.models.routing import Dispatch, Layout, Routing, dispatch
from deepseek.models.row_blocks import row_blocks

ExpertPath = Literal["auto", "loop", "grouped", "batched"]


class Experts(nn.Module):
    """Every expert is an Mlp; fused, gate_up_proj (e, 2i, m) holds gate above up, down_proj is (e, m, i).

    path: `loop` runs expert by expert and is the plain definition. `grouped` runs all of them in one grouped product,
    which needs rows of a multiple of 16 bytes; `batched` in one batched product, which gives each expert as many rows
    as the fullest. `auto` takes the faster of the two where rows are aligned, else loop.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        moe, model = config.moe, config.hidden_size
        assert moe is not None
        self.gate_up_proj = nn.Parameter(torch.empty(moe.n_routed_experts, 2 * moe.moe_intermediate_size, model))
        self.down_proj = nn.Parameter(torch.empty(moe.n_routed_experts, model, moe.moe_intermediate_size))
        self.path: ExpertPath = "auto"

    def forward(self, x_nm: Tensor, routing: Routing) -> Tensor:
        """The weighted sum of each token's experts, (n, m) in the type of x. Depends on nothing else in the batch."""
        if self.path == "loop" or (self.path == "auto" and not self._rows_are_aligned()):
            return self._loop(x_nm, routing)
        layouts: dict[ExpertPath, Layout] = {"grouped": "ragged", "batched": "even", "auto": "auto"}
        order = dispatch(routing, layouts[self.path])
        x_nm, gate_up_eim, down_emi = _in_autocast_type(x_nm, self.gate_up_proj, self.down_proj)
        output_nm: Tensor = _SortedExperts.apply(  # type: ignore[no-untyped-call]
            x_nm, routing.weights_nk, gate_up_eim, down_emi, order
        )
        return output_nm

    def _loop(self, x_nm: Tensor, routing: Routing) -> Tensor:
        """Slow twin of `_SortedExperts`: one ordinary MLP for each expert that has tokens."""
        y_nm = torch.zeros_like(x_nm, dtype=torch.float32)
        for expert in range(self.gate_up_proj.shape[0]):
            taken = (routing.indices_nk == expert).nonzero()
            if routing.capacity_e is not None:
                taken = taken[: int(routing.capacity_e[expert])]
            token_a, choice_a = taken.unbind(1)
            gate, up = F.linear(x_nm[token_a], self.gate_up_proj[expert]).chunk(2, dim=-1)
            y_am = F.linear(F.silu(gate) * up, self.down_proj[expert])
            y_nm = y_nm.index_add(0, token_a, y_am * routing.weights_nk[token_a, choice_a, None])
        return y_nm.to(x_nm.dtype)

    def _rows_are_aligned(self) -> bool:
        size = self.down_proj.element_size()
        return all(weight.shape[-1] * size % 16 == 0 for weight in (self.gate_up_proj, self.down_proj))


def _in_autocast_type(*tensors: Tensor) -> tuple[Tensor, ...]:
    """As autocast would have them for a product. Inside of `_SortedExperts` it reaches the forward pass only."""
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return tensors
    return tuple(tensor.to(torch.get_autocast_dtype(device)) for tensor in tensors)


class _SortedExperts(torch.autograd.Function):
    """Kept for the backward pass are the tokens and gate_up, (p, 2i). All else is gathered or computed again, and the
    outputs of single experts are not needed: the gradient of a weight is that of h, scaled by it, times h.
    """

    @staticmethod
    def forward(
        ctx: Any, x_nm: Tensor, weights_nk: Tensor, gate_up_eim: Tensor, down_emi: Tensor, order: Dispatch
    ) -> Tensor:
        gate_up_pi = _product(x_nm.index_select(0, order.token_p), gate_up_eim.transpose(1, 2), order)
        y_pm = _product(_swiglu(gate_up_pi), down_emi.transpose(1, 2), order)
        ctx.save_for_backward(x_nm, gate_up_eim, down_emi, gate_up_pi, *order[:-1])
        ctx.experts = order.experts
        weights_nk = weights_nk if order.kept_nk is None else weights_nk * order.kept_nk
        return _summed(y_pm, order.place_nk, weights_nk)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_nm: Tensor) -> tuple[Tensor | None, ...]:
        x_nm, gate_up_eim, down_emi, gate_up_pi, *rest = ctx.saved_tensors
        order = Dispatch._make([*rest, ctx.experts])
        needs_x, needs_weights, needs_gate_up, needs_down, _ = ctx.needs_input_grad
        grad_pm = grad_nm.index_select(0, order.token_p)
        grad_h_pi = _product(grad_pm, down_emi, order)  # not yet scaled by the weights
        grad_gate_up_pi, h_pi, grad_weight_p = _swiglu_backward(grad_h_pi, gate_up_pi, order.weight_p)
        grad_x = grad_weights = grad_gate_up = grad_down = None
        if needs_weights:
            grad_weights = grad_weight_p[order.place_nk]
            grad_weights = grad_weights if order.kept_nk is None else grad_weights * order.kept_nk
        if needs_down:
            grad_down = _outer_product(grad_pm, h_pi, order)
        if needs_gate_up:
            x_pm = x_nm.index_select(0, order.token_p)
            grad_gate_up = _outer_product(grad_gate_up_pi, x_pm, order)
        if needs_x:
            grad_x_pm = _product(grad_gate_up_pi, gate_up_eim, order)
            grad_x = _summed(grad_x_pm, order.place_nk, order.kept_nk)
        return grad_x, grad_weights, grad_gate_up, grad_down, None


def _product(rows_px: Tensor, weight_exy: Tensor, order: Dispatch) -> Tensor:
    """Each expert's rows times its matrix, (p, y)."""
    if order.ends_e is not None:
        return F.grouped_mm(rows_px, weight_exy, offs=order.ends_e)
    return torch.bmm(rows_px.view(order.experts, -1, rows_px.shape[1]), weight_exy).flatten(0, 1)


def _outer_product(left_px: Tensor, right_py: Tensor, order: Dispatch) -> Tensor:
    """The gradient of each expert's matrix: the sum over its rows, (e, x, y)."""
    if order.ends_e is not None:
        return F.grouped_mm(left_px.T, right_py, offs=order.ends_e)
    left_erx, right_ery = (rows.view(order.experts, -1, rows.shape[1]) for rows in (left_px, right_py))
    return torch.bmm(left_erx.transpose(1, 2), right_ery)


def _swiglu(gate_up_pi: Tensor) -> Tensor:
    h_pi = gate_up_pi.new_empty(gate_up_pi.shape[0], gate_up_pi.shape[1] // 2)
    for rows in row_blocks(h_pi):
        gate_pi, up_pi = gate_up_pi[rows].chunk(2, dim=-1)
        torch.mul(F.silu(gate_pi), up_pi, out=h_pi[rows])
    return h_pi


def _swiglu_backward(grad_h_pi: Tensor, gate_up_pi: Tensor, weight_p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """From the gradient of weight * h, h = silu(gate) * up: that of gate_up; weight * h; the gradient of weight.

    Overwrites grad_h_pi.
    """
    grad_gate_up_pi, weighted_pi = torch.empty_like(gate_up_pi), torch.empty_like(grad_h_pi)
    grad_weight_p = torch.empty_like(weight_p)
    for rows in row_blocks(grad_h_pi):
        (gate_pi, up_pi), grad_pi = gate_up_pi[rows].chunk(2, dim=-1), grad_h_pi[rows]
        grad_gate_pi, grad_up_pi = grad_gate_up_pi[rows].chunk(2, dim=-1)
        weight_p1 = weight_p[rows, None].to(grad_pi.dtype)
        silu_pi = F.silu(gate_pi)
        h_pi = silu_pi * up_pi
        grad_weight_p[rows] = (grad_pi * h_pi).sum(dim=-1, dtype=torch.float32)
        torch.mul(h_pi, weight_p1, out=weighted_pi[rows])
        torch.mul(grad_pi.mul_(weight_p1), silu_pi, out=grad_up_pi)
        torch.ops.aten.silu_backward.grad_input(grad_pi.mul_(up_pi), gate_pi, grad_input=grad_gate_pi)
    return grad_gate_up_pi, weighted_pi, grad_weight_p


def _summed(rows_pm: Tensor, place_nk: Tensor, weights_nk: Tensor | None) -> Tensor:
    """The (weighted) sum of k rows for each token, added in float32 in the token's own order of experts."""
    if weights_nk is not None:
        weights_nk = weights_nk.to(rows_pm.dtype)
    return F.embedding_bag(place_nk, rows_pm, mode="sum", per_sample_weights=weights_nk)
