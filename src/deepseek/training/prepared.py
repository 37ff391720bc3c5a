"""The data of a run: where it is, prepared first if it is not yet, and what a run says of it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepseek.errors import ConfigError, DeepseekError
from deepseek.hub.cache import cache_folder
from deepseek.progress import Report, silent
from deepseek.tokenizer import AutoTokenizer
from deepseek.training.data import Mixture
from deepseek.training.data.batches import DATASET, default_mixture, read_dataset
from deepseek.training.data.identity import recipe_key
from deepseek.training.data.prepare import prepare
from deepseek.training.data.recipe import DataRecipe
from deepseek.training.recipe import DataTable


@dataclass(frozen=True, kw_only=True, slots=True)
class DataFacts:
    """What a run is trained on. passes: how often each source is read in the whole run, most first."""

    folder: Path
    key: str | None
    train_tokens: int
    held_out_tokens: int
    passes: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """For run.json and --json."""
        return {
            "folder": str(self.folder),
            "key": self.key,
            "train_tokens": self.train_tokens,
            "held_out_tokens": self.held_out_tokens,
            "passes": self.passes[0] if self.passes else None,
        }

    def __str__(self) -> str:
        most, least = (_rounded(share) for share in (self.passes[0], self.passes[-1]))
        passes = most if most == least else f"{least} to {most}"
        held_out = f"{self.held_out_tokens:,} held out" if self.held_out_tokens else "none held out"
        return f"{self.train_tokens:,} tokens to train on, {held_out}; {passes} passes over the text"


def _rounded(share: float) -> str:
    return f"{round(share, 1):,g}" if share >= 1 else f"{share:.2g}"


def prepared_data(table: DataTable, *, report: Report = silent) -> Path:
    """A folder that `Batches` reads, prepared anew where recipe or text have changed.

    Raises ConfigError, DataError or HubError.
    """
    folder, recipe = data_folder(table)
    if recipe is not None and not is_current(folder, recipe):
        prepare(recipe, folder, report=report)
    elif not (folder / DATASET).exists():
        raise _unprepared(folder)
    return folder


def data_of_run(table: DataTable, begun: Mapping[str, Any] | None, *, report: Report = silent) -> tuple[Path, bool]:
    """The data of a run, and whether recipe and text still are what they were when the run began.

    begun: what run.json of a run to be resumed says of its data: that is kept while it is there.
    """
    folder = Path(begun["folder"]) if begun else None
    if begun and folder and (folder / DATASET).exists() and read_dataset(folder).get("key") == begun["key"]:
        return folder, _still_gives(table, begun["key"])
    return prepared_data(table, report=report), True


def _still_gives(table: DataTable, key: str | None) -> bool:
    if table.recipe is None:
        return True
    try:
        return recipe_key(DataRecipe.from_toml(Path(table.recipe))) == key
    except DeepseekError:  # recipe or text are gone
        return False


def is_current(folder: Path, recipe: DataRecipe) -> bool:
    """Whether the folder holds what `recipe` would give now."""
    return (folder / DATASET).exists() and read_dataset(folder).get("key") == recipe_key(recipe)


def expected_vocab_size(table: DataTable) -> int:
    """Of the prepared data, or of what its recipe will make; no data is prepared or fetched. Raises ConfigError."""
    folder, recipe = data_folder(table)
    if recipe is None or is_current(folder, recipe):
        if not (folder / DATASET).exists():
            raise _unprepared(folder)
        return int(read_dataset(folder)["vocab_size"])
    if (given := recipe.given_tokenizer()) is not None:
        return AutoTokenizer.from_pretrained(given).vocab_size
    assert recipe.tokenizer.vocab_size is not None
    return recipe.tokenizer.vocab_size


def data_folder(table: DataTable) -> tuple[Path, DataRecipe | None]:
    """Where the prepared data is or goes, and what it is made from.

    Without a folder in the recipe: one in the cache for each data recipe and state of its text.
    """
    recipe = None if table.recipe is None else DataRecipe.from_toml(Path(table.recipe))
    if table.folder is not None:
        return Path(table.folder), recipe
    assert table.recipe is not None
    assert recipe is not None
    return cache_folder() / "data" / f"{Path(table.recipe).stem}-{recipe_key(recipe)[:12]}", recipe


def described_data(table: DataTable, tokens: int) -> dict[str, Any]:
    """What a dry run says of the data; nothing is prepared. Raises ConfigError for a folder that cannot be made."""
    folder, recipe = data_folder(table)
    if recipe is None or is_current(folder, recipe):
        facts = data_facts(folder, mixture_of(table, folder), tokens)
        return {"described": f"{facts.folder}: {facts}", **facts.to_dict()}
    there = next(parent for parent in folder.absolute().parents if parent.exists())
    if not os.access(there, os.W_OK):
        raise ConfigError(f"data.folder: {folder} is not there and cannot be made in {there}; choose another")
    sources = ", ".join(source.name for source in recipe.sources)
    return {"described": f"{folder}: not prepared yet; from {sources} ({table.recipe})", "folder": str(folder)}


def data_facts(folder: Path, mixture: Mixture, tokens: int) -> DataFacts:
    """tokens: that the whole run reads."""
    dataset = read_dataset(folder)
    sources = {name: dataset["sources"][name] for name in mixture.sources}
    read = _tokens_read(mixture, tokens)
    passes = [read[name] / max(1, facts["train_tokens"]) for name, facts in sources.items()]
    return DataFacts(
        folder=folder.absolute(),
        key=dataset.get("key"),
        train_tokens=sum(facts["train_tokens"] for facts in sources.values()),
        held_out_tokens=sum(facts["held_out_tokens"] for facts in sources.values()),
        passes=tuple(sorted(passes, reverse=True)),
    )


def _tokens_read(mixture: Mixture, tokens: int) -> dict[str, float]:
    """Of each source, by the shares of the mixture's stages."""
    read = dict.fromkeys(mixture.sources, 0.0)
    begin = 0
    for stage in mixture.stages:
        end = tokens if stage.until_tokens is None else min(tokens, stage.until_tokens)
        for name, share in stage.shares.items():
            if share:
                read[name] += (end - begin) * share / sum(stage.shares.values())
        begin = end
    return read


def _unprepared(folder: Path) -> ConfigError:
    return ConfigError(
        f"data.folder: {folder} holds no prepared data; prepare it with `deepseek data RECIPE --out {folder}`, or "
        "name that recipe in data.recipe"
    )


def mixture_of(table: DataTable, folder: Path) -> Mixture:
    """As the recipe says, else the shares that the data was prepared with."""
    if table.mixture is None:
        return default_mixture(folder)
    mixture = Mixture.from_dict(table.mixture)
    if any(stage.sequence_length or stage.batch_size for stage in mixture.stages):
        raise ConfigError(
            "data.mixture: sequence_length and batch_size belong to the stages of the run ([stage], [[stages]])"
        )
    return mixture
