"""One dial: from a size, the shape of a DeepSeek-V3-like mixture of experts, or of its dense twin, and how to train it.

The shape follows V3 (arXiv 2412.19437, 4.2) scaled down: latent attention, one dense layer first, one shared expert,
sigmoid router with correction bias, one prediction layer. Batch and learning rate follow the fits of DeepSeek LLM
(arXiv 2401.02954, section 3.1) in the compute of the run.
"""

from bisect import bisect_left
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

from deepseek.config import MlaConfig, ModelConfig, MoeConfig, RopeConfig
from deepseek.errors import ConfigError
from deepseek.families.sizes import ModelSize, model_size

Kind = Literal["moe", "dense"]

TOKENS_PER_ACTIVE_PARAMETER = 20  # where a run says neither tokens nor steps (arXiv 2203.15556)
# The fits were made above 1e17 FLOPs. Far below, on recipes/smoke.toml, 4e-3 learned faster than the fit's 9e-3.
LARGEST_LEARNING_RATE = 4e-3
SMALLEST, LARGEST = 0.5, 20_000.0  # million parameters
_WIDTH_STEP = 32
_WIDEST = 4096
_COARSE = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class DerivedTraining:
    """batch_tokens: in one optimiser step. learning_rate: the peak."""

    tokens: int
    batch_tokens: int
    learning_rate: float


def derived_config(size: float, kind: Kind, *, vocab_size: int, context: int) -> ModelConfig:
    """The shape whose mixture of experts has nearest to `size` million parameters, prediction layer not counted.

    dense: the same layers with MLPs instead of experts, as wide as makes the active parameters equal.
    Raises ConfigError for a size out of range.
    """
    if not SMALLEST <= size <= LARGEST:
        raise ConfigError(f"size must be between {SMALLEST} and {LARGEST:,.0f} (million parameters), not {size}")
    moe = _nearest(size * 1e6, vocab_size, context)
    return moe if kind == "moe" else dense_twin(moe)


def _nearest(parameters: float, vocab_size: int, context: int) -> ModelConfig:
    """By width, in steps; where a step is too coarse (the number of experts doubles there), by depth too."""
    counted = cache(lambda width, deeper: model_size(_moe_config(width, deeper, vocab_size, context)).total)
    widths = range(_WIDTH_STEP, _WIDEST + 1, _WIDTH_STEP)
    above = min(bisect_left(widths, parameters, key=lambda width: counted(width, 0)), len(widths) - 1)
    near = widths[max(0, above - 1) : above + 1]

    def error(shape: tuple[int, int]) -> float:
        return abs(counted(*shape) / parameters - 1)

    best = min(((width, 0) for width in near), key=error)
    if error(best) > _COARSE:
        best = min(((width, deeper) for width in near for deeper in (-1, 0, 1, 2, 3)), key=error)
    return _moe_config(*best, vocab_size, context)


def _moe_config(width: int, deeper: int, vocab_size: int, context: int) -> ModelConfig:
    heads = max(2, width // 64)
    experts = 8 if width < 128 else 16 if width < 256 else 32 if width < 768 else 64
    expert_width = _multiple(width / 2, 32)
    mla = MlaConfig(
        q_lora_rank=_multiple(width / 2, 32),
        kv_lora_rank=_multiple(width / 4, 32),
        qk_nope_head_dim=32,
        qk_rope_head_dim=32,
        v_head_dim=_multiple(width / heads, 32),
    )
    return ModelConfig(
        family="deepseek_v3",
        vocab_size=vocab_size,
        hidden_size=width,
        intermediate_size=_multiple(width * 8 / 3, 64),
        num_hidden_layers=max(2, round(width / 48) + deeper),
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=mla.qk_head_dim,
        max_position_embeddings=context,
        rms_norm_eps=1e-6,
        rope=RopeConfig(theta=10_000.0, interleaved=True),
        mla=mla,
        moe=MoeConfig(
            n_routed_experts=experts,
            num_experts_per_tok=2 if experts < 16 else 4,
            moe_intermediate_size=expert_width,
            n_shared_experts=1,
            scoring_func="sigmoid",
            topk_method="noaux_tc",
            norm_topk_prob=True,
            routed_scaling_factor=1.0,
            first_k_dense_replace=1,
        ),
        num_nextn_predict_layers=1,
    )


def dense_twin(config: ModelConfig) -> ModelConfig:
    """The same model with an MLP in every layer, each as wide as the experts that a token of `config` passes through.

    Its layers are those of the family's dense first layers, so that every program that runs the family runs it.
    Equal in active parameters up to the router's (a token is not routed here).
    """
    moe = config.moe
    assert moe is not None
    layers = config.num_hidden_layers
    routed = sum(config.is_moe_layer(layer) for layer in range(layers))
    active_width = (moe.num_experts_per_tok + moe.n_shared_experts) * moe.moe_intermediate_size
    total = (layers - routed) * config.intermediate_size + routed * active_width
    return replace(
        config,
        intermediate_size=_multiple(total / layers, 32),
        moe=replace(moe, first_k_dense_replace=layers + config.num_nextn_predict_layers),
    )


def derived_training(config: ModelConfig, tokens: int | None) -> DerivedTraining:
    """tokens: of the whole run; None: TOKENS_PER_ACTIVE_PARAMETER of them."""
    active = model_size(config).active
    tokens = tokens or active * TOKENS_PER_ACTIVE_PARAMETER
    compute = 6.0 * active * tokens
    return DerivedTraining(
        tokens=tokens,
        batch_tokens=round(0.2920 * compute**0.3271),
        learning_rate=min(LARGEST_LEARNING_RATE, 0.3118 * compute**-0.1250),
    )


def _multiple(value: float, of: int) -> int:
    return max(1, round(value / of)) * of


def describe(config: ModelConfig) -> dict[str, int | float | None]:
    """What the dial decided, for people: shape and parameters."""
    size: ModelSize = model_size(config)
    moe, mla = config.moe, config.mla
    facts: dict[str, int | float | None] = {
        "parameters": size.total,
        "active parameters": size.active,
        "MTP layers' parameters, on top": size.mtp,
        "layers": config.num_hidden_layers,
        "hidden size": config.hidden_size,
        "heads": config.num_attention_heads,
        "dense MLP width": config.intermediate_size,
    }
    if mla is not None:
        facts |= {"query rank": mla.q_lora_rank, "key-value rank": mla.kv_lora_rank, "value head": mla.v_head_dim}
    if moe is not None and config.is_moe_layer(config.num_hidden_layers - 1):
        facts |= {
            "routed experts": moe.n_routed_experts,
            "experts per token": moe.num_experts_per_tok,
            "shared experts": moe.n_shared_experts,
            "expert width": moe.moe_intermediate_size,
        }
    return facts
