"""The other end of a `worker`: a side that runs in a process of its own."""

import json
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from deepseek.errors import DeepseekError
from deepseek.profiler.work import Timing, Work

SideName = Literal["deepseek", "llama.cpp"]
_LAST_WORDS = 2000


class RemoteSide:
    """Implements `work.Side`. The process lives until `close`; its idle threads sleep.

    load_seconds: from the start of loading to the logits of a first token, without Python's start and imports.
    memory: what the process took right after, see `process.memory_of`. Raises DeepseekError for what the side refuses
    and when its process dies.
    """

    def __init__(self, name: SideName, path: Path, *, threads: int, settings: dict[str, Any] | None = None) -> None:
        self.name = name
        self._stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed by `close`
        self._process = subprocess.Popen(
            [sys.executable, "-m", "deepseek.profiler.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
        )
        try:
            opened = self._ask(do="open", side=name, path=str(path), threads=threads, settings=settings)
        except BaseException:
            self.close()
            raise
        self.load_seconds: float = opened["seconds"]
        self.memory: dict[str, int] | None = opened["memory"]

    @property
    def pid(self) -> int:
        return self._process.pid

    def tune(self, work: Work) -> dict[str, Any]:
        setting: dict[str, Any] = self._ask(do="tune", work=work.to_dict())["setting"]
        return setting

    def run(self, work: Work) -> Timing:
        return Timing(**self._ask(do="run", work=work.to_dict()))

    def losses(self, window: list[int]) -> list[float]:
        losses: list[float] = self._ask(do="losses", window=window)["losses"]
        return losses

    def facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = self._ask(do="facts")["facts"]
        return facts

    def memory_now(self) -> dict[str, int] | None:
        memory: dict[str, int] | None = self._ask(do="facts")["memory"]
        return memory

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._stderr):
            with suppress(BrokenPipeError):  # what the dead process never read
                pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _ask(self, **command: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        line = ""
        try:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            pass
        if not line:
            raise DeepseekError(f"the process of {self.name} ended early: {self._last_words()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise DeepseekError(answer["error"])
        return answer

    def _last_words(self) -> str:
        self._process.wait(timeout=10)
        self._stderr.seek(0)
        return self._stderr.read()[-_LAST_WORDS:].strip() or f"exit code {self._process.returncode}, nothing said"
