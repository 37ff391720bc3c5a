"""The configuration of a carved model: GLM-4.5's layout, whose routers can give every chosen expert the weight 1.

A dense layer is the plain sum of its parts, so every expert must count once. A sigmoid router whose logits are tiny
gives every expert a score of one half (to a part in 4,000); unnormalised and scaled by two these are the
weights, while the order of the logits, and of the correction biases beside them, still decides who is chosen.
"""

from dataclasses import replace

from torch import Tensor

from deepseek.config import ModelConfig, MoeConfig
from deepseek.errors import ConfigError

LOGIT_SIZE = 1e-3
"""Standard deviation of a stored logit. Weights differ from 1 by half of it; float32 has 4,000 scores in it."""

_DENSE = ("llama", "qwen2", "qwen3")


def carved_config(dense: ModelConfig, *, experts: int, active: int, shared: int, width: int) -> ModelConfig:
    """Experts and shared experts of `width` neurons in every layer. Raises ConfigError for what has no place there."""
    check_dense(dense)
    moe = MoeConfig(
        n_routed_experts=experts,
        num_experts_per_tok=active,
        moe_intermediate_size=width,
        n_shared_experts=shared,
        scoring_func="sigmoid",
        topk_method="noaux_tc",
        norm_topk_prob=False,
        routed_scaling_factor=2.0,
    )
    return replace(
        dense, family="glm4_moe", moe=moe, attention_output_bias=False, max_window_layers=0, sliding_window=None
    )


def check_dense(dense: ModelConfig) -> None:
    """Raises ConfigError unless this is a dense model that the layout can hold."""
    if dense.moe is not None or dense.family not in _DENSE:
        raise ConfigError(f"family {dense.family!r} cannot be carved: dense models of {', '.join(_DENSE)} can")
    if dense.mlp_bias or dense.attention_output_bias:
        raise ConfigError("mlp_bias and a bias on o_proj have no place in the carved model's layout (glm4_moe)")
    if dense.sliding_window is not None:
        raise ConfigError("sliding_window has no place in the carved model's layout (glm4_moe)")


def stored_router(weight_em: Tensor, bias_e: Tensor) -> tuple[Tensor, Tensor]:
    """Router weights and correction biases as the checkpoint holds them, of logits x @ weight + bias of spread 1."""
    # The sigmoid's slope at 0 is a quarter: a bias that is added to the score counts four times that in the logit.
    return weight_em * LOGIT_SIZE, (bias_e * (LOGIT_SIZE / 4)).float()
