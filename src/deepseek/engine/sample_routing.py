"""Which experts the tokens of one sample used, gathered from the steps that computed them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from deepseek.engine.batch import Batch
    from deepseek.engine.routing_record import RoutingRecord
    from deepseek.engine.sequence import Sequence


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleRouting:
    """layers: numbers of the layers with experts. experts (tokens, layers, k) int32, the best first; weights the same
    in float32. tokens: those asked for, at most prompt and answer but the last, which nothing was computed for.
    """

    layers: tuple[int, ...]
    experts: "NDArray[np.int32]"
    weights: "NDArray[np.float32]"


class RoutingPieces:
    """What each step said of a sample's tokens, in order; of a token computed twice, the later counts."""

    def __init__(self, layers: tuple[int, ...]) -> None:
        self._layers = layers
        self._pieces: list[tuple[int, NDArray[np.int32], NDArray[np.float32]]] = []

    def add(self, start: int, experts: "NDArray[np.int32]", weights: "NDArray[np.float32]") -> None:
        """(layers, tokens, k) for the tokens from `start` on; copied."""
        self._pieces.append((start, experts.copy(), weights.copy()))

    def copy(self) -> "RoutingPieces":
        other = RoutingPieces(self._layers)
        other._pieces = list(self._pieces)
        return other

    def between(self, start: int, end: int) -> SampleRouting:
        """Of tokens [start, end), all of them computed. The newest pieces are looked at first, and only as needed."""
        pieces = self._pieces
        shape = (end - start, *pieces[0][1].shape[::2]) if pieces else (0, len(self._layers), 0)
        experts, weights = np.zeros(shape, np.int32), np.zeros(shape, np.float32)
        missing = np.ones(shape[0], bool)
        for place, some_experts, some_weights in reversed(pieces):
            first, last = max(place, start), min(place + some_experts.shape[1], end)
            if first >= last:
                continue
            fresh = np.flatnonzero(missing[first - start : last - start])
            rows, columns = fresh + first - start, fresh + first - place
            experts[rows] = some_experts[:, columns].transpose(1, 0, 2)
            weights[rows] = some_weights[:, columns].transpose(1, 0, 2)
            missing[rows] = False
            if not missing.any():
                break
        return SampleRouting(layers=self._layers, experts=experts, weights=weights)


def watch(batch: "Batch", record: "RoutingRecord", *, always: bool) -> None:
    """Before a step: turn the record on if anybody wants it."""
    if always or any(chunk.sequence.routing is not None for chunk in batch.chunks):
        record.start()
    elif record.is_on:
        record.stop()


def gather(batch: "Batch", record: "RoutingRecord") -> None:
    """After a step: give each sequence that wants it its rows. They lie in chunk order, once a round of `steps`."""
    row = 0
    for place, chunk in enumerate(batch.chunks):
        pieces = chunk.sequence.routing
        if pieces is not None:
            if batch.steps > 1:
                rows = slice(place, batch.steps * len(batch.chunks), len(batch.chunks))
            else:
                rows = slice(row, row + chunk.count)
            pieces.add(chunk.start, record.ids[:, rows], record.weights[:, rows])
        row += chunk.count


def routing_of(sequence: "Sequence", start: int = 0, end: int | None = None) -> SampleRouting | None:
    """Of tokens [start, end); end None: of all computed until now. None where it was not asked for."""
    if sequence.routing is None:
        return None
    return sequence.routing.between(start, len(sequence.token_ids) - 1 if end is None else end)
