"""Runs latent attention on buffers that end at a page nobody may touch, see `guarded_memory`. A script."""

from dataclasses import replace

import numpy as np

from deepseek.config import IndexerConfig, MlaConfig
from deepseek.engine.plan_builder import Memory
from guarded_memory import guarded
from latent_world import F32, INT8, TINY, LatentWorld, Weights, config_of, inputs

ODD = MlaConfig(kv_lora_rank=100, q_lora_rank=20, qk_nope_head_dim=70, qk_rope_head_dim=6, v_head_dim=33)
SPARSE = IndexerConfig(index_n_heads=3, index_head_dim=20, index_topk=9)


def zeros(memory: Memory, count: int, dtype: str) -> np.ndarray:
    array = guarded((max(count, 1),), dtype)
    memory._kept.append(array)
    return array


Memory.zeros = zeros  # type: ignore[method-assign]


def run() -> None:
    for config in (config_of(ODD, hidden=50, heads=5), config_of(replace(TINY, q_lora_rank=14), indexer=SPARSE)):
        for packing, wide, code_bytes in ((INT8, True, 2), (F32, False, 1)):
            weights = Weights(config, packing)
            world = LatentWorld(weights, threads=2, rows=70, blocks=4, chunks=3, wide=wide, code_bytes=code_bytes)
            for n_prompt in (70, 0, 33):
                assert np.isfinite(world.whole(inputs(config, 70), n_prompt, [33, 37])).all()


if __name__ == "__main__":
    run()
    print("within bounds")
