"""The mixture-of-experts layer (DeepSeekMoE, arXiv 2401.06066; V2 section 2.2; V3 section 2.1.2).

Shape suffixes: b batch, t tokens of a sequence, n tokens of both together, m model size, e experts, g groups, k chosen
experts.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepseek.config import ModelConfig, MoeConfig, ScoringFunction
from deepseek.models.experts import Experts
from deepseek.models.mlp import Mlp
from deepseek.models.routing import Routing


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
        return self.chosen(F.linear(x.reshape(-1, x.shape[-1]).float(), self.weight.float()))

    def chosen(self, logits_ne: Tensor) -> Routing:
        """The routing for these products of tokens and router."""
        moe = self.moe
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
