"""The training loop: stages, steps, evaluation, checkpoints, and coming back from what went wrong.

A stage begins, a run resumes and a roll-back happens in one way: the state is built anew and filled from a checkpoint.
So each of them gives the numbers of a run that was never interrupted.
"""

import math
import os
import platform
import resource
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import torch
from filelock import FileLock, Timeout

from deepseek import __version__
from deepseek.errors import ConfigError, DeepseekError
from deepseek.families.sizes import model_size
from deepseek.optim.clipping import clip_factor, gradient_norm
from deepseek.progress import Report, silent
from deepseek.tokenizer import AutoTokenizer
from deepseek.tokenizer.tokenizer import Tokenizer
from deepseek.training.balance import LayerLoad
from deepseek.training.checkpoints import Checkpoints
from deepseek.training.data import Batches
from deepseek.training.evaluation import held_out_losses, samples
from deepseek.training.flops import matrix_peak, training_flops_per_token
from deepseek.training.loss import language_model_loss
from deepseek.training.plan import Plan, Stage, make_plan
from deepseek.training.prepared import mixture_of
from deepseek.training.recipe import WITHOUT_EFFECT, Recipe
from deepseek.training.run_folder import RunFolder
from deepseek.training.state import TrainingState
from deepseek.training.stop import StopRequest

STATE_FORMAT = 1


class Watcher(Protocol):
    """Whoever shows a run while it goes on."""

    def step(self, record: dict[str, Any], plan: Plan) -> None:
        """After each step: what log.jsonl says of it."""
        ...

    def note(self, text: str) -> None:
        """Something worth a line: an evaluation, a checkpoint, a roll-back."""
        ...


class NotFinite(Exception):
    """A loss or gradient is not a number. explanation: which module, as far as it could be found."""

    def __init__(self, what: str, batch: int) -> None:
        super().__init__(what)
        self.what, self.batch = what, batch


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How a run ended. signal: that stopped it early, None at its end. checkpoint: the newest."""

    step: int
    tokens: int
    loss: float | None
    checkpoint: Path | None
    signal: int | None


class Trainer:
    """One run in one folder. Raises ConfigError, CheckpointError or DeepseekError with the mend."""

    def __init__(self, recipe: Recipe, folder: Path, data: Path, *, report: Report = silent) -> None:
        """data: the folder that `deepseek data` prepared."""
        self.recipe, self.run_folder, self._data, self._report = recipe, RunFolder(folder), data, report
        self._mixture = mixture_of(recipe.data, data)
        first = self._batches(recipe.stage.sequence_length, 1)
        self.tokenizer = AutoTokenizer.from_pretrained(first.tokenizer_folder)
        self.plan = make_plan(recipe, first.vocab_size, start=_start_config(recipe))
        self.plan = _with_special_tokens(self.plan, self.tokenizer)
        self._checkpoints = Checkpoints(self.run_folder.checkpoints, keep=recipe.checkpoints.keep)
        self._state: TrainingState | None = None
        self._peak = 0.0
        self._saved: Path | None = None
        self._loss: float | None = None

    def run(self, watcher: Watcher, *, resume: bool = False, stop: StopRequest | None = None) -> Outcome:
        """Train until the plan's end or until asked to stop; then the newest state is saved."""
        self._prepare_folder(resume)
        with ExitStack() as stack:
            lock = FileLock(self.run_folder.path / ".lock")
            try:
                stack.enter_context(lock.acquire(timeout=0))
            except Timeout:
                raise DeepseekError(f"{self.run_folder.path}: another process trains in this folder") from None
            stop = stop or stack.enter_context(StopRequest())
            self._peak = matrix_peak(torch.device("cpu"))
            self._write_run()
            step = self._begin(watcher)
            while step < self.plan.steps and stop.signal is None:
                try:
                    step = self._run_stage(self.plan.stage_at(step), step, watcher, stop)
                except NotFinite as fault:
                    self._skip(fault, step, watcher)
                if step < self.plan.steps and stop.signal is None:
                    step = self._begin(watcher)
        return Outcome(
            step=step, tokens=self.plan.tokens_after(step), loss=self._loss, checkpoint=self._saved, signal=stop.signal
        )

    # Beginning

    def _prepare_folder(self, resume: bool) -> None:
        run = self.run_folder
        if run.exists:
            if not resume:
                raise ConfigError(f"{run.path} already holds a run: go on with it by --resume, or choose another --out")
            _check_same(run.read_run().get("recipe", {}), self.recipe.to_dict(), run.path)
        run.create()

    def _write_run(self) -> None:
        size = model_size(self.plan.config)
        self.run_folder.write_run(
            {
                "recipe": self.recipe.to_dict(),
                "config": self.plan.config.to_dict(),
                "parameters": size.total,
                "active_parameters": size.active,
                "started": self.run_folder.read_run().get("started", datetime.now(UTC).isoformat(timespec="seconds")),
                "steps": self.plan.steps,
                "tokens": self.plan.tokens,
                "stages": [
                    {"name": stage.name, "start": stage.start, "stop": stage.stop} for stage in self.plan.stages
                ],
                "machine": {
                    "processor": _processor(),
                    "cores": os.cpu_count(),
                    "threads": torch.get_num_threads(),
                    "matrix_peak": self._peak,
                    "torch": torch.__version__,
                    "deepseek": __version__,
                },
            }
        )

    def _begin(self, watcher: Watcher) -> int:
        """Build the state that the newest whole checkpoint describes; the step it stands at."""
        saved = self._checkpoints.newest(self._report_damage(watcher))
        step = 0 if saved is None else saved.step
        stage = self.plan.stage_at(step)
        self._state = None  # before the new one is built: memory holds one
        self._state = TrainingState(self.recipe, stage.config, accumulates=stage.micro_batches > 1)
        if saved is not None:
            if saved.state["threads"] != torch.get_num_threads():
                watcher.note(
                    f"the checkpoint was made with {saved.state['threads']} threads, not {torch.get_num_threads()}: "
                    "sums may differ in their last bits"
                )
            self._state.restore(saved.path, saved.state)
            self._saved = saved.path
        self.run_folder.cut_logs(step)
        return step

    def _report_damage(self, watcher: Watcher) -> Report:
        def report(label: str, done: int, total: int | None, unit: str = "bytes") -> None:
            watcher.note(label)

        return report

    # Running

    def _run_stage(self, stage: Stage, step: int, watcher: Watcher, stop: StopRequest) -> int:
        """Up to the stage's last step or the request to stop. Returns the steps done in the run."""
        batches = self._batches(stage.sequence_length, stage.batch_size)
        order = _BatchOrder(stage.first_batch - stage.start, [one["batch"] for one in self.run_folder.skipped()])
        flops = training_flops_per_token(
            stage.config, stage.sequence_length, with_mtp=self.recipe.training.mtp_weight > 0
        )
        saved_at = time.monotonic()
        while step < stage.stop:
            record = self._step(stage, step, batches, order.at(step), flops)
            step += 1
            self.run_folder.append("log.jsonl", record)
            self._loss = record["loss"]
            watcher.step(record, self.plan)
            self._evaluate_if_due(stage, step, batches, watcher)
            stops = stop.signal is not None
            late = time.monotonic() - saved_at > self.recipe.checkpoints.minutes * 60
            if stops or late or step == stage.stop or step % self.recipe.checkpoints.every == 0:
                self._save(stage, step, watcher)
                saved_at = time.monotonic()
            if stops:
                break
        return step

    def _step(self, stage: Stage, step: int, batches: Batches, batch: int, flops: float) -> dict[str, Any]:
        state, training = self._state, self.recipe.training
        assert state is not None
        begun = time.perf_counter()
        tokens = torch.from_numpy(batches.at(batch)).to(state.model.device)
        state.routing.begin_step(stage.micro_batches, loss_scale=state.loss_scale.factor)
        totals = torch.zeros(3)
        for part in torch.split(tokens, stage.micro_batch_size):
            loss = language_model_loss(state.model, part, mtp_weight=training.mtp_weight)
            torch.autograd.backward(loss.total * (state.loss_scale.factor / stage.micro_batches))
            totals += torch.stack([loss.total.detach(), loss.main, loss.mtp]).float().cpu() / stage.micro_batches
        norm = gradient_norm(state.parameters()) / state.loss_scale.factor
        if not math.isfinite(float(totals[0])):
            raise NotFinite("loss", batch)
        if not math.isfinite(norm):
            raise NotFinite("gradient", batch)
        loads = state.routing.end_step()
        rate = stage.learning_rate_at(step)
        state.set_learning_rate(rate)
        scale = clip_factor(norm, self.recipe.optimizer.clip_norm) / state.loss_scale.factor
        for optimizer in state.optimizers:
            optimizer.step(gradient_scale=scale)
            optimizer.zero_grad(set_to_none=True)
        seconds = time.perf_counter() - begun
        return self._record(stage, step + 1, totals.tolist(), norm, rate, seconds, flops, loads)

    def _record(
        self,
        stage: Stage,
        step: int,
        losses: list[float],
        norm: float,
        rate: float,
        seconds: float,
        flops: float,
        loads: Sequence[LayerLoad],
    ) -> dict[str, Any]:
        """A line of log.jsonl."""
        speed = stage.tokens_per_step / seconds
        record: dict[str, Any] = {
            "step": step,
            "tokens": self.plan.tokens_after(step),
            "loss": losses[0],
            "main_loss": losses[1],
            "mtp_loss": losses[2],
            "balance_loss": sum(load.balance_loss for load in loads),
            "learning_rate": rate,
            "gradient_norm": norm,
            "seconds": seconds,
            "tokens_per_second": speed,
            "peak_share": speed * flops / self._peak,
            "memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }
        if step % self.recipe.training.load_every == 0:
            record["layers"] = [asdict(load) for load in loads]
        return record

    def _evaluate_if_due(self, stage: Stage, step: int, batches: Batches, watcher: Watcher) -> None:
        table, state = self.recipe.evaluation, self._state
        assert state is not None
        if step != self.plan.steps and (table.every is None or step % table.every):
            return
        at = {"step": step, "tokens": self.plan.tokens_after(step)}
        losses = held_out_losses(state.model, batches, count=table.batches, micro_batch_size=stage.micro_batch_size)
        self.run_folder.append("evaluations.jsonl", {**at, "loss": losses})
        watcher.note(f"step {step}: held-out loss " + ", ".join(f"{name} {loss:.4f}" for name, loss in losses.items()))
        for prompt, text in samples(
            state.model,
            self.tokenizer,
            table.prompts,
            tokens=table.sample_tokens,
            temperature=table.temperature,
            seed=self.recipe.seed,
        ):
            self.run_folder.append("samples.jsonl", {**at, "prompt": prompt, "text": text})

    def _save(self, stage: Stage, step: int, watcher: Watcher) -> None:
        state = self._state
        assert state is not None
        self.run_folder.sync()
        names = [name for name, at in self.recipe.checkpoints.named.items() if at == step]
        if step == stage.stop:
            names += [stage.name] + (["final"] if step == self.plan.steps else [])
        facts = {
            "format": STATE_FORMAT,
            "step": step,
            "tokens": self.plan.tokens_after(step),
            "recipe": self.recipe.fingerprint(),
            "threads": torch.get_num_threads(),
            **state.facts(),
        }
        self._saved = self._checkpoints.save(
            step, state.model, state.tensors(), facts, tokenizer=self.tokenizer, names=tuple(names), report=self._report
        )
        watcher.note(f"step {step}: saved {self._saved}")

    def _skip(self, fault: NotFinite, step: int, watcher: Watcher) -> None:
        skipped = self.run_folder.skipped()
        explanation = f"the {fault.what} of batch {fault.batch} is not finite"
        if len(skipped) >= self.recipe.training.max_rollbacks:
            raise DeepseekError(f"{explanation}, after {len(skipped)} roll-backs (training.max_rollbacks)")
        self.run_folder.write_skipped([*skipped, {"batch": fault.batch, "explanation": explanation}])
        watcher.note(f"{explanation}; rolled back, the batch is left out")

    def _batches(self, sequence_length: int, batch_size: int) -> Batches:
        return Batches(
            self._data, self._mixture, sequence_length=sequence_length, batch_size=batch_size, seed=self.recipe.seed
        )


class _BatchOrder:
    """Which batch of the data each step takes: one after the other, those that are skipped left out."""

    def __init__(self, offset: int, skipped: Sequence[int]) -> None:
        self._offset, self._skipped = offset, sorted(set(skipped))

    def at(self, step: int) -> int:
        batch = step + self._offset
        for skipped in self._skipped:
            batch += self._offset <= skipped <= batch
        return batch


def _start_config(recipe: Recipe) -> Any:
    if recipe.model.start_from is None:
        return None
    from deepseek import hub
    from deepseek.checkpoint.checkpoint import open_checkpoint

    with open_checkpoint(hub.resolve(recipe.model.start_from).path) as checkpoint:
        return checkpoint.config


def _with_special_tokens(plan: Plan, tokenizer: Tokenizer) -> Plan:
    """The ends of text that generation stops at."""
    end = tokenizer.eos_token_id
    tokens: dict[str, Any] = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_ids": () if end is None else (end,),
        "pad_token_id": tokenizer.pad_token_id,
    }
    return Plan(stages=tuple(replace(stage, config=replace(stage.config, **tokens)) for stage in plan.stages))


def _check_same(before: dict[str, Any], now: dict[str, Any], where: Path) -> None:
    """Raises ConfigError naming the first table that differs."""
    for key in sorted(before.keys() | now.keys()):
        if key not in WITHOUT_EFFECT and before.get(key) != now.get(key):
            raise ConfigError(
                f"{where}: the run was begun with another recipe: {key} was {before.get(key)!r} and is "
                f"{now.get(key)!r}; resume with the same one, or begin a new run with model.start_from"
            )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
