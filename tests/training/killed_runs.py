"""Run by test_kill.py: the same run once undisturbed, and once killed (SIGKILL) again and again at random moments.

A moment is a file or folder of the run folder being opened, renamed, linked or removed, or a gradient or update being
computed. Each life is a fork of this process, which has imported everything and computed nothing.
Usage: killed_runs.py DATA FOLDER LIVES; prints how many moments the undisturbed run had and where each life ended.
"""

import json
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from deepseek.optim.master_weights import MasterWeightOptimizer
from tiny_runs import Listener, lines, tiny_recipe, train, use_one_thread

EVENTS = {"open", "os.rename", "os.link", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree"}


class Moments:
    """Counts moments and dies at the one numbered `last`; None: lives on."""

    def __init__(self, run: Path, last: int | None) -> None:
        self.count, self._run, self._last = 0, str(run), last
        sys.addaudithook(self._audit)
        torch.autograd.backward = self._counted(torch.autograd.backward)
        MasterWeightOptimizer.step = self._counted(MasterWeightOptimizer.step)

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if event in EVENTS and str(args[0]).startswith(self._run):
            self._pass()

    def _counted(self, function: Callable[..., Any]) -> Any:
        def run(*args: Any, **options: Any) -> Any:
            self._pass()
            return function(*args, **options)

        return run

    def _pass(self) -> None:
        self.count += 1
        if self.count == self._last:
            os.kill(os.getpid(), signal.SIGKILL)


def live(data: Path, run: Path, last: int | None) -> int | None:
    """The moments of one life; None if it was killed."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        use_one_thread()
        moments = Moments(run, last)
        recipe = tiny_recipe(data, checkpoints={"every": 3}, evaluation={"prompts": []}, optimizer={"name": "muon"})
        train(recipe, run, Listener(), resume=True)
        os.write(writing, str(moments.count).encode())
        os._exit(0)
    os.close(writing)
    _, status = os.waitpid(child, 0)
    told = os.read(reading, 100)
    os.close(reading)
    if os.WIFSIGNALED(status):
        return None
    assert status == 0, "the run failed: see above"
    return int(told)


def main() -> None:
    data, folder, lives = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    moments = live(data, folder / "whole", None)
    assert moments is not None
    chance = random.Random(0)
    ends = []
    for _ in range(lives):
        if live(data, folder / "killed", chance.randrange(1, moments // 2)) is not None:
            break
        ends.append(len(lines(folder / "killed")))
    live(data, folder / "killed", None)
    print(json.dumps({"moments": moments, "ends": ends}))


if __name__ == "__main__":
    main()
