"""Texts as windows of tokens, for calibration and distillation."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from deepseek.errors import DeepseekError
from deepseek.tokenizer.tokenizer import Tokenizer
from deepseek.training.data.local_files import files_below
from deepseek.training.data.members import Member, Wanted
from deepseek.training.data.readers import FORMATS
from deepseek.training.data.readers.auto import NOT_TEXT, suffix_of
from deepseek.training.data.recipe import SourceConfig

MAX_HELD_OUT = 8  # windows


def token_windows(paths: Sequence[Path], tokenizer: Tokenizer, *, length: int, seed: int) -> Tensor:
    """(windows, length) int64: every file cut without overlap, all windows in an order drawn from `seed`.

    paths: files, or folders of them. What is left over at a file's end is dropped. Raises DeepseekError for a file that
    cannot be read, or too little text.
    """
    texts = [text for path in paths for text in _texts(path)]
    ids = [torch.tensor(_encoded(text, tokenizer), dtype=torch.int64) for text in texts]
    cut = [one[: len(one) // length * length].view(-1, length) for one in ids]
    windows = torch.cat(cut) if cut else torch.empty(0, length, dtype=torch.int64)
    if not len(windows):
        raise DeepseekError(
            f"the text has {sum(map(len, ids)):,} tokens, which do not fill one window of {length}: give more with "
            "--text (a megabyte or more of what the model will read), or a shorter --window"
        )
    return windows[torch.from_numpy(np.random.default_rng(seed).permutation(len(windows)))]


def held_out_count(windows_wt: Tensor) -> int:
    """Of these windows the last so many are neither carved nor distilled on: what came of it is measured there."""
    return min(MAX_HELD_OUT, len(windows_wt) // 10)


def _texts(path: Path) -> list[str]:
    """One a file; the rows of a table are paragraphs."""
    source = SourceConfig(name="text", path=str(path))
    members = [member for member in files_below(path, Wanted(("**",))) if suffix_of(member) not in NOT_TEXT]
    return [_joined(member, source) for member in members]


def _joined(member: Member, source: SourceConfig) -> str:
    return "\n\n".join(text for _, text in FORMATS["auto"]((member,), source) if text)


def _encoded(text: str, tokenizer: Tokenizer) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False, parse_special=False)
