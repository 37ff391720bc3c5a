"""Windows and losses: the one definition that makes two programs' perplexities comparable."""

import math
import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepseek.errors import DeepseekError
from deepseek.profiler.perplexity import losses_of, perplexity, score, standard_error, text_of, text_windows, windows


@given(st.integers(2, 40), st.integers(0, 200), st.sampled_from([None, 7]))
def test_windows_cover_the_text_once(length: int, tokens: int, bos: int | None) -> None:
    ids = [100 + i for i in range(tokens)]
    head = [] if bos is None else [bos]
    step = length - len(head)
    if tokens < step:
        with pytest.raises(DeepseekError, match="give a longer text or a shorter window"):
            list(windows(ids, length=length, bos=bos))
        return
    cut = list(windows(ids, length=length, bos=bos))
    assert all(len(window) == length and window[: len(head)] == head for window in cut)
    assert [token for window in cut for token in window[len(head) :]] == ids[: tokens // step * step]


def test_a_window_of_one_scores_nothing() -> None:
    with pytest.raises(DeepseekError, match="at least 2"):
        list(windows([1, 2, 3], length=1))


def test_losses_equal_a_plain_softmax() -> None:
    generator = np.random.default_rng(0)
    logits = (generator.standard_normal((20, 300)) * 8).astype(np.float32)
    logits[3] += 3e4  # must not overflow
    targets = generator.integers(0, 300, 20).tolist()
    wide = logits.astype(np.longdouble)
    probabilities = np.exp(wide - wide.max(1, keepdims=True))
    probabilities /= probabilities.sum(1, keepdims=True)
    expected = -np.log(probabilities[np.arange(20), targets])
    assert np.allclose(losses_of(logits, targets), expected.astype(float), rtol=1e-6, atol=1e-6)


class Bigrams:
    """A side that knows how probable a token is after the one before."""

    def __init__(self, probabilities: dict[tuple[int, int], float]) -> None:
        self.probabilities = probabilities

    def losses(self, window: list[int]) -> list[float]:
        return [-math.log(self.probabilities[pair]) for pair in pairwise(window)]


def test_perplexity_of_a_known_model() -> None:
    side = Bigrams({(0, 1): 0.5, (1, 0): 0.25})
    cut = list(windows([0, 1, 0, 1, 0, 1, 0, 1, 0], length=3))
    assert cut == [[0, 1, 0], [1, 0, 1], [0, 1, 0]]
    losses = score(cut, side)  # type: ignore[arg-type]
    ones, zeros = 3, 3
    assert len(losses) == ones + zeros
    assert perplexity(losses) == pytest.approx(math.exp((ones * math.log(2) + zeros * math.log(4)) / 6))
    spread = np.std([math.log(2)] * 3 + [math.log(4)] * 3, ddof=1) / math.sqrt(6)
    assert standard_error(losses) == pytest.approx(perplexity(losses) * spread)


def test_a_text_that_is_none(tmp_path: Path) -> None:
    text = tmp_path / "text"
    with pytest.raises(DeepseekError, match="cannot be read"):
        text_windows(text, tmp_path)
    text.write_bytes(b"caf\xe9")
    with pytest.raises(DeepseekError, match="not UTF-8 text \\(byte 3\\)"):
        text_windows(text, tmp_path)


def test_a_device_is_no_text() -> None:
    """/dev/zero has no end: reading it takes all memory."""
    with pytest.raises(DeepseekError, match="is a device"):
        text_of(Path(os.devnull))
