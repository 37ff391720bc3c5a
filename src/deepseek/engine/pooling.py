"""Embeddings: the hidden states of a prompt, pooled to one vector as its chunks are computed."""

from typing import TYPE_CHECKING, Literal

import numpy as np

from deepseek.errors import GenerationError

if TYPE_CHECKING:
    from numpy.typing import NDArray

PoolingKind = Literal["mean", "last"]


def check_pooling(kind: str) -> None:
    if kind not in ("mean", "last"):
        raise GenerationError(f"pooling must be mean or last, not {kind!r:.200}")


class Pooling:
    """ "mean": of all tokens; "last": the last token's. The same for any division into chunks: tokens are added one by
    one, in float64.
    """

    def __init__(self, kind: PoolingKind) -> None:
        self._kind = kind
        self._sum: NDArray[np.float64] | None = None
        self._tokens = 0

    def add(self, start: int, hidden: "NDArray[np.float32]") -> None:
        """The next tokens' final hidden states, (tokens, hidden_size). start: of what; 0 begins anew."""
        if start == 0:
            self._sum, self._tokens = None, 0
        rows = hidden.astype(np.float64)
        if self._kind == "last":
            self._sum, self._tokens = rows[-1], 1
            return
        earlier = [] if self._sum is None else [self._sum[None]]
        self._sum = np.add.reduce(np.concatenate((*earlier, rows)), axis=0)
        self._tokens += len(rows)

    def vector(self, *, normalize: bool) -> "NDArray[np.float32]":
        """(hidden_size,). normalize: of length 1."""
        assert self._sum is not None
        mean = self._sum / self._tokens
        if normalize:
            mean /= max(float(np.sqrt((mean * mean).sum())), 1e-12)
        return mean.astype(np.float32)


def normed_rows(rows: "NDArray[np.float32]", weight: "NDArray[np.float32]", epsilon: float) -> "NDArray[np.float32]":
    """RMSNorm of (tokens, hidden_size): what the output head reads."""
    squares = np.mean(rows * rows, axis=1, keepdims=True, dtype=np.float32)
    return np.multiply(rows / np.sqrt(squares + np.float32(epsilon)), weight, dtype=np.float32)
