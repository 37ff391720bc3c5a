"""Prints, as JSON, this process's tier and a digest of what sampling makes of fixed numbers. Run as a script."""

import hashlib
import json

import numpy as np

from deepseek.kernels import sampling, selection
from deepseek.kernels.tier import TIER

SIZE = 5003
FILTERS = [  # temperature, top_k, top_p, min_p, typical_p
    (0.0, 0, 1.0, 0.0, 1.0),
    (1.0, 0, 1.0, 0.0, 1.0),
    (0.8, 0, 0.9, 0.0, 1.0),
    (1.0, 40, 0.9, 0.01, 0.9),
]


def digest() -> str:
    """Of tokens and of the weights they were drawn by."""
    rng = np.random.default_rng(0)
    scratch, ids = np.empty(selection.scratch_size(SIZE)), np.zeros(9, np.int32)
    found = hashlib.sha256()
    for draw in range(100):
        row = (rng.standard_normal(SIZE) * 3).astype(np.float32)
        for filters in FILTERS:
            found.update(b"%d " % sampling.sample_row(row, *filters, 5, 0, draw, scratch))
        _, log_total = sampling.rank_row(row, ids.size, ids, scratch)
        found.update(ids.tobytes() + np.float64(log_total).tobytes())
    return found.hexdigest()


if __name__ == "__main__":
    print(json.dumps({"tier": TIER, "digest": digest()}))
