"""The engine's settings, each with its default."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, Self, get_args

from deepseek.checkpoint.packed.choose import Quantize, quantize_named
from deepseek.errors import ConfigError
from deepseek.number_types import choice_of

Speculation = Literal["auto", "always", "off"]
SpeculativeMethod = Literal["auto", "mtp", "ngram"]
CacheDtype = Literal["auto", "f16", "int8"]


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineConfig:
    """How an engine runs. Raises ConfigError naming the field.

    allow_unknown_keys: load a model although its files ask for what this version does not compute.
    quantize: precision of the packed weights ("auto", "int4", "int8", "bf16", "f32"; other spellings such as "q4_0" or
    "bfloat16" are taken). threads: None: one for each processor; more than there are processors are not started.
    activation_bits: 8 is faster, 16 more exact; None: 16 for packed weights below half a gigabyte, else 8.
    max_model_len: tokens of prompt and answer together; None: as many as the model takes and the cache holds. Prompts
    that leave no room for an answer are refused; an answer that reaches the limit ends with "length".
    max_num_seqs: sequences that run together. max_num_batched_tokens: tokens computed in one step.
    max_queue: requests that may wait; more are refused.
    kv_cache_bytes: memory for KV; None: chosen by the loader. kv_cache_dtype: "auto", which is "f16":
    16 bits a number: halves of latents, whole numbers with a factor (closer than halves) of keys and values. "int8":
    whole numbers of 8 bits with a factor, in half the memory.
    enable_prefix_caching: KV of earlier prompts and answers is found again.
    speculation: "auto": guess tokens where that is measured to pay; "always": whenever there is a guess; "off".
    speculative_method: who guesses; "mtp": the checkpoint's prediction layers, as many tokens at once as there are
    layers; "ngram": look-up in the prompt and answer; "auto": the first where the checkpoint has such layers.
    max_drafts: tokens guessed at once. max_decode_steps: tokens that the runner may generate in one call.
    record_routing: count which experts are used, over all requests; a request may ask for its own tokens besides.
    step_milliseconds: a step that others wait for is not made longer by prompts, nor by several decode steps in one.
    """

    allow_unknown_keys: bool = False
    quantize: Quantize = "auto"
    threads: int | None = None
    activation_bits: int | None = None
    max_model_len: int | None = None
    max_num_seqs: int = 32
    max_num_batched_tokens: int = 512
    max_queue: int = 1024
    kv_cache_bytes: int | None = None
    kv_cache_dtype: CacheDtype = "auto"
    enable_prefix_caching: bool = True
    speculation: Speculation = "auto"
    speculative_method: SpeculativeMethod = "auto"
    max_drafts: int = 8
    max_decode_steps: int = 8
    step_milliseconds: float = 100.0
    record_routing: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "quantize", quantize_named(self.quantize))
        object.__setattr__(self, "kv_cache_dtype", choice_of(self.kv_cache_dtype, get_args(CacheDtype)))
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type in (int, "int") or (field.type in (int | None, "int | None") and value is not None):
                whole = isinstance(value, int) and not isinstance(value, bool)
                _require(whole and value > 0, field.name, "a whole number above 0", value)
        _require(self.activation_bits in (None, 8, 16), "activation_bits", "8, 16 or None", self.activation_bits)
        for name, kind in (
            ("speculation", Speculation),
            ("speculative_method", SpeculativeMethod),
            ("kv_cache_dtype", CacheDtype),
        ):
            choices, value = get_args(kind), getattr(self, name)
            _require(value in choices, name, f"one of {', '.join(choices)}", value)
        for name in ("allow_unknown_keys", "enable_prefix_caching", "record_routing"):
            value = getattr(self, name)
            _require(isinstance(value, bool), name, "true or false", value)
        _require(self.step_milliseconds > 0, "step_milliseconds", "above 0", self.step_milliseconds)

    @property
    def cache_code_bytes(self) -> int:
        """Bytes of a number in the KV cache."""
        return 1 if self.kv_cache_dtype == "int8" else 2

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Self:
        """From values by name. Raises ConfigError for one that does not exist."""
        known = [field.name for field in fields(cls)]
        if unknown := sorted(settings.keys() - set(known)):
            raise ConfigError(f"unknown setting {unknown[0]!r}; known are {', '.join(known)}")
        return cls(**settings)


def _require(holds: bool, field: str, meaning: str, value: object) -> None:
    if not holds:
        raise ConfigError(f"{field} must be {meaning}, not {value!r}")
