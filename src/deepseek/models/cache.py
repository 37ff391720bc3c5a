"""What is kept of earlier tokens, so that each new token costs one step. For inference: no gradient passes through."""

import torch
from torch import Tensor

from deepseek.config import ModelConfig


class GrowingTensor:
    """Rows (b, tokens, ...) appended along dimension 1. Memory doubles when full, so appending is cheap on average."""

    def __init__(self, capacity: int = 0) -> None:
        self.length = 0
        self._reserve = capacity
        self._rows: Tensor | None = None

    def append(self, new_bt: Tensor) -> Tensor:
        """Add rows; returns all rows so far, a view that stays valid until the next call."""
        end = self.length + new_bt.shape[1]
        rows = self._room_for(new_bt, end)
        rows[:, self.length : end] = new_bt.detach()
        self.length = end
        return rows[:, :end]

    def truncate(self, length: int) -> None:
        self.length = min(self.length, length)

    def keep_rows(self, batch_rows: Tensor) -> None:
        """Keep these sequences of the batch, in this order."""
        if self._rows is not None:
            self._rows = self._rows[batch_rows]

    @property
    def nbytes(self) -> int:
        return 0 if self._rows is None else self._rows.nbytes

    def _room_for(self, new_bt: Tensor, end: int) -> Tensor:
        rows = self._rows
        if rows is not None and end <= rows.shape[1]:
            return rows
        capacity = max(end, self._reserve, 0 if rows is None else 2 * rows.shape[1])
        grown = new_bt.new_empty(new_bt.shape[0], capacity, *new_bt.shape[2:])
        if rows is not None:
            grown[:, : self.length] = rows[:, : self.length]
        self._rows = grown
        return grown


class LayerCache:
    """One layer's memory: keys and values, or latents and rotated keys (latent attention), and indexer keys."""

    def __init__(self, capacity: int) -> None:
        self.keys = GrowingTensor(capacity)
        self.values = GrowingTensor(capacity)
        self.latents = GrowingTensor(capacity)
        self.rope_keys = GrowingTensor(capacity)
        self.index_keys = GrowingTensor(capacity)

    @property
    def parts(self) -> tuple[GrowingTensor, ...]:
        return self.keys, self.values, self.latents, self.rope_keys, self.index_keys


class KVCache:
    """The memory of a batch of sequences, made empty and filled by the model.

    capacity: tokens to make room for at once; more may come. Layers from num_hidden_layers on are prediction layers.
    """

    def __init__(self, config: ModelConfig, capacity: int = 0) -> None:
        self.layers = [LayerCache(capacity) for _ in range(config.num_hidden_layers + config.num_nextn_predict_layers)]

    @property
    def length(self) -> int:
        """Tokens held, padding included."""
        return self.length_of(0)

    def length_of(self, layer: int) -> int:
        return max(part.length for part in self.layers[layer].parts)

    @property
    def nbytes(self) -> int:
        """Memory taken, room for growth included."""
        return sum(part.nbytes for layer in self.layers for part in layer.parts)

    def truncate(self, length: int) -> None:
        """Forget all tokens from `length` on, in every layer."""
        for layer in range(len(self.layers)):
            self.truncate_layer(layer, length)

    def truncate_layer(self, layer: int, length: int) -> None:
        for part in self.layers[layer].parts:
            part.truncate(length)

    def keep_rows(self, batch_rows: list[int]) -> None:
        """Drop finished sequences: keep these rows of the batch."""
        for layer in self.layers:
            for part in layer.parts:
                part.keep_rows(torch.tensor(batch_rows))
