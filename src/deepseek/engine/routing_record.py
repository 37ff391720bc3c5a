"""Which experts each token used: filled by the kernels while it is on, in memory that is made once.

Totals go on over the steps; ids and weights are of the last step, or of all rounds of it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepseek.config import ModelConfig
from deepseek.kernels.team import aligned

_OFF = -1


@dataclass(frozen=True)
class RoutingRecord:
    """layers: their numbers, in the order of the first axis of all arrays.

    ids (layers, rows, k) int32, best first; weights the same in float32; totals (layers, experts) int64: rows that each
    expert computed. at: number of the row at which the next round writes, negative while the record is off.
    """

    layers: tuple[int, ...]
    ids: NDArray[np.int32]
    weights: NDArray[np.float32]
    totals: NDArray[np.int64]
    at: NDArray[np.int64]

    @classmethod
    def of(cls, config: ModelConfig, rows: int) -> "RoutingRecord":
        """Off. rows: of all rounds of a step together; what goes beyond is counted in the totals only."""
        moe = config.moe
        assert moe is not None
        layers = tuple(layer for layer in range(config.num_hidden_layers) if config.is_moe_layer(layer))
        shape = (len(layers), rows, moe.num_experts_per_tok)
        count = int(np.prod(shape))
        return cls(
            layers,
            ids=aligned(count, np.int32).reshape(shape),
            weights=aligned(count, np.float32).reshape(shape),
            totals=aligned(len(layers) * moe.n_routed_experts, np.int64).reshape(len(layers), -1),
            at=np.array([_OFF], np.int64),
        )

    def start(self) -> None:
        """Before a step whose routing is wanted."""
        self.at[0] = 0

    def stop(self) -> None:
        self.at[0] = _OFF

    @property
    def is_on(self) -> bool:
        return bool(self.at[0] >= 0)
