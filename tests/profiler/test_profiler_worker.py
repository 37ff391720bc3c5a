"""A side in another process: answers, refusals and deaths come back as what they are."""

import io
import json
import sys
from pathlib import Path

import pytest

from deepseek.errors import DeepseekError
from deepseek.profiler import worker
from deepseek.profiler.llama_cpp import import_llama_cpp
from deepseek.profiler.remote import RemoteSide
from deepseek.profiler.work import Timing, Work


class Side:
    def tune(self, work: Work) -> dict[str, int]:
        return {"requests": work.requests}

    def run(self, work: Work) -> Timing:
        if work.context == 13:
            raise DeepseekError("no 13: choose another")
        return Timing(seconds=0.5, tokens=work.tokens)

    def losses(self, window: list[int]) -> list[float]:
        return [0.25] * (len(window) - 1)

    def facts(self) -> dict[str, str]:
        return {"version": "1"}


def test_one_answer_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker.Worker, "_open", lambda self, command: setattr(self, "_side", Side()) or {"seconds": 1})
    prompt, bad = (Work(kind="prompt", context=n).to_dict() for n in (4, 13))
    commands = [{"do": "open"}, {"do": "tune", "work": prompt}, {"do": "run", "work": prompt}]
    commands += [{"do": "run", "work": bad}, {"do": "losses", "window": [1, 2, 3]}, {"do": "facts"}]
    answers = io.StringIO()
    worker.serve(io.StringIO("".join(json.dumps(command) + "\n" for command in commands)), answers)
    opened, tuned, ran, refused, losses, facts = map(json.loads, answers.getvalue().splitlines())
    assert opened == {"seconds": 1}
    assert tuned == {"setting": {"requests": 1}}
    assert Timing(**ran) == Timing(seconds=0.5, tokens=4)
    assert refused == {"error": "no 13: choose another"}
    assert losses == {"losses": [0.25, 0.25]}
    assert facts["facts"] == {"version": "1"}


def test_a_refusal_crosses_the_pipe(tmp_path: Path) -> None:
    with pytest.raises(DeepseekError, match="no-such-model"):
        RemoteSide("deepseek", tmp_path / "no-such-model.gguf", threads=1)


def test_a_death_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    (tmp_path / "python").write_text("#!/bin/sh\necho out of luck >&2\n")
    (tmp_path / "python").chmod(0o755)
    with pytest.raises(DeepseekError, match=r"the process of llama\.cpp ended early: out of luck"):
        RemoteSide("llama.cpp", tmp_path, threads=1)


def test_without_llama_cpp_it_says_how_to_build_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    with pytest.raises(DeepseekError, match="GGML_NATIVE=ON"):
        import_llama_cpp()
