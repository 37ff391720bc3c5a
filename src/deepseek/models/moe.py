"""The mixture-of-experts layer (DeepSeekMoE, arXiv 2401.06066; V2 section 2.2; V3 section 2.1.2).

Shape suffixes: n tokens (batch and sequence together), m model size, e experts, g groups, k chosen experts,
a assignments of a token to an expert (n * k), i intermediate size of an expert.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepseek.config import ModelConfig, MoeConfig, ScoringFunction
from deepseek.models.mlp import Mlp

ExpertPath = Literal["auto", "loop", "grouped"]


class Routing(NamedTuple):
    """Where each token goes. indices_nk: experts, best first. weights_nk: their float32 weights, scaled.

    logits_ne, scores_ne: of every expert before bias, groups and choice, float32 (what balance losses read).
    capacity_e: how many tokens each expert takes at most, the first ones; the others go without it. None: all of them.
    """

    indices_nk: Tensor
    weights_nk: Tensor
    scores_ne: Tensor
    logits_ne: Tensor
    capacity_e: Tensor | None = None


class Router(nn.Module):
    """Scores every expert and chooses `num_experts_per_tok`, all in float32 whatever the model's type.

    e_score_correction_bias (topk_method noaux_tc) takes part in the choice, never in the weight. It is a buffer: V3
    moves it by the load of each expert, not by gradient. It stays float32 when the model is cast.
    """

    e_score_correction_bias: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        assert config.moe is not None
        self.moe = config.moe
        self.weight = nn.Parameter(torch.empty(self.moe.n_routed_experts, config.hidden_size))
        if self.moe.has_correction_bias:
            self.register_buffer("e_score_correction_bias", torch.zeros(self.moe.n_routed_experts))

    def forward(self, x: Tensor) -> Routing:
        """x: (n, m) or (b, t, m); tokens are numbered over batch and sequence together."""
        moe = self.moe
        logits_ne = F.linear(x.reshape(-1, x.shape[-1]).float(), self.weight.float())
        scores_ne = _SCORES[moe.scoring_func](logits_ne)
        with torch.no_grad():
            indices_nk = self._choose(scores_ne)
        weights_nk = scores_ne.gather(1, indices_nk)
        if moe.norm_topk_prob:
            weights_nk = weights_nk / (weights_nk.sum(dim=-1, keepdim=True) + 1e-20)
        return Routing(indices_nk, weights_nk * moe.routed_scaling_factor, scores_ne, logits_ne)

    def _choose(self, scores_ne: Tensor) -> Tensor:
        moe = self.moe
        choice_ne = scores_ne + self.e_score_correction_bias if moe.has_correction_bias else scores_ne
        if moe.topk_group < moe.n_group:
            choice_ne = _keep_best_groups(choice_ne, moe)
        return choice_ne.topk(moe.num_experts_per_tok, dim=-1).indices

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Router":
        """Called by `.to()` and its like: the bias follows to another device, but stays float32."""
        kept = self._buffers.get("e_score_correction_bias")
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if kept is not None and self.e_score_correction_bias.dtype != torch.float32:
            self.e_score_correction_bias = kept.to(self.e_score_correction_bias.device)
        return self


def _sqrt_softplus(logits: Tensor) -> Tensor:
    return F.softplus(logits).sqrt()


_SCORES: dict[ScoringFunction, Callable[[Tensor], Tensor]] = {
    "softmax": lambda logits: logits.softmax(dim=-1),
    "sigmoid": torch.sigmoid,
    "sqrtsoftplus": _sqrt_softplus,
}


def _keep_best_groups(choice_ne: Tensor, moe: MoeConfig) -> Tensor:
    """-inf for every expert outside the best topk_group groups.

    A group is as good as its best expert (V2) or as the sum of its two best (V3). Zero instead of -inf would let an
    expert of a dropped group win over a kept one whose biased score is negative.
    """
    choice_nge = torch.unflatten(choice_ne, -1, (moe.n_group, moe.experts_per_group))
    if moe.topk_method == "noaux_tc":
        group_ng = choice_nge.topk(2, dim=-1).values.sum(dim=-1)
    else:
        group_ng = choice_nge.amax(dim=-1)
    best_ng = group_ng.topk(moe.topk_group, dim=-1).indices
    dropped_ng = torch.ones_like(group_ng, dtype=torch.bool).scatter(1, best_ng, False)
    return choice_nge.masked_fill(dropped_ng[..., None], float("-inf")).flatten(1)


class Experts(nn.Module):
    """All routed experts of a layer, fused: gate_up_proj (e, 2i, m) holds gate above up, down_proj is (e, m, i).

    path: `loop` runs expert by expert and is the plain definition; `grouped` runs all of them in one grouped matrix
    product and needs rows of a multiple of 16 bytes; `auto` takes grouped where it can.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        moe, model = config.moe, config.hidden_size
        assert moe is not None
        self.gate_up_proj = nn.Parameter(torch.empty(moe.n_routed_experts, 2 * moe.moe_intermediate_size, model))
        self.down_proj = nn.Parameter(torch.empty(moe.n_routed_experts, model, moe.moe_intermediate_size))
        self.path: ExpertPath = "auto"

    def forward(self, x_nm: Tensor, routing: Routing) -> Tensor:
        """The weighted sum of each token's experts, (n, m) in the type of x."""
        experts, k = self.gate_up_proj.shape[0], routing.indices_nk.shape[1]
        expert_a = routing.indices_nk.flatten()
        order_a = expert_a.argsort(stable=True)  # assignments of one expert stand together, tokens ascending
        token_a = order_a // k
        counts_e = torch.bincount(expert_a, minlength=experts)
        run = self._grouped if self._takes_grouped() else self._loop
        y_am = run(x_nm[token_a], counts_e)
        y_am = y_am * routing.weights_nk.flatten()[order_a, None]
        # Summed in float32 in each token's own order of experts: the result depends on nothing else in the batch.
        y_nkm = torch.unflatten(torch.zeros_like(y_am).index_copy(0, order_a, y_am), 0, (-1, k))
        return y_nkm.sum(dim=1).to(x_nm.dtype)

    def _loop(self, x_am: Tensor, counts_e: Tensor) -> Tensor:
        """Slow twin of `_grouped`: one ordinary MLP for each expert that has tokens."""
        outputs, start = [x_am[:0]], 0
        for expert, count in enumerate(counts_e.tolist()):
            if count:
                gate_up = F.linear(x_am[start : start + count], self.gate_up_proj[expert])
                outputs.append(F.linear(_swiglu(gate_up), self.down_proj[expert]))
                start += count
        return torch.cat(outputs)

    def _grouped(self, x_am: Tensor, counts_e: Tensor) -> Tensor:
        ends_e = counts_e.cumsum(0).to(torch.int32)
        gate_up = F.grouped_mm(x_am, self.gate_up_proj.transpose(1, 2), offs=ends_e)
        return F.grouped_mm(_swiglu(gate_up), self.down_proj.transpose(1, 2), offs=ends_e)

    def _takes_grouped(self) -> bool:
        return self.path == "grouped" or (self.path == "auto" and self._rows_are_aligned())

    def _rows_are_aligned(self) -> bool:
        size = self.down_proj.element_size()
        return all(weight.shape[-1] * size % 16 == 0 for weight in (self.gate_up_proj, self.down_proj))


def _swiglu(gate_up: Tensor) -> Tensor:
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate) * up


class MoE(nn.Module):
    """Routed experts, and shared ones that every token passes through."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        moe = config.moe
        assert moe is not None
        self.gate = Router(config)
        self.experts = Experts(config)
        shared = moe.shared_intermediate_size
        self.shared_experts = Mlp(config.hidden_size, shared, bias=config.mlp_bias) if shared else None

    def forward(self, x_btm: Tensor) -> Tensor:
        y_btm: Tensor = self.experts(x_btm.flatten(0, 1), self.gate(x_btm)).view_as(x_btm)
        return y_btm if self.shared_experts is None else y_btm + self.shared_experts(x_btm)
