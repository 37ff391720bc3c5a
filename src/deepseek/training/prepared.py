"""The data of a run: where it is, prepared first if it is not yet."""

import hashlib
from pathlib import Path

from deepseek.errors import ConfigError
from deepseek.hub.cache import cache_folder
from deepseek.progress import Report, silent
from deepseek.tokenizer import AutoTokenizer
from deepseek.training.data import Mixture
from deepseek.training.data.batches import DATASET, default_mixture, read_dataset
from deepseek.training.data.prepare import prepare
from deepseek.training.data.recipe import DataRecipe
from deepseek.training.recipe import DataTable


def prepared_data(table: DataTable, *, report: Report = silent) -> Path:
    """A folder that `Batches` reads. Raises ConfigError, DataError or HubError."""
    folder = _folder(table)
    if (folder / DATASET).exists():
        return folder
    if table.recipe is None:
        raise _unprepared(folder)
    prepare(DataRecipe.from_toml(Path(table.recipe)), folder, report=report)
    return folder


def expected_vocab_size(table: DataTable) -> int:
    """Of the prepared data, or of what its recipe will make; no data is prepared or fetched. Raises ConfigError."""
    folder = _folder(table)
    if (folder / DATASET).exists():
        return int(read_dataset(folder)["vocab_size"])
    if table.recipe is None:
        raise _unprepared(folder)
    recipe = DataRecipe.from_toml(Path(table.recipe))
    if (given := recipe.given_tokenizer()) is not None:
        return AutoTokenizer.from_pretrained(given).vocab_size
    assert recipe.tokenizer.vocab_size is not None
    return recipe.tokenizer.vocab_size


def _unprepared(folder: Path) -> ConfigError:
    return ConfigError(
        f"data.folder: {folder} holds no prepared data; prepare it with `deepseek data RECIPE --out {folder}`, or "
        "name that recipe in data.recipe"
    )


def _folder(table: DataTable) -> Path:
    """Without a folder in the recipe: one in the cache for each data recipe, found again while that is unchanged."""
    if table.folder is not None:
        return Path(table.folder)
    assert table.recipe is not None
    path = Path(table.recipe)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"data.recipe: {path} cannot be read ({error.strerror})") from None
    return cache_folder() / "data" / f"{path.stem}-{hashlib.sha256(content).hexdigest()[:12]}"


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
