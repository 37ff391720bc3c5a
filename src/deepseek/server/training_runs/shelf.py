"""Which runs there are: those of a folder, and those that lie beside the served model."""

import json
import math
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from deepseek.server.protocol.training import (
    RecordFile,
    RecordPage,
    TrainingRun,
    TrainingRunFacts,
    TrainingRunList,
)
from deepseek.server.training_runs.json_lines import (
    ALL,
    Thinning,
    file_state,
    is_count,
    last_record,
    open_regular,
    read_lines,
)

if sys.platform != "win32":
    import fcntl

DEFAULT_FOLDER = "runs"
SHIPPED_FOLDER = "training"
MOST_RUNS = 500
_MOST_FACTS = 1 << 20  # bytes of run.json or left_out.json
_RUN, _LOG, _LOCK = "run.json", "log.jsonl", ".lock"
FILES = {
    "log": _LOG,
    "evaluations": "evaluations.jsonl",
    "samples": "samples.jsonl",
    "needle": "needle.jsonl",
}


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a run lies. homes: folders that its files must lie in, wherever symbolic links lead."""

    folder: Path
    origin: Literal["runs", "model"]
    homes: tuple[Path, ...]

    def file(self, name: str) -> Path:
        """Raises FileNotFoundError when it is missing or a link leads elsewhere."""
        real = (self.folder / name).resolve(strict=True)
        if not any(real.is_relative_to(home) for home in self.homes):
            raise FileNotFoundError(name)
        return real


class Shelf:
    """The runs below `runs` and those in `training/` of the model's folder. Its methods read files.

    A run's name is looked up among those that are there and never joined to a path.
    """

    def __init__(self, runs: Path, model: Path | None = None) -> None:
        self.runs = runs.absolute()
        self._model = model.absolute() if model is not None and model.is_dir() else None
        self._last: dict[Path, tuple[RecordFile, dict[str, Any] | None]] = {}
        """By log: its state when the last line was looked for, and that line."""

    def listed(self) -> TrainingRunList:
        found = [run for name, place in self._places().items() if (run := self._card(name, place)) is not None]
        found.sort(key=lambda run: (not run.going_on, -run.changed, run.id))
        return TrainingRunList(data=found[:MOST_RUNS], folder=_text(str(self.runs)), has_more=len(found) > MOST_RUNS)

    def facts(self, name: str) -> TrainingRunFacts:
        """Raises KeyError for a name that is none."""
        place = self._places()[name]
        card = self._card(name, place)
        if card is None:
            raise KeyError(name)
        left_out = (_json_object(place, "left_out.json") or {}).get("batches")
        return TrainingRunFacts(
            run=card,
            facts=_json_object(place, _RUN),
            left_out=left_out if isinstance(left_out, list) else [],
        )

    def records(self, name: str, file: str, offset: int, thinning: Thinning = ALL) -> RecordPage:
        """Of one of FILES, see `read_lines`; an empty page where that is missing. Raises KeyError as `facts`."""
        place = self._places()[name]
        try:
            return read_lines(place.file(FILES[file]), offset, thinning)
        except OSError:
            return RecordPage(offset=0, next_offset=0, bytes=0, version="")

    def _places(self) -> dict[str, _Place]:
        places = {
            name: _Place(folder, "runs", (folder.resolve(),))
            for name, folder in _folders(self.runs)
            if _holds_a_run(folder)
        }
        if self._model is not None:
            shipped, homes = self._model / SHIPPED_FOLDER, _homes(self._model)
            for name, folder in [(self._model.name, shipped), *_folders(shipped)]:
                if _holds_a_run(folder):
                    places[f"model:{_text(name)}"] = _Place(folder, "model", homes)
        return places

    def _card(self, name: str, place: _Place) -> TrainingRun | None:
        """None when there is nothing to show of it."""
        files, changed = {}, 0
        last: dict[str, Any] = {}
        for kind, file_name in FILES.items():
            try:
                path = place.file(file_name)
                with open_regular(path) as file:
                    state = file_state(file)
                    if file_name == _LOG:
                        changed = int(os.fstat(file.fileno()).st_mtime)
                        last = self._last_of(path, file, state) or {}
            except OSError:
                continue
            files[kind] = state
        facts = _json_object(place, _RUN)
        if facts is None and not files:
            return None
        facts = facts or {}
        return TrainingRun(
            id=name, origin=place.origin, going_on=_is_going_on(place), changed=changed, files=files,
            started=_text(facts["started"])[:40] if isinstance(facts.get("started"), str) else None,
            parameters=_count(facts, "parameters"), active_parameters=_count(facts, "active_parameters"),
            steps=_count(facts, "steps"), tokens=_count(facts, "tokens"), step=_count(last, "step"),
            trained_tokens=_count(last, "tokens"), loss=_number(last, "main_loss" if "main_loss" in last else "loss"),
        )  # fmt: skip

    def _last_of(self, path: Path, file: Any, state: RecordFile) -> dict[str, Any] | None:
        """Looked for again only when the log has changed."""
        known = self._last.get(path)
        if known is None or known[0] != state:
            if len(self._last) > 2 * MOST_RUNS:
                self._last.clear()
            record = last_record(file)
            known = self._last[path] = (state, record and {key: record[key] for key in _SHOWN & record.keys()})
        return known[1]


_SHOWN = {"step", "tokens", "main_loss", "loss"}


def _folders(parent: Path) -> Iterator[tuple[str, Path]]:
    """(name, path) of what may be folders of runs; none when `parent` cannot be read."""
    try:
        names = sorted(os.listdir(parent))
    except OSError:
        return
    for name in names:
        if not name.startswith("."):
            yield _text(name), parent / name


def _holds_a_run(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (_RUN, _LOG))


def _homes(model: Path) -> tuple[Path, ...]:
    """Also where the cache of huggingface_hub keeps what the links of a snapshot lead to."""
    blobs = (model.parent.parent / "blobs",) if model.parent.name == "snapshots" else ()
    return tuple(home.resolve() for home in (model, *blobs))


def _is_going_on(place: _Place) -> bool:
    """Whether a process trains there: it holds the lock of the folder. False where locks cannot be asked for."""
    if sys.platform == "win32":
        return False
    try:
        with open_regular(place.file(_LOCK)) as file:
            try:
                fcntl.flock(file.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)  # given back at once, by closing
            except BlockingIOError:
                return True
    except OSError:
        pass
    return False


def _json_object(place: _Place, name: str) -> dict[str, Any] | None:
    try:
        with open_regular(place.file(name)) as file:
            text = file.read(_MOST_FACTS + 1)
        values = json.loads(text) if len(text) <= _MOST_FACTS else None
        json.dumps(values, ensure_ascii=False).encode()  # half a surrogate pair could not be told
    except (OSError, ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None


def _text(name: str) -> str:
    """As it can be told: a name of bytes that are no UTF-8 shows them as \\xNN."""
    return os.fsencode(name).decode("utf-8", "backslashreplace") if not name.isascii() else name


def _count(values: Mapping[str, Any], key: str) -> int | None:
    value = values.get(key)
    return value if is_count(value) else None


def _number(values: Mapping[str, Any], key: str) -> float | None:
    value = values.get(key)
    if isinstance(value, float) and math.isfinite(value):
        return value
    return float(value) if isinstance(value, int) and is_count(value) else None
