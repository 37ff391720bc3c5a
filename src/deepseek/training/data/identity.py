"""What prepared data depends on, as one hash: so that data is prepared again when, and only when, it would differ."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from deepseek.errors import DataError
from deepseek.training.data.local_files import names_below
from deepseek.training.data.members import Wanted
from deepseek.training.data.recipe import DataRecipe, SourceConfig

CODE = 2  # raise it when reading, cleaning or hashing changes, so that what was prepared before is done again
_HASHED_BYTES = 64 << 20  # up to so many the files are hashed themselves, which takes a tenth of a second


def key_of(*parts: Any) -> str:
    return hashlib.sha256(json.dumps([CODE, *parts], sort_keys=True, default=str).encode()).hexdigest()


def recipe_key(recipe: DataRecipe) -> str:
    """Of everything that decides what `prepare` makes. Packages count by what the recipe says of them.

    Raises DataError when a file or folder that the recipe names is missing.
    """
    values = dataclasses.asdict(recipe)
    del values["folder"]
    files = [source_files(recipe, source) for source in recipe.sources]
    tokenizer = recipe.given_tokenizer()
    return key_of(values, files, files_identity(tokenizer) if isinstance(tokenizer, Path) else tokenizer)


def source_files(recipe: DataRecipe, source: SourceConfig) -> str:
    """The identity of a `path` source; "" for others."""
    for path in recipe.places_of(source):
        if not path.exists():
            raise DataError(f"source {source.name}: {path}: there is no such file or folder; check path in the recipe")
    wanted = Wanted(source.members, source.exclude)
    return " ".join(files_identity(path, wanted) for path in recipe.places_of(source))


def files_identity(path: Path, wanted: Wanted | None = None) -> str:
    """A hash of the names and contents of files, or, of many megabytes, of their places, sizes and times."""
    names = names_below(path, wanted or Wanted(("**",))) if path.is_dir() else [""]
    files = [(name, path / name) for name in names if (path / name).is_file()]
    stats = [file.stat() for _, file in files]
    small = sum(stat.st_size for stat in stats) <= _HASHED_BYTES
    hasher = hashlib.sha256()
    for (name, file), stat in zip(files, stats, strict=True):
        what = _content(file, name) if small else f"{file.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}"
        hasher.update(f"{name}\0{what}\n".encode("utf-8", "surrogateescape"))
    return hasher.hexdigest()


def _content(file: Path, name: str) -> str:
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f'{file}: cannot be read ({error.strerror}); or leave it out: exclude = ["{name}"]') from None
