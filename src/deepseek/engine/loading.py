"""From files to a runner: the packed store, and how much memory and how many threads it gets."""

import logging
from pathlib import Path

from deepseek.checkpoint.packed import ensure_packed
from deepseek.config import ModelConfig
from deepseek.engine.engine_config import EngineConfig
from deepseek.engine.free_memory import free_memory
from deepseek.engine.runner import CpuRunner, block_bytes
from deepseek.errors import ConfigError
from deepseek.kernels.attention import TILE_ROWS
from deepseek.kernels.attention_store import BLOCK, MAX_WIDTH
from deepseek.kernels.team import default_threads
from deepseek.progress import Report, silent

_log = logging.getLogger("deepseek.engine")

SMALL_MODEL_BYTES = 500_000_000
"""Below it, four bits leave so little that 8-bit activations change answers: 16 bits are the default."""
_SHARE_FOR_KV = 4  # of the memory that is free, one part in so many
_MOST_KV_BYTES = 4 << 30


def load_runner(path: str | Path, config: EngineConfig, report: Report = silent) -> CpuRunner:
    """Pack the checkpoint if that was not done before, map it, and make what runs it.

    Raises CheckpointError, and ConfigError for settings that do not fit.
    """
    store = ensure_packed(Path(path), quantize=config.quantize, allow_unknown=config.allow_unknown_keys, report=report)
    model = store.config
    _check_heads(model)
    length = min(config.max_model_len or model.max_position_embeddings, model.max_position_embeddings)
    if config.max_model_len and config.max_model_len > model.max_position_embeddings:
        raise ConfigError(
            f"max_model_len is {config.max_model_len}, but this model takes {model.max_position_embeddings} tokens "
            "(max_position_embeddings)"
        )
    predicts = _predicts(model, config)
    bytes_a_block = block_bytes(model, config.cache_code_bytes, predicts=predicts)
    kv_bytes = _kv_bytes(config, length, bytes_a_block)
    bits = config.activation_bits or (16 if store.data.nbytes < SMALL_MODEL_BYTES else 8)
    return CpuRunner(
        store,
        threads=_threads(config.threads),
        kv_cache_bytes=kv_bytes,
        max_model_len=length,
        max_tokens_per_step=config.max_num_batched_tokens,
        max_sequences=config.max_num_seqs,
        wide_activations=bits == 16,
        predicts=predicts,
        cache_code_bytes=config.cache_code_bytes,
        report=report,
    )


def _threads(wanted: int | None) -> int:
    """As asked, but no more than there are processors: threads beyond wait for each other at every barrier."""
    processors = default_threads()
    if wanted is None or wanted <= processors:
        return wanted or processors
    _log.warning(
        "threads is %d, but this process may use %d processors: %d threads run", wanted, processors, processors
    )
    return processors


def _check_heads(model: ModelConfig) -> None:
    """Raises ConfigError for heads that the attention kernel has no room for."""
    heads = model.num_attention_heads // model.num_key_value_heads
    if model.mla is None and (model.head_dim > MAX_WIDTH or heads > TILE_ROWS):
        raise ConfigError(
            f"head_dim is {model.head_dim} and {heads} query heads share a key head; the engine takes up to "
            f"{MAX_WIDTH} and {TILE_ROWS}: use --backend torch"
        )


def _predicts(model: ModelConfig, config: EngineConfig) -> bool:
    """Whether the checkpoint's prediction layers are to draft. Raises ConfigError if they are asked for but missing."""
    if config.speculation == "off" or config.speculative_method == "ngram":
        return False
    if config.speculative_method == "mtp" and not model.num_nextn_predict_layers:
        raise ConfigError(
            "speculative_method is mtp, but this checkpoint has no MTP layers (num_nextn_predict_layers is 0): "
            "use ngram or auto"
        )
    return model.num_nextn_predict_layers > 0


def _kv_bytes(config: EngineConfig, length: int, bytes_a_block: int) -> int:
    """As asked, else what all sequences at full length would fill, but no more than a share of the free memory.

    Raises ConfigError for more than there is: the system would kill the process once the cache fills.
    """
    free = free_memory()
    if config.kv_cache_bytes is None:
        wanted = config.max_num_seqs * -(-length // BLOCK) * bytes_a_block
        return max(bytes_a_block, min(wanted, free // _SHARE_FOR_KV, _MOST_KV_BYTES))
    if config.kv_cache_bytes > free:
        raise ConfigError(
            f"kv_cache_bytes is {config.kv_cache_bytes}, but only {free} bytes of memory are free: lower it"
        )
    return config.kv_cache_bytes
