"""Prints this process's tier and digests of what latent attention makes of fixed numbers, as JSON. Run as a script."""

import hashlib
import json
from dataclasses import replace

import numpy as np

from deepseek.config import IndexerConfig
from deepseek.kernels.tier import TIER
from latent_world import INT8, TINY, LatentWorld, Weights, config_of, inputs

SPARSE = IndexerConfig(index_n_heads=3, index_head_dim=20, index_topk=9)


def digests() -> dict[str, str]:
    """By form; of a sparse model, so that everything takes part."""
    weights = Weights(config_of(replace(TINY, q_lora_rank=14), heads=3, indexer=SPARSE), INT8)
    x = inputs(weights.config, 40)
    found = {
        f"{form}, {code_bytes}": LatentWorld(weights, code_bytes=code_bytes).whole(x, n_prompt, [40])
        for form, n_prompt in (("expanded", 40), ("absorbed", 0))
        for code_bytes in (1, 2)
    }
    return {form: hashlib.sha256(np.ascontiguousarray(out + 0.0)).hexdigest() for form, out in found.items()}


if __name__ == "__main__":
    print(json.dumps({"tier": TIER, **digests()}))
