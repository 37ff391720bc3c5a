"""The training loop: stages, steps, evaluation, checkpoints, and coming back from what went wrong.

A stage begins, a run resumes and a roll-back happens in one way: the state is built anew and filled from a checkpoint.
So each of them gives the numbers of a run that was never interrupted.
"""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from deepseek.errors import CheckpointError, ConfigError, DeepseekError
from deepseek.models.device import choose_device, fast_dtype, peak_memory
from deepseek.progress import Report, silent
from deepseek.tokenizer import AutoTokenizer
from deepseek.tokenizer.tokenizer import Tokenizer
from deepseek.training.checkpoints import Checkpoints
from deepseek.training.data import Batches
from deepseek.training.evaluation import held_out_losses, samples
from deepseek.training.flops import matrix_peak, training_flops_per_token
from deepseek.training.needle import needle_recall, plant_in_batch
from deepseek.training.plan import Plan, Stage, make_plan
from deepseek.training.prepared import data_facts, expected_vocab_size, mixture_of
from deepseek.training.recipe import Precision, Recipe
from deepseek.training.records import Records, Watcher
from deepseek.training.run_facts import run_facts
from deepseek.training.run_folder import RunFolder
from deepseek.training.state import DTYPES, TrainingState, with_config
from deepseek.training.step import NotFinite, StepResult, train_step
from deepseek.training.stop import StopRequest
from deepseek.training.tensorboard import TensorBoard

STATE_FORMAT = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How a run ended. signal: that stopped it early, None at its end. checkpoint: the newest.

    loss, mtp_loss: of the last step, in nats a token: of the next token, and of the MTP layers if there are any.
    """

    step: int
    tokens: int
    loss: float | None
    mtp_loss: float | None
    checkpoint: Path | None
    signal: int | None


class Trainer:
    """One run in one folder. Raises ConfigError, CheckpointError or DeepseekError with the mend."""

    def __init__(self, recipe: Recipe, folder: Path, data: Path, *, report: Report = silent) -> None:
        """data: the folder that `deepseek data` prepared."""
        self.run_folder, self._data, self._report = RunFolder(folder), data, report
        self._device = choose_device(recipe.training.device)
        self.recipe = recipe = _with_precision(recipe, self.run_folder, self._device)
        self._mixture = mixture_of(recipe.data, data)
        first = self._batches(recipe.stage.sequence_length, 1)
        self._data_fingerprint = first.fingerprint
        self.tokenizer = AutoTokenizer.from_pretrained(first.tokenizer_folder)
        plan = make_plan(recipe, first.vocab_size, start=_start_config(recipe))
        self.plan = _with_special_tokens(plan, self.tokenizer)
        self.data_facts = data_facts(data, self._mixture, plan.tokens)
        self._checkpoints = Checkpoints(self.run_folder.checkpoints, keep=recipe.checkpoints.keep)
        self._state: TrainingState | None = None
        self._peak = 0.0
        self._saved: Path | None = None
        self._loss: float | None = None
        self._mtp_loss: float | None = None

    def run(self, watcher: Watcher, *, resume: bool = False, stop: StopRequest | None = None) -> Outcome:
        """Train until the plan's end or until asked to stop; then the newest state is saved."""
        run, table = self.run_folder, self.recipe.training
        self.check_folder(resume)
        run.create()
        with ExitStack() as stack:
            try:
                # Not 0 seconds: whoever asks whether a run goes on holds the lock for a moment (server/training_runs).
                stack.enter_context(FileLock(run.path / ".lock").acquire(timeout=1))
            except Timeout:
                raise DeepseekError(f"{run.path}: another process trains in this folder") from None
            stop = stop or stack.enter_context(StopRequest())
            self._peak = matrix_peak(self._device)
            started = run.read_run().get("started")
            facts = run_facts(self.recipe, self.plan, device=self._device, matrix_peak=self._peak, started=started)
            run.write_run({**facts, "data": self.data_facts.to_dict()})
            self._warn_of_slow_precision(watcher)
            step = -1
            while step < self.plan.steps and stop.signal is None:
                step = self._begin(watcher)
                board = TensorBoard(run.tensorboard, step) if table.tensorboard else None
                records = Records(run, self.plan, watcher, board)
                step = self._run_stage(self.plan.stage_at(step), step, records, stop)
                if board is not None:
                    board.close()
        return Outcome(
            step=step,
            tokens=self.plan.tokens_after(step),
            loss=self._loss,
            mtp_loss=self._mtp_loss,
            checkpoint=self._saved,
            signal=stop.signal,
        )

    def _warn_of_slow_precision(self, watcher: Watcher) -> None:
        precision, fast = self.recipe.training.precision, fast_dtype(self._device)
        if fast == torch.float32 and DTYPES[precision] != fast:
            watcher.note(f"this processor imitates {precision}, many times slower than training.precision = float32")

    def check_folder(self, resume: bool) -> None:
        """Raises ConfigError when the folder holds a run that this would not continue."""
        run = self.run_folder
        if not resume:
            run.check_new()
        elif run.exists and (changed := self.recipe.differences(run.read_run().get("recipe", {}))):
            raise ConfigError(
                f"{run.path}: the run was begun with another recipe ({'; '.join(changed)}); resume with the same one, "
                "or begin a new run with model.start_from"
            )

    @property
    def newest_checkpoint(self) -> Path | None:
        """That this process saved or began from."""
        return self._saved

    def _begin(self, watcher: Watcher) -> int:
        """Build the state that the newest whole checkpoint describes; the step it stands at."""
        self._state = None  # before the new one is built: memory holds one
        saved = self._checkpoints.newest(lambda label, *_: watcher.note(label))
        step = 0 if saved is None else saved.step
        stage = self.plan.stage_at(step)
        self._state = TrainingState(self.recipe, stage.config, accumulates=stage.micro_batches > 1)
        self._saved = None if saved is None else saved.path
        if saved is not None:
            self._check_saved(saved.state, saved.path, watcher)
            self._state.restore(saved.path, saved.state)
        self.run_folder.cut_logs(-1 if saved is None else step)
        return step

    def _check_saved(self, state: dict[str, Any], path: Path, watcher: Watcher) -> None:
        if state["format"] != STATE_FORMAT or state["recipe"] != self.recipe.fingerprint():
            raise CheckpointError(f"{path}: is of another version or recipe; begin a new run with model.start_from")
        if state["data"] != self._data_fingerprint:
            raise CheckpointError(
                f"{path}: was trained on other data than {self._data} now holds; prepare it as it was, or begin a new "
                "run with model.start_from"
            )
        if state["threads"] != (threads := torch.get_num_threads()):
            watcher.note(f"{path.name} was made with {state['threads']} threads, not {threads}: last bits may differ")

    def _run_stage(self, stage: Stage, step: int, records: Records, stop: StopRequest) -> int:
        """Up to the stage's last step, the request to stop, or a batch that is not finite; the steps done so far."""
        table = self.recipe.checkpoints
        batches = self._batches(stage.sequence_length, stage.batch_size)
        left_out = [entry["batch"] for entry in self.run_folder.left_out() if entry["stage"] == stage.name]
        order = _BatchOrder(stage.first_batch - stage.start, left_out)
        if step == 0:
            self._look_for_needles(stage, step, records)
        saved_at = time.monotonic()
        while step < stage.stop:
            try:
                record = self._step(stage, step, batches, order.at(step))
            except NotFinite as fault:
                self._leave_out(stage, order.at(step), step, fault, records)
                return step
            step += 1
            records.step(record)
            self._loss, self._mtp_loss = record["main_loss"], record["mtp_loss"]
            self._evaluate_if_due(stage, step, batches, records)
            stops = stop.signal is not None
            late = time.monotonic() - saved_at > table.minutes * 60
            if stops or late or step == stage.stop or step % table.every == 0 or step in table.named.values():
                self._save(stage, step, records)
                saved_at = time.monotonic()
            if stops:
                break
        return step

    def _step(self, stage: Stage, step: int, batches: Batches, batch: int) -> dict[str, Any]:
        """A line of log.jsonl."""
        assert self._state is not None
        begun = time.perf_counter()
        tokens = batches.at(batch)
        if stage.needles:
            tokens = plant_in_batch(tokens, stage.needles, batches.vocab_size, seed=self.recipe.seed, index=batch)
        rate = stage.learning_rate_at(step)
        result = train_step(
            self._state,
            torch.from_numpy(tokens),
            micro_batch_size=stage.micro_batch_size,
            learning_rate=rate,
            bias_update=stage.fall_at(step),
            mtp_weight=self.recipe.training.mtp_weight,
            clip_norm=self.recipe.optimizer.clip_norm,
        )
        return self._record(stage, step + 1, result, rate, time.perf_counter() - begun)

    def _record(self, stage: Stage, step: int, result: StepResult, rate: float, seconds: float) -> dict[str, Any]:
        speed = stage.tokens_per_step / seconds
        with_mtp = self.recipe.training.mtp_weight > 0
        flops = training_flops_per_token(stage.config, stage.sequence_length, with_mtp=with_mtp)
        record: dict[str, Any] = {
            "step": step,
            "tokens": self.plan.tokens_after(step),
            "loss": result.loss,
            "main_loss": result.main_loss,
            "mtp_loss": result.mtp_loss,
            "balance_loss": sum(load.balance_loss for load in result.loads),
            "learning_rate": rate,
            "gradient_norm": result.gradient_norm,
            "seconds": seconds,
            "tokens_per_second": speed,
            "peak_share": speed * flops / self._peak,
            "memory_bytes": peak_memory(self._device),
        }
        if step % self.recipe.training.load_every == 0:
            record["layers"] = [asdict(load) for load in result.loads]
        return record

    def _evaluate_if_due(self, stage: Stage, step: int, batches: Batches, records: Records) -> None:
        table, state = self.recipe.evaluation, self._state
        assert state is not None
        if step == stage.stop:
            self._look_for_needles(stage, step, records)
        if step != stage.stop and (table.every is None or step % table.every):
            return
        losses = held_out_losses(state.model, batches, count=table.batches, micro_batch_size=stage.micro_batch_size)
        records.evaluation(step, losses)
        for prompt, text in samples(
            state.model,
            self.tokenizer,
            table.prompts,
            tokens=table.sample_tokens,
            temperature=table.temperature,
            seed=self.recipe.seed,
        ):
            records.sample(step, prompt, text)

    def _look_for_needles(self, stage: Stage, step: int, records: Records) -> None:
        table, state = self.recipe.needle, self._state
        assert state is not None
        if not table.lengths:
            return
        batches = self._batches(stage.sequence_length, 1)
        for window in (None, table.window) if table.window else (None,):
            model = with_config(state.model, replace(stage.config, sliding_window=window)) if window else state.model
            found = needle_recall(model, batches, table, seed=self.recipe.seed, report=self._report)
            records.needles(step, window, found)

    def _save(self, stage: Stage, step: int, records: Records) -> None:
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
            "data": self._data_fingerprint,
            "threads": torch.get_num_threads(),
            **state.facts(),
        }
        self._saved = self._checkpoints.save(
            step, state.model, state.tensors(), facts, tokenizer=self.tokenizer, names=tuple(names), report=self._report
        )
        records.note(f"step {step}: saved {self._saved}")

    def _leave_out(self, stage: Stage, batch: int, step: int, fault: NotFinite, records: Records) -> None:
        """Note that a batch is to be passed over. It must be on disk before the run goes back."""
        left_out = self.run_folder.left_out()
        message = f"step {step + 1}, batch {batch}: {fault}"
        if len(left_out) >= self.recipe.training.max_rollbacks:
            raise DeepseekError(
                f"{message}. The run diverges: {len(left_out)} batches were left out already (training.max_rollbacks). "
                f"The newest checkpoint is {self._saved}; lower the learning rate, or train in another precision"
            ) from None
        entry = {"stage": stage.name, "batch": batch, "step": step + 1, "explanation": str(fault)}
        self.run_folder.write_left_out([*left_out, entry])
        records.note(f"{message}; back to {self._saved.name if self._saved else 'the start'}, this batch is left out")

    def _batches(self, sequence_length: int, batch_size: int) -> Batches:
        return Batches(
            self._data, self._mixture, sequence_length=sequence_length, batch_size=batch_size, seed=self.recipe.seed
        )


class _BatchOrder:
    """Which batch of the data each step takes: one after the other, those that are left out passed over."""

    def __init__(self, offset: int, left_out: Sequence[int]) -> None:
        self._offset, self._left_out = offset, sorted(set(left_out))

    def at(self, step: int) -> int:
        batch = step + self._offset
        for other in self._left_out:
            batch += other <= batch
        return batch


def planned(recipe: Recipe) -> Plan:
    """What a Trainer would do, without its data."""
    return make_plan(recipe, expected_vocab_size(recipe.data), start=_start_config(recipe))


def with_device_precision(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe as a Trainer in this folder would follow it here."""
    return _with_precision(recipe, RunFolder(folder), choose_device(recipe.training.device))


def _with_precision(recipe: Recipe, run: RunFolder, device: torch.device) -> Recipe:
    """`auto` decided: as the run in the folder began, else by the device."""
    if recipe.training.precision != "auto":
        return recipe
    chosen: Precision = "float32" if fast_dtype(device) == torch.float32 else "bfloat16"
    if run.exists:
        chosen = run.read_run()["recipe"]["training"]["precision"]
    return replace(recipe, training=replace(recipe.training, precision=chosen))


def _start_config(recipe: Recipe) -> Any:
    if recipe.model.start_from is None:
        return None
    from deepseek import hub
    from deepseek.checkpoint.checkpoint import open_checkpoint

    path = hub.resolve(recipe.model.start_from).path
    with open_checkpoint(path, allow_unknown=recipe.model.allow_unknown_keys) as checkpoint:
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
