"""Expert layers of three kinds of router, as digests of what they give. Run as a script: prints them with the tier."""

import hashlib
import json
from dataclasses import replace

import numpy as np

from deepseek.config import MoeConfig
from deepseek.kernels.tier import TIER
from expert_layers import ExpertLayer

SOFTMAX = MoeConfig(
    n_routed_experts=20,
    num_experts_per_tok=3,
    moe_intermediate_size=40,
    n_shared_experts=2,
    topk_method="group_limited_greedy",
    n_group=4,
    topk_group=2,
    routed_scaling_factor=1.7,
)
SIGMOID = replace(SOFTMAX, topk_method="noaux_tc", scoring_func="sigmoid", norm_topk_prob=True)
ROUTERS = {"softmax": SOFTMAX, "sigmoid": SIGMOID, "sqrtsoftplus": replace(SIGMOID, scoring_func="sqrtsoftplus")}


def digests() -> dict[str, str]:
    found = {}
    for name, moe in ROUTERS.items():
        rng = np.random.default_rng(1)
        layer = ExpertLayer(moe, rng, hidden=50, packings=["int4-g32", "bf16"], shared="f32")
        digest = hashlib.sha256(layer.run(rng.standard_normal((13, 50)).astype(np.float32), threads=2).tobytes())
        for array in layer.routing(13):
            digest.update(array.tobytes())
        found[name] = digest.hexdigest()[:16]
    return found


if __name__ == "__main__":
    print(json.dumps({"tier": TIER, **digests()}))
