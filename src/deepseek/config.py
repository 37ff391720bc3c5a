"""ModelConfig: one frozen description of an architecture. Every family maps to it, every executor reads it.

Field names are those of the Hugging Face configurations of the DeepSeek models. A value that is None means that the
architecture does not have the thing. Validation happens on construction: a config that exists is a config that can run.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeVar, get_args

from deepseek.errors import ConfigError

RopeScaling = Literal["none", "linear", "llama3", "yarn"]
ScoringFunction = Literal["softmax", "sigmoid", "sqrtsoftplus"]
TopkMethod = Literal["greedy", "group_limited_greedy", "noaux_tc"]
T = TypeVar("T")


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ConfigError(message)


def _require_positive(owner: object, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        _require(
            isinstance(value, int) and not isinstance(value, bool) and value > 0,
            f"{name} must be a whole number above 0, not {value!r}",
        )


def _require_one_of(name: str, value: object, choices: tuple[object, ...]) -> None:
    _require(value in choices, f"{name} must be one of {', '.join(map(str, choices))}, not {value!r}")


@dataclass(frozen=True, kw_only=True, slots=True)
class RopeConfig:
    """Rotary position embedding (RoFormer) and its long-context scalings.

    interleaved: the rotated pairs are (0, 1), (2, 3) ... (DeepSeek V2 on) instead of (0, d/2), (1, d/2 + 1) ...
    factor: by how much `original_max_position_embeddings` is stretched.
    llama3: low_freq_factor, high_freq_factor. yarn (arXiv 2309.00071): beta_fast, beta_slow, mscale, mscale_all_dim,
    attention_factor (multiplies cos and sin; None: derived from factor and the mscales), truncate (whole correction
    dimensions).
    """

    theta: float
    scaling: RopeScaling = "none"
    interleaved: bool = False
    factor: float = 1.0
    original_max_position_embeddings: int | None = None
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float | None = None
    mscale_all_dim: float | None = None
    attention_factor: float | None = None
    truncate: bool = True

    def __post_init__(self) -> None:
        _require_one_of("rope.scaling", self.scaling, get_args(RopeScaling))
        _require(math.isfinite(self.theta) and self.theta > 0, f"rope.theta must be above 0, not {self.theta!r}")
        _require(math.isfinite(self.factor) and self.factor > 0, f"rope.factor must be above 0, not {self.factor!r}")
        if self.scaling in ("llama3", "yarn"):
            _require_positive(self, "original_max_position_embeddings")
        if self.scaling == "llama3":
            _require(
                0 < self.low_freq_factor < self.high_freq_factor,
                f"rope.low_freq_factor ({self.low_freq_factor}) must be above 0 and below "
                f"rope.high_freq_factor ({self.high_freq_factor})",
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class MlaConfig:
    """Multi-head latent attention (DeepSeek-V2, section 2.1).

    q_lora_rank: rank of the query compression; None: queries are projected directly.
    latent_norm_eps: epsilon of q_a_layernorm and kv_a_layernorm (1e-6 in every release, whatever rms_norm_eps says).
    """

    kv_lora_rank: int
    q_lora_rank: int | None
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    latent_norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        _require_positive(self, "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
        if self.q_lora_rank is not None:
            _require_positive(self, "q_lora_rank")
        _require(self.qk_rope_head_dim % 2 == 0, f"qk_rope_head_dim must be even, not {self.qk_rope_head_dim}")

    @property
    def qk_head_dim(self) -> int:
        return self.qk_nope_head_dim + self.qk_rope_head_dim


@dataclass(frozen=True, kw_only=True, slots=True)
class MoeConfig:
    """The mixture-of-experts layer (DeepSeekMoE; V2 section 2.2; V3 section 2.1.2).

    topk_method: greedy; group_limited_greedy (V2: a group scores by its best expert); noaux_tc (V3: a group scores by
    the sum of its two best, and a correction bias takes part in the choice but not in the weight).
    norm_topk_prob: the chosen weights are divided by their sum. n_shared_experts: one MLP of that many widths; 0: none.
    Layers below first_k_dense_replace are dense, as are those that moe_layer_freq does not divide.
    """

    n_routed_experts: int
    num_experts_per_tok: int
    moe_intermediate_size: int
    n_shared_experts: int = 0
    scoring_func: ScoringFunction = "softmax"
    topk_method: TopkMethod = "greedy"
    n_group: int = 1
    topk_group: int = 1
    norm_topk_prob: bool = False
    routed_scaling_factor: float = 1.0
    first_k_dense_replace: int = 0
    moe_layer_freq: int = 1

    def __post_init__(self) -> None:
        _require_positive(
            self,
            "n_routed_experts",
            "num_experts_per_tok",
            "moe_intermediate_size",
            "n_group",
            "topk_group",
            "moe_layer_freq",
        )
        _require_one_of("scoring_func", self.scoring_func, get_args(ScoringFunction))
        _require_one_of("topk_method", self.topk_method, get_args(TopkMethod))
        _require(self.n_shared_experts >= 0, f"n_shared_experts must not be negative, not {self.n_shared_experts}")
        _require(
            self.first_k_dense_replace >= 0,
            f"first_k_dense_replace must not be negative, not {self.first_k_dense_replace}",
        )
        _require(
            self.n_routed_experts % self.n_group == 0,
            f"n_routed_experts ({self.n_routed_experts}) must be a multiple of n_group ({self.n_group})",
        )
        _require(
            self.topk_group <= self.n_group,
            f"topk_group ({self.topk_group}) must not be above n_group ({self.n_group})",
        )
        _require(
            self.topk_method != "greedy" or self.topk_group == self.n_group,
            f"topk_method 'greedy' has no groups, but topk_group is {self.topk_group} of n_group {self.n_group}",
        )
        _require(
            self.topk_method != "noaux_tc" or self.experts_per_group >= 2 or self.n_group == 1,
            f"a group of topk_method 'noaux_tc' scores by its two best experts; n_group {self.n_group} leaves fewer",
        )
        _require(
            self.num_experts_per_tok <= self.experts_per_group * self.topk_group,
            f"num_experts_per_tok ({self.num_experts_per_tok}) must not be above the "
            f"{self.experts_per_group * self.topk_group} experts that n_group and topk_group leave to choose from",
        )
        _require(
            math.isfinite(self.routed_scaling_factor),
            f"routed_scaling_factor must be finite, not {self.routed_scaling_factor}",
        )

    @property
    def experts_per_group(self) -> int:
        return self.n_routed_experts // self.n_group

    @property
    def has_correction_bias(self) -> bool:
        return self.topk_method == "noaux_tc"

    @property
    def shared_intermediate_size(self) -> int:
        return self.n_shared_experts * self.moe_intermediate_size


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexerConfig:
    """The lightning indexer of DeepSeek sparse attention (V3.2): picks `index_topk` keys for each query."""

    index_n_heads: int
    index_head_dim: int
    index_topk: int

    def __post_init__(self) -> None:
        _require_positive(self, "index_n_heads", "index_head_dim", "index_topk")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """A decoder-only transformer. Sizes count elements; see the part classes for attention, experts and positions.

    attention_bias: biases on the query, key and value projections (with latent attention: on q_a and kv_a).
    attention_output_bias, mlp_bias: on o_proj; on gate, up and down. qk_norm: RMSNorm on each query and key head.
    sliding_window: layers from max_window_layers on see that many tokens back; None: all layers see everything.
    num_nextn_predict_layers: multi-token prediction layers after the last (V3 section 2.2).
    fp8_block: rows and columns that share a scale in the checkpoint's FP8 weights; None: not FP8.
    """

    family: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    rms_norm_eps: float
    rope: RopeConfig
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    attention_output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    sliding_window: int | None = None
    max_window_layers: int = 0
    mla: MlaConfig | None = None
    moe: MoeConfig | None = None
    indexer: IndexerConfig | None = None
    num_nextn_predict_layers: int = 0
    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...] = ()
    pad_token_id: int | None = None
    fp8_block: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        _require_positive(
            self,
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "num_key_value_heads",
            "head_dim",
            "max_position_embeddings",
        )
        _require(
            math.isfinite(self.rms_norm_eps) and self.rms_norm_eps > 0,
            f"rms_norm_eps must be above 0, not {self.rms_norm_eps!r}",
        )
        _require(
            self.num_attention_heads % self.num_key_value_heads == 0,
            f"num_attention_heads ({self.num_attention_heads}) must be a multiple of "
            f"num_key_value_heads ({self.num_key_value_heads})",
        )
        _require(self.head_dim % 2 == 0, f"head_dim must be even (rotary pairs), not {self.head_dim}")
        _require(
            self.num_nextn_predict_layers >= 0,
            f"num_nextn_predict_layers must not be negative, not {self.num_nextn_predict_layers}",
        )
        if self.sliding_window is not None:
            _require_positive(self, "sliding_window")
        if self.mla is not None:
            _require(
                self.num_key_value_heads == self.num_attention_heads,
                "latent attention has as many key and value heads as query heads: num_key_value_heads is "
                f"{self.num_key_value_heads}, num_attention_heads {self.num_attention_heads}",
            )
        if self.indexer is not None:
            _require(
                self.mla is not None and self.mla.q_lora_rank is not None,
                "the sparse-attention indexer reads the compressed query: it needs latent attention with q_lora_rank",
            )
        self._check_token_ids()

    def _check_token_ids(self) -> None:
        ids = {"bos_token_id": self.bos_token_id, "pad_token_id": self.pad_token_id}
        ids |= {f"eos_token_ids[{i}]": token for i, token in enumerate(self.eos_token_ids)}
        for name, token in ids.items():
            _require(
                token is None or 0 <= token < self.vocab_size,
                f"{name} is {token}, outside the vocabulary of {self.vocab_size} (vocab_size)",
            )

    @property
    def rope_dim(self) -> int:
        """How many elements of a head are rotated."""
        return self.mla.qk_rope_head_dim if self.mla else self.head_dim

    def is_moe_layer(self, layer: int) -> bool:
        """Whether `layer` has experts. Prediction layers (from num_hidden_layers on) are like the last layers."""
        moe = self.moe
        if moe is None:
            return False
        return layer >= moe.first_k_dense_replace and layer % moe.moe_layer_freq == 0

    def window_of(self, layer: int) -> int | None:
        """How many tokens back `layer` sees, itself included; None: all."""
        return self.sliding_window if layer >= self.max_window_layers else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `from_dict` takes them. Not the Hugging Face layout: `families` writes that."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Raises ConfigError naming every key that is unknown or missing."""
        parts = {"rope": RopeConfig, "mla": MlaConfig, "moe": MoeConfig, "indexer": IndexerConfig}
        given = dict(values)
        for name, part in parts.items():
            if isinstance(given.get(name), Mapping):
                given[name] = _build(part, given[name], f"{name}.")
        for name in ("eos_token_ids", "fp8_block"):
            if isinstance(given.get(name), list):
                given[name] = tuple(given[name])
        return _build(cls, given, "")


def _build(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    if unknown := sorted(values.keys() - fields.keys()):
        raise ConfigError(f"unknown key {where}{unknown[0]}; known are {', '.join(sorted(fields))}")
    needed = {name for name, field in fields.items() if field.default is dataclasses.MISSING}
    if missing := sorted(needed - values.keys()):
        raise ConfigError(f"missing key {where}{missing[0]}")
    return cls(**values)
