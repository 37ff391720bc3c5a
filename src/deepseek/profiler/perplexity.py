"""Perplexity: how a text is cut into windows, and what its losses add up to. Every side uses this one definition.

The text is tokenised once, as a whole and without special tokens. It is cut into windows that do not overlap; where the
model's tokenizer begins texts with a BOS token, each window begins with one too (and holds one token less of the text).
Every token of a window but its first is scored, after all that are before it in the window. An incomplete last window
is left out. Perplexity is exp of the mean loss over all scored tokens.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepseek.errors import DeepseekError
from deepseek.profiler.work import Side
from deepseek.progress import Report, silent

WINDOW = 512


def windows(ids: Sequence[int], *, length: int = WINDOW, bos: int | None = None) -> Iterator[list[int]]:
    """Windows of `length` tokens, BOS included. Raises DeepseekError when the text does not fill one."""
    if length < 2:
        raise DeepseekError(f"a window of {length} scores nothing; it must have at least 2 tokens")
    head = [] if bos is None else [bos]
    step = length - len(head)
    if len(ids) < step:
        raise DeepseekError(
            f"the text has {len(ids)} tokens and a window {step}: give a longer text or a shorter window"
        )
    for start in range(0, len(ids) - step + 1, step):
        yield head + list(ids[start : start + step])


def losses_of(logits: NDArray[np.float32], targets: Sequence[int]) -> NDArray[np.float64]:
    """-log softmax(logits)[target] for each row. logits: (rows, vocabulary)."""
    largest = logits.max(axis=1, keepdims=True)
    with np.errstate(under="ignore"):
        spread = np.exp(logits - largest).sum(axis=1, dtype=np.float64)
    picked = logits[np.arange(len(targets)), targets].astype(np.float64)
    losses: NDArray[np.float64] = np.log(spread) + largest[:, 0] - picked
    return losses


def score(cut: Sequence[list[int]], side: Side, *, report: Report = silent, label: str = "scoring") -> list[float]:
    """The losses of all windows, in order."""
    losses: list[float] = []
    for number, window in enumerate(cut):
        report(label, number, len(cut), "windows")
        losses += side.losses(window)
    report(label, len(cut), len(cut), "windows")
    return losses


def perplexity(losses: Sequence[float]) -> float:
    return math.exp(math.fsum(losses) / len(losses))


def standard_error(losses: Sequence[float]) -> float:
    """Of the perplexity, as if tokens were independent."""
    spread = float(np.std(np.asarray(losses), ddof=1)) / math.sqrt(len(losses))
    return perplexity(losses) * spread


def text_of(file: Path) -> str:
    """Raises DeepseekError for a device and for a file that cannot be read or is no UTF-8."""
    try:
        if file.is_char_device() or file.is_block_device():
            raise DeepseekError(f"{file}: is a device, which may never end; give a file")
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise DeepseekError(f"{file}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise DeepseekError(f"{file} is not UTF-8 text (byte {error.start}); convert it first") from None


def default_window(model: Path, *, allow_unknown: bool = False) -> int:
    """WINDOW, or the whole context of a model that has a shorter one."""
    from deepseek.checkpoint.configuration import load_config

    return min(WINDOW, load_config(model, allow_unknown=allow_unknown).max_position_embeddings)


def text_windows(text_file: Path, model: Path, *, length: int = WINDOW, most: int | None = None) -> list[list[int]]:
    """The windows of a text in the tokens of the model at `model`; of a long text the first `most`.

    Raises DeepseekError for a text that is no UTF-8 or too short.
    """
    from deepseek.tokenizer import AutoTokenizer

    text = text_of(text_file)
    tokenizer = AutoTokenizer.from_pretrained(model)
    ids = tokenizer.encode(text, add_special_tokens=False, parse_special=False)
    before, _ = tokenizer.added_around
    cut = windows(ids, length=length, bos=before[0] if before else None)
    return list(islice(cut, most))
