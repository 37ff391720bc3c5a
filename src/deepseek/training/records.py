"""What a run tells while it goes on: to its logs, to TensorBoard, to whoever watches."""

from collections.abc import Mapping
from typing import Any, Protocol

from deepseek.training.plan import Plan
from deepseek.training.run_folder import RunFolder
from deepseek.training.tensorboard import TensorBoard


class Watcher(Protocol):
    """Whoever shows a run while it goes on."""

    def step(self, record: Mapping[str, Any], plan: Plan) -> None:
        """After each step: what log.jsonl says of it."""
        ...

    def note(self, text: str) -> None:
        """Something worth a line: an evaluation, a checkpoint, a roll-back."""
        ...


class Records:
    """board: None without TensorBoard."""

    def __init__(self, folder: RunFolder, plan: Plan, watcher: Watcher, board: TensorBoard | None) -> None:
        self._folder, self._plan, self._watcher, self._board = folder, plan, watcher, board

    def step(self, record: Mapping[str, Any]) -> None:
        self._folder.append("log.jsonl", record)
        if self._board is not None:
            self._board.step(record)
        self._watcher.step(record, self._plan)

    def evaluation(self, step: int, losses: Mapping[str, float]) -> None:
        """losses: nats a token by source."""
        self._folder.append("evaluations.jsonl", {**self._at(step), "loss": losses})
        if self._board is not None:
            self._board.evaluation(step, losses)
        told = ", ".join(f"{source} {loss:.4f}" for source, loss in losses.items())
        self.note(
            f"step {step}: held-out loss {told or 'not measured: no text is held out (held_out in the data recipe)'}"
        )

    def sample(self, step: int, prompt: str, text: str) -> None:
        self._folder.append("samples.jsonl", {**self._at(step), "prompt": prompt, "text": text})
        if self._board is not None:
            self._board.sample(step, prompt, text)

    def needles(self, step: int, window: int | None, found: Mapping[str, Any]) -> None:
        """found: of `needle_recall`."""
        self._folder.append("needle.jsonl", {**self._at(step), "window": window, **found})
        sight = f"a window of {window:,}" if window else "full attention"
        recall = ", ".join(f"{int(length):,} tokens {share:.0%}" for length, share in found["recall"].items())
        self.note(f"step {step}: needles recalled with {sight}: {recall}")

    def note(self, text: str) -> None:
        self._watcher.note(text)

    def _at(self, step: int) -> dict[str, int]:
        return {"step": step, "tokens": self._plan.tokens_after(step)}
