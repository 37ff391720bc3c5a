"""Texts as windows of tokens, for calibration and distillation."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from deepseek.errors import DeepseekError
from deepseek.profiler.perplexity import text_of
from deepseek.tokenizer.tokenizer import Tokenizer


def token_windows(files: Sequence[Path], tokenizer: Tokenizer, *, length: int, seed: int) -> Tensor:
    """(windows, length) int64: every file cut without overlap, all windows in an order drawn from `seed`.

    What is left over at a file's end is dropped. Raises DeepseekError for a file that is no UTF-8, or too little text.
    """
    cut = [ids[: len(ids) // length * length].view(-1, length) for ids in (_ids(file, tokenizer) for file in files)]
    windows = torch.cat(cut) if cut else torch.empty(0, length, dtype=torch.int64)
    if not len(windows):
        raise DeepseekError(f"the texts do not fill one window of {length} tokens: give more text (--text FILE)")
    return windows[torch.from_numpy(np.random.default_rng(seed).permutation(len(windows)))]


def _ids(file: Path, tokenizer: Tokenizer) -> Tensor:
    return torch.tensor(
        tokenizer.encode(text_of(file), add_special_tokens=False, parse_special=False), dtype=torch.int64
    )
