"""A side in a process of its own: reads one JSON object a line, answers each with one, and sleeps in between.

Only the answers go to standard output; whatever libraries print there is sent to standard error.
"""

import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from deepseek.errors import DeepseekError
from deepseek.profiler.process import memory_of
from deepseek.profiler.work import Side, Work

FIRST_TOKEN = Work(kind="prompt", context=1)


class Worker:
    """What the commands do. `open` comes first."""

    def __init__(self) -> None:
        self._side: Side | None = None

    def answer(self, command: dict[str, Any]) -> dict[str, Any]:
        do = command["do"]
        if do == "open":
            return self._open(command)
        assert self._side is not None, "open first"
        if do == "tune":
            return {"setting": self._side.tune(Work.from_dict(command["work"]))}
        if do == "run":
            return asdict(self._side.run(Work.from_dict(command["work"])))
        if do == "losses":
            return {"losses": self._side.losses(command["window"])}
        assert do == "facts", do
        return {"facts": self._side.facts(), "memory": memory_of()}

    def _open(self, command: dict[str, Any]) -> dict[str, Any]:
        """Imports are over before the clock starts: it measures the model, not Python."""
        begun = time.perf_counter()
        kind, path, threads = command["side"], Path(command["path"]), command["threads"]
        if kind == "llama.cpp":
            from deepseek.profiler.llama_cpp import LlamaCpp, import_llama_cpp

            import_llama_cpp()
            begun = time.perf_counter()
            self._side = LlamaCpp(path, threads=threads)
        else:
            from deepseek.profiler.engine_side import EngineSide, import_engine

            import_engine()
            begun = time.perf_counter()
            self._side = EngineSide(path, threads=threads, settings=command.get("settings"))
        self._side.run(FIRST_TOKEN)
        return {"seconds": time.perf_counter() - begun, "memory": memory_of()}


def serve(lines: TextIO, answers: TextIO) -> None:
    """Until the input ends."""
    worker = Worker()
    for line in lines:
        try:
            answer = worker.answer(json.loads(line))
        except DeepseekError as error:
            answer = {"error": str(error)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def main() -> None:
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
