"""The output columns of the neurons that are kept, refitted so that they also stand in for those that are dropped.

Shape suffixes: n tokens, m model size, i neurons.
"""

import torch
from torch import Tensor

_HOLDS = (2.0, 8.0, 32.0, 128.0)
"""How firmly columns are held to what they were: tokens' worth of evidence for each neuron. Which of them serves unseen
text best is measured, layer by layer; the usual one where there is no text to spare for that."""
_USUAL_HOLD = 32.0


class ColumnFit:
    """Columns (m, i) for `masked @ columns.T` to give `wanted`, by least squares over text that is added in parts.

    masked: activations with those of dropped experts at zero. What a dropped expert gives on average, and whatever of
    it can be told from the neurons that stay, moves into the columns.
    """

    def __init__(self, down_mi: Tensor) -> None:
        self.down_mi = down_mi
        self._fitted, self._judging = _Sums(down_mi), _Sums(down_mi)

    def add(self, masked_ni: Tensor, wanted_nm: Tensor, *, judging: bool = False) -> None:
        """judging: keep these tokens out of the fits that are compared; the last one uses them too."""
        (self._judging if judging else self._fitted).add(masked_ni, wanted_nm)

    def best_hold(self) -> float:
        """Of those tried, the one that the judging text is served best by."""
        if not self._judging.tokens:
            return _USUAL_HOLD
        return min(_HOLDS, key=lambda hold: self._judging.error(self._fitted.change(hold)))

    def columns(self) -> Tensor:
        hold = self.best_hold()
        return self.down_mi + self._fitted.joined(self._judging).change(hold).T


class _Sums:
    """Of products over tokens: all that a least-squares fit needs to know of them."""

    def __init__(self, down_mi: Tensor) -> None:
        model, neurons = down_mi.shape
        self.tokens = 0
        self._down_mi = down_mi
        self._gram_ii = down_mi.new_zeros(neurons, neurons)
        self._wanted_im = down_mi.new_zeros(neurons, model)

    def add(self, masked_ni: Tensor, wanted_nm: Tensor) -> None:
        self.tokens += len(masked_ni)
        self._gram_ii.addmm_(masked_ni.T, masked_ni)
        self._wanted_im.addmm_(masked_ni.T, wanted_nm)

    def joined(self, other: "_Sums") -> "_Sums":
        both = _Sums(self._down_mi)
        both.tokens = self.tokens + other.tokens
        both._gram_ii = self._gram_ii + other._gram_ii
        both._wanted_im = self._wanted_im + other._wanted_im
        return both

    def change(self, hold: float) -> Tensor:
        """(i, m): what is to be added to the columns."""
        held_ii, neurons = self._gram_ii.clone(), len(self._gram_ii)
        held_ii.diagonal().add_(hold * neurons / self.tokens * held_ii.diagonal().mean() + 1e-12)
        change_im: Tensor = torch.linalg.solve(held_ii, self._missing())
        return change_im

    def error(self, change_im: Tensor) -> float:
        """Energy of the error with changed columns, less that with the old ones."""
        return float((change_im * (self._gram_ii @ change_im - 2 * self._missing())).sum())

    def _missing(self) -> Tensor:
        return self._wanted_im - self._gram_ii @ self._down_mi.T
