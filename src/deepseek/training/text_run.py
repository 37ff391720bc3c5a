"""A run on somebody's own text: the two recipes that `deepseek train --text` writes, with sizes that fit the text.

The defaults are for a laptop: a model of a few million parameters, as many tokens as four passes over the text give.
"""

import re
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from deepseek.errors import ConfigError, DataError
from deepseek.families.sizes import model_size
from deepseek.training.data.local_files import names_below
from deepseek.training.data.members import Wanted
from deepseek.training.data.readers.auto import NOT_TEXT
from deepseek.training.plan import Plan
from deepseek.training.recipe import Recipe
from deepseek.training.size import TOKENS_PER_ACTIVE_PARAMETER, derived_config
from deepseek.training.state import TrainingState
from deepseek.training.step import train_step
from deepseek.training.toml import to_toml

DATA_RECIPE, RUN_RECIPE = "data.toml", "recipe.toml"
PASSES = 4  # over the text: up to so many teach nearly as much as new text does (arXiv 2305.16264)
MIN_TOKENS = 30_000  # of a run: below, even a tiny model has not begun to learn
MIN_TEXT = 32  # tokens
_VOCABULARIES = ((100_000, 512), (1_000_000, 1024), (5_000_000, 2048), (20_000_000, 4096), (100_000_000, 8192))
_LARGEST_VOCABULARY = 16_384
_SIZES = ((1_000_000, 1.0), (20_000_000, 5.0))  # bytes of text up to which a model has so many million parameters
_LARGEST_SIZE = 20.0
_SHORT_TEXT = 20_000  # bytes; of less nothing is held out
_PACKED = {".gz": 4, ".xz": 5, ".bz2": 5, ".zst": 4}  # how much text a compressed file holds, roughly
BYTES_PER_TOKEN = 3.0  # before it is known


@dataclass(frozen=True, kw_only=True, slots=True)
class Text:
    """Files and folders to train on. size: of their text in bytes, estimated where it is compressed."""

    paths: tuple[Path, ...]
    size: int
    files: int

    @property
    def name(self) -> str:
        """For the run: of the first path."""
        return re.sub(r"[^a-z0-9]+", "-", self.paths[0].absolute().stem.lower()).strip("-") or "text"


def find_text(paths: Sequence[Path]) -> Text:
    """Raises DataError for a path that is not there, or when nothing in it can be text."""
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise DataError(f"{path.absolute()}: there is no such file or folder; check --text")
        names = [path / name for name in names_below(path, Wanted(("**",)))] if path.is_dir() else [path]
        found += [file for file in names if file.is_file() and file.suffix.lower() not in NOT_TEXT]
    size = sum(file.stat().st_size * _PACKED.get(file.suffix.lower(), 1) for file in found)
    if not size:
        raise DataError(f"{', '.join(map(str, paths))}: there is no text in it{_skipped(paths)}")
    return Text(paths=tuple(path.absolute() for path in paths), size=size, files=len(found))


def _skipped(paths: Sequence[Path]) -> str:
    files = sum(file.is_file() for path in paths for file in (path.rglob("*") if path.is_dir() else [path]))
    if not files:
        return ": no files"
    of_them = "the file is" if files == 1 else f"all {files:,} files are"
    return f": {of_them} hidden, empty or of a kind that holds no text (images, archives, PDF); see docs/data.md"


def data_recipe(text: Text) -> dict[str, Any]:
    """What data.toml says. Short documents stay, and long ones are cut so that some pieces can be held out."""
    split = min(60_000, max(1_000, text.size // 200))
    pieces = max(text.files, text.size // split)
    paths = [str(path) for path in text.paths]
    place: dict[str, Any] = {"path": paths[0]} if len(paths) == 1 else {"paths": paths}
    return {
        "tokenizer": {"vocab_size": _by_size(_VOCABULARIES, text.size, _LARGEST_VOCABULARY), "allow_fewer": True},
        "cleaning": {"minimum_characters": 1, "split_characters": split},
        "held_out": {"share": 0.0 if text.size < _SHORT_TEXT else round(min(0.1, max(0.01, 20 / pieces)), 3)},
        "source": [{"name": "text", **place}],
    }


def run_recipe(
    name: str, text: Text, *, vocab_size: int, train_tokens: int, size: float | None, steps: int | None
) -> dict[str, Any]:
    """What recipe.toml says, beside data.toml. train_tokens: of the prepared text."""
    if train_tokens < MIN_TEXT:
        raise DataError(f"the text has {train_tokens} tokens to train on, which is too little: at least {MIN_TEXT}")
    size = size or _by_size(_SIZES, text.size, _LARGEST_SIZE)
    length = max(16, min(512, 1 << ((train_tokens // 4).bit_length() - 1)))
    active = model_size(derived_config(size, "moe", vocab_size=vocab_size, context=length)).active
    tokens = max(MIN_TOKENS, min(active * TOKENS_PER_ACTIVE_PARAMETER, PASSES * train_tokens))
    return {
        "name": name,
        "data": {"recipe": DATA_RECIPE},
        "model": {"size": size},
        "stage": {"sequence_length": length, **({"steps": steps} if steps else {"tokens": tokens})},
        "evaluation": {"every": 200, "batches": 4},
        "checkpoints": {"every": 200, "minutes": 5.0},
    }


def _by_size(table: Sequence[tuple[int, Any]], size: int, largest: Any) -> Any:
    return next((value for limit, value in table if size < limit), largest)


def write_recipes(folder: Path, data: Mapping[str, Any], run: Mapping[str, Any] | None = None) -> None:
    """For the run folder, so that the run can be repeated and changed."""
    folder.mkdir(parents=True, exist_ok=True)
    head = "# Written by deepseek train --text. "
    (folder / DATA_RECIPE).write_text(f"{head}See docs/data.md.\n\n{to_toml(data)}", encoding="utf-8")
    if run is not None:
        again = "Change it and give it to deepseek train; --keys explains every key."
        (folder / RUN_RECIPE).write_text(f"{head}{again}\n\n{to_toml(run)}", encoding="utf-8")


def steps_in(minutes: float, recipe: Recipe, plan: Plan) -> int:
    """How many steps of the first stage take so long here, measured with a model of its own on random tokens."""
    if minutes <= 0:
        raise ConfigError(f"--minutes must be above 0, not {minutes:g}")
    stage = plan.stages[0]
    state = TrainingState(recipe, stage.config, accumulates=stage.micro_batches > 1)
    shape = (stage.batch_size, stage.sequence_length + 1)
    tokens = torch.randint(stage.config.vocab_size, shape, generator=torch.Generator().manual_seed(0))
    seconds = []
    for _ in range(4):
        begun = time.perf_counter()
        train_step(
            state,
            tokens,
            micro_batch_size=stage.micro_batch_size,
            learning_rate=stage.learning_rate,
            bias_update=1.0,
            mtp_weight=recipe.training.mtp_weight,
            clip_norm=recipe.optimizer.clip_norm,
        )
        seconds.append(time.perf_counter() - begun)
    return max(1, round(minutes * 60 / statistics.median(seconds[1:])))
