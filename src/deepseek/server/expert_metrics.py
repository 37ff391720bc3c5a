"""How evenly experts are used: four figures a layer, whatever the number of experts."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class LayerLoad:
    """Of one layer, all from 0 on.

    entropy: of the shares, divided by that of equal ones; 1 is even. gini: 0 is even, towards 1 all to one expert.
    max_vio: the busiest expert's load above the mean, in means; 0 is even. top_share: of the busiest tenth of experts.
    """

    layer: int
    tokens: int
    entropy: float
    gini: float
    max_vio: float
    top_share: float


def layer_load(layer: int, counts: NDArray[np.int64]) -> LayerLoad:
    """counts: rows that each expert computed; with none at all the load is even."""
    size, total = counts.size, int(counts.sum())
    if total == 0 or size == 1:
        return LayerLoad(layer, total, entropy=1.0, gini=0.0, max_vio=0.0, top_share=_top(size) / size)
    ordered = np.sort(counts).astype(np.float64)
    shares = ordered[ordered > 0] / total
    ranks = np.arange(1, size + 1)
    return LayerLoad(
        layer=layer,
        tokens=total,
        entropy=min(1.0, float(-(shares * np.log(shares)).sum() / np.log(size))),
        gini=float((2 * ranks - size - 1) @ ordered / (size * total)),
        max_vio=float(ordered[-1] * size / total - 1),
        top_share=float(ordered[-_top(size) :].sum() / total),
    )


def _top(size: int) -> int:
    return max(1, round(size / 10))
