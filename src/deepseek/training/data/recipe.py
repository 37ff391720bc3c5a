"""What to prepare: frozen, validated descriptions read from a TOML file. Unknown keys are errors."""

import dataclasses
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, get_args

from deepseek.errors import ConfigError
from deepseek.training.tables import build

Kind = Literal["path", "python", "wheel", "sdist", "deb", "npm"]
PACKAGES: tuple[Kind, ...] = ("wheel", "sdist", "deb", "npm")

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ConfigError(message)


def _whole(name: str, value: object, least: int) -> None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    _require(whole and value >= least, f"{name} must be a whole number, {least} or more, not {value!r}")  # type: ignore[operator]


def _share(name: str, value: object, *, below: float) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    _require(number and 0 <= value < below, f"{name} must be a number from 0 to below {below:g}, not {value!r}")  # type: ignore[operator]


def _is_text_encoding(name: str) -> bool:
    try:
        return isinstance("".encode(name), bytes)
    except LookupError:  # also for codecs that do not encode text, such as base64
        return False


def _texts(name: str, value: object) -> None:
    _require(
        isinstance(value, tuple) and all(isinstance(v, str) and v for v in value), f"{name} must be a list of texts"
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceConfig:
    """One source of documents. `path = "folder"` alone is one.

    name: in reports and mixtures; of a path by default the last part of it.
    kind: path (files or folders), python (the standard library of the Python that runs), or a package.
    licence: for the report; may be left out for a path.
    language: for the report; may be left out for a path.
    format: which reader; auto: of each file by its suffix.
    path: a file or folder, relative to the recipe.
    paths: several of them.
    package: name of the package.
    version: of a package; by default the newest is taken and recorded.
    sha256: of the package's file; without it the first download is recorded and later ones are held to it.
    members: patterns of the names to read, as in `docs/**/*.txt`.
    exclude: patterns of the names to leave out.
    field: where the text is in JSON, CSV and Parquet; `a+b` joins two; by default `text`, `content` or `messages`.
    encoding: of text formats.
    drop_lines: lines in which one of these regular expressions is found are removed.
    minimum_characters: as in cleaning, for this source.
    split_characters: as in cleaning, for this source.
    held_out: as held_out.share, for this source.
    share: of the default mixture; without it sources count by their tokens.
    about: whose text it is, for the report.
    """

    name: str = ""
    kind: Kind = "path"
    licence: str = ""
    language: str = ""
    format: str = "auto"
    path: str | None = None
    paths: tuple[str, ...] = ()
    package: str | None = None
    version: str | None = None
    sha256: str | None = None
    members: tuple[str, ...] = ("**",)
    exclude: tuple[str, ...] = ()
    field: str | None = None
    encoding: str = "utf-8"
    drop_lines: tuple[str, ...] = ()
    minimum_characters: int | None = None
    split_characters: int | None = None
    held_out: float | None = None
    share: float | None = None
    about: str = ""

    def __post_init__(self) -> None:
        from deepseek.training.data.readers import FORMATS

        _require(self.kind in get_args(Kind), f"kind must be one of {', '.join(get_args(Kind))}, not {self.kind!r}")
        self._fill_in()
        _require(
            isinstance(self.name, str) and _NAME.fullmatch(self.name) is not None,
            f"name must be of lower-case letters, digits, - and _, not {self.name!r:.80}",
        )
        where = f"source {self.name}: "
        _require(isinstance(self.about, str), f"{where}about must be a text, not {self.about!r:.80}")
        for text in ("licence", "language", "encoding"):
            value = getattr(self, text)
            _require(isinstance(value, str) and value.strip() != "", f"{where}{text} must be a text, not {value!r}")
        _require(_is_text_encoding(self.encoding), f"{where}encoding {self.encoding!r} is unknown, try utf-8 or cp1252")
        named = self.field is None or all(name.strip() for name in self.field.split("+"))
        _require(named, f"{where}field must name a field, or several as in a+b, not {self.field!r}")
        _require(self.format in FORMATS, f"{where}format must be one of {', '.join(FORMATS)}, not {self.format!r}")
        _texts(f"{where}members", self.members)
        _texts(f"{where}exclude", self.exclude)
        _texts(f"{where}drop_lines", self.drop_lines)
        self._check_place(where)
        self._check_numbers(where)
        for pattern in self.drop_lines:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ConfigError(f"{where}drop_lines holds {pattern!r:.80}, no regular expression: {error}") from error

    def _fill_in(self) -> None:
        """Defaults of a path; a package says what it is. All keys that are missing are named at once."""
        needed = {"path": () if self.paths else ("path",), "python": ("name", "licence", "language")}
        names = needed.get(self.kind, ("name", "package", "licence", "language"))
        if missing := [name for name in names if not getattr(self, name)]:
            keys = ", ".join(missing)
            raise ConfigError(f"missing key{'s' * (len(missing) > 1)} {keys} (a source of kind {self.kind} needs them)")
        if self.kind == "path":
            name = re.sub(r"[^a-z0-9_-]+", "-", Path(self.path or self.paths[0]).absolute().stem.lower()).strip("-_")[
                :64
            ]
            for key, value in {"name": name or "text", "licence": "not stated", "language": "und"}.items():
                if not getattr(self, key):
                    object.__setattr__(self, key, value)

    def _check_place(self, where: str) -> None:
        packaged = self.kind in PACKAGES
        _require(
            (self.package is not None) == packaged, f"{where}package goes with {', '.join(PACKAGES)}, and only there"
        )
        _texts(f"{where}paths", self.paths)
        _require(not (self.path and self.paths), f"{where}path or paths: only one of them")
        located = bool(self.path or self.paths)
        _require(located == (self.kind == "path"), f"{where}path goes with kind path, and only there")
        _require(packaged or self.version is None, f"{where}version goes with a package")
        hashed = self.sha256 is None or (isinstance(self.sha256, str) and _SHA256.fullmatch(self.sha256) is not None)
        _require(hashed, f"{where}sha256 must be 64 hexadecimal digits, not {self.sha256!r:.80}")
        _require(packaged or self.sha256 is None, f"{where}sha256 goes with a package")

    def _check_numbers(self, where: str) -> None:
        for name in ("minimum_characters", "split_characters"):
            if getattr(self, name) is not None:
                _whole(f"{where}{name}", getattr(self, name), 1)
        if self.held_out is not None:
            _share(f"{where}held_out", self.held_out, below=1)
        if self.share is not None:
            _share(f"{where}share", self.share, below=math.inf)


@dataclass(frozen=True, kw_only=True, slots=True)
class CleaningConfig:
    """What becomes of a document before it is used.

    minimum_characters: shorter documents are passed over and counted.
    split_characters: longer ones are cut between paragraphs.
    """

    minimum_characters: int = 200
    split_characters: int = 60_000

    def __post_init__(self) -> None:
        _whole("cleaning.minimum_characters", self.minimum_characters, 1)
        _whole("cleaning.split_characters", self.split_characters, 100)


@dataclass(frozen=True, kw_only=True, slots=True)
class DuplicatesConfig:
    """Which documents are the same.

    similarity: documents whose sets of shingles overlap that much (Jaccard) are one; 1 looks for equal ones only.
    shingle_words: consecutive words that make a shingle; a Chinese character counts as a word.
    """

    similarity: float = 0.8
    shingle_words: int = 5

    def __post_init__(self) -> None:
        _require(
            isinstance(self.similarity, int | float) and 0.5 <= self.similarity <= 1,
            f"duplicates.similarity must be a number from 0.5 to 1, not {self.similarity!r}",
        )
        _whole("duplicates.shingle_words", self.shingle_words, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldOutConfig:
    """What is kept from training, to measure the model on.

    share: of the documents, chosen by the hash of each.
    """

    share: float = 0.01

    def __post_init__(self) -> None:
        _share("held_out.share", self.share, below=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerConfig:
    """How text becomes tokens: vocab_size or path, one of both.

    vocab_size: of a byte-level BPE that is trained on the text.
    allow_fewer: a short text may give a smaller vocabulary than vocab_size.
    train_bytes: of the mixture, that it is trained on at most.
    path: a tokenizer to use: a folder beside the recipe, or a model's name.
    """

    vocab_size: int | None = None
    allow_fewer: bool = False
    train_bytes: int = 40_000_000
    path: str | None = None

    def __post_init__(self) -> None:
        _require(
            (self.vocab_size is None) != (self.path is None),
            "tokenizer.vocab_size (to train one) or tokenizer.path (to use one): give exactly one of them",
        )
        if self.vocab_size is not None:
            _whole("tokenizer.vocab_size", self.vocab_size, 300)
        _whole("tokenizer.train_bytes", self.train_bytes, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class DataRecipe:
    """Everything `prepare` needs.

    sources: a table for each, headed [[source]].
    tokenizer: a table, see its keys.
    cleaning: a table, see its keys.
    duplicates: a table, see its keys.
    held_out: a table, see its keys.
    folder: where relative paths begin: that of the recipe's file.
    """

    sources: tuple[SourceConfig, ...]
    tokenizer: TokenizerConfig
    cleaning: CleaningConfig = field(default_factory=CleaningConfig)
    duplicates: DuplicatesConfig = field(default_factory=DuplicatesConfig)
    held_out: HeldOutConfig = field(default_factory=HeldOutConfig)
    folder: Path = Path()

    def __post_init__(self) -> None:
        _require(bool(self.sources), "a data recipe has at least one [[source]]")
        names = [source.name for source in self.sources]
        twice = sorted({name for name in names if names.count(name) > 1})
        _require(not twice, f"two sources are called {twice[0] if twice else ''!r}: give each a name of its own")

    @classmethod
    def from_toml(cls, path: Path) -> Self:
        """Raises ConfigError naming the file and the key."""
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: cannot be read as TOML: {error}") from error
        try:
            return cls.from_dict(values, folder=path.absolute().parent)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, folder: Path) -> Self:
        parts: dict[str, type[Any]] = {
            "tokenizer": TokenizerConfig,
            "cleaning": CleaningConfig,
            "duplicates": DuplicatesConfig,
            "held_out": HeldOutConfig,
        }
        given: dict[str, Any] = {}
        problems = []
        if unknown := sorted(values.keys() - {"source", *parts}):
            problems.append(f"unknown key {', '.join(unknown)}; known are source, {', '.join(parts)}")
        if "tokenizer" not in values:
            problems.append('missing table [tokenizer], with vocab_size = 8192 (to train one) or path = "FOLDER"')
        sources = values.get("source", [])
        if not isinstance(sources, list):
            problems.append("source must be tables, each headed [[source]]")
            sources = []
        wanted: list[tuple[type[Any], Any, str]] = [
            (parts[key], values[key], key) for key in parts if key in values
        ] + [(SourceConfig, source, f"source[{place}]") for place, source in enumerate(sources)]
        for part, table, where in wanted:
            try:
                given[where] = build(part, table, where)
            except ConfigError as error:
                problems.append(str(error))
        if problems:
            raise ConfigError("; ".join(problems))
        built = tuple(given.pop(f"source[{place}]") for place in range(len(sources)))
        return cls(sources=built, folder=folder, **given)

    def places_of(self, source: SourceConfig) -> list[Path]:
        """The files and folders of a `path` source; [] of others."""
        given = (source.path,) if source.path is not None else source.paths
        return [self.folder / Path(path).expanduser() for path in given]

    def without(self, names: Sequence[str]) -> Self:
        """The recipe without these sources."""
        known = {source.name for source in self.sources}
        if unknown := sorted(set(names) - known):
            raise ConfigError(f"there is no source {unknown[0]!r} to leave out; there are {', '.join(sorted(known))}")
        return dataclasses.replace(self, sources=tuple(s for s in self.sources if s.name not in names))

    def minimum_of(self, source: SourceConfig) -> int:
        return source.minimum_characters or self.cleaning.minimum_characters

    def split_of(self, source: SourceConfig) -> int:
        return source.split_characters or self.cleaning.split_characters

    def given_tokenizer(self) -> str | Path | None:
        """The tokenizer to use: a path beside the recipe where there is one, else a name; None: one is trained."""
        if self.tokenizer.path is None:
            return None
        path = self.folder / Path(self.tokenizer.path).expanduser()
        return path if path.exists() else self.tokenizer.path

    def held_out_of(self, source: SourceConfig) -> float:
        return self.held_out.share if source.held_out is None else source.held_out
