"""The whole measurement of one model, with or without llama.cpp beside it, and the record of it."""

import platform
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deepseek.checkpoint.configuration import load_config
from deepseek.checkpoint.file_kinds import is_gguf
from deepseek.errors import DeepseekError
from deepseek.profiler.comparison import DISTURBED, ROUNDS, Row, alternate
from deepseek.profiler.perplexity import perplexity, score
from deepseek.profiler.process import Neighbours, forget_cached
from deepseek.profiler.remote import RemoteSide, SideName
from deepseek.profiler.sizes import FileSize, size_of
from deepseek.profiler.work import Work, chosen_work
from deepseek.progress import Report, silent

OURS: SideName = "deepseek"
THEIRS: SideName = "llama.cpp"
PATIENCE_SECONDS = 60.0  # a row
_GLANCE_SECONDS = 0.3
_QUIET_SECONDS = 0.1  # OpenMP's threads spin for some milliseconds after their last work


@dataclass(kw_only=True)
class Loading:
    """Seconds to a first token's logits, the file's pages dropped before and not; bytes in memory after it."""

    cold: float
    warm: float
    memory: dict[str, int] | None


@dataclass(kw_only=True)
class Measurement:
    """memory: by side after all work, see `process.memory_of`. perplexities: by side, where a text was given."""

    model: str
    size: FileSize
    threads: int
    loading: dict[str, Loading] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    memory: dict[str, dict[str, int] | None] = field(default_factory=dict)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    perplexities: dict[str, float] = field(default_factory=dict)
    scored_tokens: int = 0

    @property
    def sides(self) -> list[str]:
        return list(self.facts)

    def memory_limit(self) -> float | None:
        """Bytes a second, the best that was seen."""
        limits = [limit for row in self.rows for limit in row.limits]
        return max(limits) if limits else None


def measure(
    path: Path,
    *,
    quick: bool = False,
    only: Sequence[str] = (),
    against: bool = False,
    threads: int,
    rounds: int = ROUNDS,
    settings: dict[str, Any] | None = None,
    windows: Sequence[list[int]] = (),
    report: Report = silent,
) -> Measurement:
    """Measure the standard work on `path` by our engine and, with `against`, by llama.cpp on the very same file.

    only: keys of the work to do, all without any. settings: fields of EngineConfig for our side. windows: token windows
    for the perplexity of every side, see `perplexity`. Raises DeepseekError.
    """
    names: list[SideName] = [OURS, THEIRS] if against else [OURS]
    if against and not is_gguf(path):
        raise DeepseekError(f"llama.cpp reads GGUF files and {path} is none: convert it first (deepseek convert)")
    allow = bool((settings or {}).get("allow_unknown_keys"))
    config = load_config(path, allow_unknown=allow)
    work = chosen_work(only, quick=quick, longest=config.max_position_embeddings)
    result = Measurement(model=str(path), size=size_of(path, allow_unknown=allow), threads=threads)
    for name in names:
        report(f"loading with {name}", 0, None, "")
        result.loading[name] = _load(name, path, threads, settings)
        report(f"loading with {name}", 1, 1, "")
    with _opened(names, path, threads, settings) as sides:
        result.facts = {name: side.facts() for name, side in sides.items()}
        _measure_rows(result, work, sides, threads, rounds, report)
        result.memory = {name: side.memory_now() for name, side in sides.items()}
        if windows:
            for label, side in sides.items():
                losses = score(windows, side, report=report, label=f"perplexity, {label}")
                result.perplexities[label], result.scored_tokens = perplexity(losses), len(losses)
    return result


def versions() -> dict[str, str]:
    """Of what the figures depend on besides the sides themselves."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version(), "processor": _processor(), "at": time.strftime("%Y-%m-%d %H:%M")}
    for package in ("numba", "numpy", "llama-cpp-python"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")


class _Patience:
    """Waits for a quiet machine before each timed piece, PATIENCE_SECONDS in all."""

    def __init__(self, pids: list[int]) -> None:
        self._pids = pids
        self._left = PATIENCE_SECONDS

    def wait(self) -> None:
        time.sleep(_QUIET_SECONDS)
        while self._left > 0:
            watch = Neighbours(self._pids)
            time.sleep(_GLANCE_SECONDS)
            share = watch.share()
            if share is None or share <= DISTURBED:
                return
            self._left -= _GLANCE_SECONDS


def _load(name: SideName, path: Path, threads: int, settings: dict[str, Any] | None) -> Loading:
    """Three processes: the first makes what is made once (compiled kernels, the packed store) and is not counted."""
    if name == OURS:
        RemoteSide(name, path, threads=threads, settings=settings).close()
    for file in _files_read(name, path):
        forget_cached(file)
    with RemoteSide(name, path, threads=threads, settings=settings) as side:
        cold = side.load_seconds
    with RemoteSide(name, path, threads=threads, settings=settings) as side:
        return Loading(cold=cold, warm=side.load_seconds, memory=side.memory)


def _files_read(name: SideName, path: Path) -> list[Path]:
    files = [path] if path.is_file() else [file for file in path.iterdir() if file.is_file()]
    if name == OURS:
        from deepseek.checkpoint.packed.cache import store_path

        store = store_path(path)
        files += [store] if store.exists() else []
    return files


@contextmanager
def _opened(
    names: Iterable[SideName], path: Path, threads: int, settings: dict[str, Any] | None
) -> Iterator[dict[str, RemoteSide]]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(RemoteSide(name, path, threads=threads, settings=settings)) for name in names}


def _measure_rows(
    result: Measurement, work: list[Work], sides: dict[str, RemoteSide], threads: int, rounds: int, report: Report
) -> None:
    from deepseek.profiler.memory_limit import MemoryLimit

    limit = MemoryLimit(threads)
    pids = [side.pid for side in sides.values()]
    for number, piece in enumerate(work):
        report("measuring", number, len(work), "rows")
        row = alternate(
            piece,
            sides,
            rounds=rounds,
            limit=limit.measure if piece.kind == "decode" else None,
            neighbours=lambda: Neighbours(pids).share,
            settled=_Patience(pids).wait,
        )
        result.rows.append(row)
    report("measuring", len(work), len(work), "rows")
