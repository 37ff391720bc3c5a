"""Whole runs, tiny: they learn, they stop and go on with the same numbers, they come back from what is not a number."""

import fcntl
import json
import math
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from safetensors.torch import load_file

from deepseek.checkpoint.convert import convert
from deepseek.errors import CheckpointError, ConfigError, DeepseekError
from deepseek.models.decoder import Model
from deepseek.models.moe import MoE
from deepseek.training import trainer as trainer_module
from deepseek.training.stop import StopRequest
from deepseek.training.trainer import Trainer
from tiny_runs import Listener, lines, numbers, prepare_pages, tiny_recipe, train, weights


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare_pages(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupts."""
    run = tmp_path_factory.mktemp("whole")
    train(tiny_recipe(data), run)
    return run


def test_a_run_learns_and_says_so(whole: Path) -> None:
    log = lines(whole)
    assert [line["step"] for line in log] == list(range(1, 13))
    assert [line["tokens"] for line in log] == [128 * step for step in range(1, 13)]
    assert log[-1]["loss"] < log[0]["loss"] - 0.5
    assert all(line["loss"] == pytest.approx(line["main_loss"] + 0.3 * line["mtp_loss"]) for line in log)
    assert all(line["peak_share"] > 0 and line["tokens_per_second"] > 0 for line in log)
    loads = [line["layers"] for line in log if "layers" in line]
    assert len(loads) == 3
    assert {load["layer"] for load in loads[0]} == {1, 2}
    assert sum(loads[0][0]["load_e"]) == pytest.approx(1)
    assert [line["step"] for line in lines(whole, "evaluations.jsonl")] == [6, 12]
    assert lines(whole, "evaluations.jsonl")[1]["loss"]["pages"] < math.log(300)
    assert [(line["step"], line["prompt"]) for line in lines(whole, "samples.jsonl")] == [(6, "The"), (12, "The")]
    facts = json.loads((whole / "run.json").read_text())
    assert facts["active_parameters"] < facts["parameters"]
    assert facts["config"]["moe"]["n_routed_experts"] == 8
    assert facts["machine"]["matrix_peak"] > 0


def test_checkpoints_that_stay(whole: Path) -> None:
    names = {path.name for path in (whole / "checkpoints").iterdir()}
    assert names == {"step-00000008", "step-00000012", "main", "final"}


def test_a_run_stopped_and_resumed_is_the_same_run(data: Path, whole: Path, tmp_path: Path) -> None:
    for step in (3, 9, 99):
        stop = StopRequest()
        listener = Listener(lambda record: record["step"] == step and stop.ask(signal.SIGTERM))  # noqa: B023
        outcome = train(tiny_recipe(data), tmp_path, listener, resume=True, stop=stop)
        assert outcome.step == min(step, 12)
        assert outcome.signal == (signal.SIGTERM if step < 12 else None)
    for log in ("log.jsonl", "evaluations.jsonl", "samples.jsonl"):
        assert numbers(tmp_path, log) == numbers(whole, log)
    assert weights(tmp_path) == weights(whole)


def test_a_signal_ends_the_run_after_its_step(data: Path, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)  # ignored where the tests run in the background
    outcome = train(tiny_recipe(data), tmp_path, Listener(lambda record: signal.raise_signal(signal.SIGINT)))
    assert outcome.step == 1
    assert outcome.signal == signal.SIGINT
    assert (tmp_path / "checkpoints" / "step-00000001" / "state.json").exists()
    assert signal.getsignal(signal.SIGINT) is before


def test_a_run_is_not_begun_over_another(data: Path, whole: Path) -> None:
    with pytest.raises(ConfigError, match="continue it with --resume"):
        train(tiny_recipe(data), whole)


def test_a_run_is_not_resumed_with_another_recipe(data: Path, whole: Path) -> None:
    with pytest.raises(ConfigError, match=r"begun with another recipe \(optimizer\.weight_decay: 0\.1 -> 0\.2\)"):
        train(tiny_recipe(data, optimizer={"weight_decay": 0.2}), whole, resume=True)
    outcome = train(tiny_recipe(data, evaluation={"every": 5}), whole, resume=True)
    assert outcome.step == 12


def test_a_run_is_not_resumed_with_other_data(data: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer_module.Batches, "fingerprint", "other")
    with pytest.raises(CheckpointError, match="was trained on other data"):
        train(tiny_recipe(data), whole, resume=True)


def test_one_process_at_a_time(data: Path, tmp_path: Path) -> None:
    def second(record: dict[str, Any]) -> None:
        with pytest.raises(DeepseekError, match="another process trains in this folder"):
            train(tiny_recipe(data), tmp_path, resume=True)
        stop.ask()

    stop = StopRequest()
    train(tiny_recipe(data), tmp_path, Listener(second), stop=stop)


def test_who_asks_whether_a_run_goes_on_keeps_no_trainer_out(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the studio does, which holds the lock for a moment."""
    asking = (tmp_path / ".lock").open("w")
    fcntl.flock(asking, fcntl.LOCK_SH)
    end = threading.Timer(0.1, asking.close)

    def lock(path: Path) -> FileLock:
        end.start()
        return FileLock(path)

    monkeypatch.setattr(trainer_module, "FileLock", lock)
    assert train(tiny_recipe(data, stage={"steps": 1}), tmp_path).step == 1
    end.join()


@pytest.mark.parametrize("micro", [1, 2])
def test_accumulated_parts_are_the_whole_batch(data: Path, tmp_path: Path, micro: int) -> None:
    exact: dict[str, Any] = {"training": {"precision": "float32"}, "stage": {"steps": 3}}
    train(tiny_recipe(data, **exact), tmp_path / "whole")
    exact["stage"] = {"steps": 3, "micro_batch_size": micro}
    train(tiny_recipe(data, **exact), tmp_path / "parts")
    for ours, theirs in zip(lines(tmp_path / "parts"), lines(tmp_path / "whole"), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
        assert ours["gradient_norm"] == pytest.approx(theirs["gradient_norm"], rel=1e-3)


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": {"name": "muon"}},
        {"training": {"precision": "float32"}},
        {"training": {"precision": "float16"}},
        {"training": {"precision": "fp8"}},
        {"training": {"gradient_checkpointing": True}},
        {"model": {"kind": "dense"}},
        {"capacity": {"mode": "dynamic", "factor": 1.0}, "stage": {"micro_batch_size": 2}},
        {"stage": {"needles": 0.5, "sequence_length": 64}},
    ],
    ids=str,
)
def test_every_kind_of_run_learns_and_resumes(data: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    changes = {**changes, "stage": {"steps": 8, **changes.get("stage", {})}, "evaluation": {"prompts": []}}
    recipe = tiny_recipe(data, **changes)
    train(recipe, tmp_path / "whole")
    log = lines(tmp_path / "whole")
    assert log[-1]["loss"] < log[0]["loss"] - 0.1
    stop = StopRequest()
    train(recipe, tmp_path / "parts", Listener(lambda record: record["step"] == 5 and stop.ask()), stop=stop)
    train(recipe, tmp_path / "parts", resume=True)
    assert numbers(tmp_path / "parts") == numbers(tmp_path / "whole")
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole")


def test_checkpointing_activations_changes_no_number(data: Path, whole: Path, tmp_path: Path) -> None:
    train(tiny_recipe(data, training={"gradient_checkpointing_layers": [0, 2], "offload_checkpoints": True}), tmp_path)
    assert numbers(tmp_path) == numbers(whole)


def test_stages_with_longer_sequences(data: Path, tmp_path: Path) -> None:
    long = {"name": "long", "steps": 3, "sequence_length": 64, "batch_size": 2, "rope": {"yarn_factor": 2.0}}
    needle = {"lengths": [64], "depths": [0.0, 0.5], "trials": 1, "window": 16}
    recipe = tiny_recipe(data, stages=[long], needle=needle, evaluation={"every": 5})
    stop = StopRequest()
    train(recipe, tmp_path / "parts", Listener(lambda record: record["step"] == 13 and stop.ask()), stop=stop)
    train(recipe, tmp_path / "parts", resume=True)
    train(recipe, tmp_path / "whole")
    assert numbers(tmp_path / "parts") == numbers(tmp_path / "whole")
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole")
    assert lines(tmp_path / "whole")[-1]["tokens"] == 12 * 128 + 3 * 128
    evaluated = [line["step"] for line in lines(tmp_path / "whole", "evaluations.jsonl")]
    assert evaluated == [5, 10, 12, 15]  # at the end of each stage too
    found = lines(tmp_path / "whole", "needle.jsonl")
    assert [(line["step"], line["window"]) for line in found] == [(s, w) for s in (0, 12, 15) for w in (None, 16)]
    assert numbers(tmp_path / "parts", "needle.jsonl") == found
    checkpoints = tmp_path / "whole" / "checkpoints"
    before, after = (json.loads((checkpoints / name / "config.json").read_text()) for name in ("main", "long"))
    assert before["max_position_embeddings"] == 32
    assert after["max_position_embeddings"] == 64
    assert "yarn" in json.dumps(after)
    assert "yarn" not in json.dumps(before)


def test_a_run_may_start_from_a_checkpoint(data: Path, whole: Path, tmp_path: Path) -> None:
    start = str(whole / "checkpoints" / "final")
    recipe = tiny_recipe(data, model={"size": None, "config": {}, "start_from": start}, stage={"learning_rate": 1e-4})
    train(recipe, tmp_path)
    assert lines(tmp_path)[0]["loss"] < lines(whole)[-1]["loss"] + 0.5


def test_biases_slow_down_with_the_learning_rate(whole: Path) -> None:
    """At 0.001 a step they would be whole thousandths."""
    tensors = load_file(whole / "checkpoints" / "final" / "model.safetensors")
    biases = [tensor for name, tensor in tensors.items() if name.endswith("e_score_correction_bias")]
    assert biases
    assert all((1000 * bias - (1000 * bias).round()).abs().max() > 0.01 for bias in biases)


def test_prediction_layers_that_a_start_lacks_begin_new(data: Path, whole: Path, tmp_path: Path) -> None:
    start = tmp_path / "start.gguf"
    convert(whole / "checkpoints" / "final", start, dtype="BF16")
    config = {"num_nextn_predict_layers": 1}
    recipe = tiny_recipe(
        data, model={"size": None, "config": config, "start_from": str(start)}, stage={"learning_rate": 1e-4}
    )
    train(recipe, tmp_path / "run")
    first, before = lines(tmp_path / "run")[0], lines(whole)[-1]
    assert first["main_loss"] < before["main_loss"] + 0.5
    assert first["mtp_loss"] > before["mtp_loss"] + 0.2
    assert lines(tmp_path / "run")[-1]["mtp_loss"] < first["mtp_loss"]


class Poison:
    """Lets the busiest expert of layer 1 overflow whenever a chosen batch comes by: its weights become huge."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, batches: set[int]) -> None:
        self.active, self.expert = False, -1
        at = trainer_module.Batches.at

        def noticed(this: Any, step: int) -> Any:
            self.active = step in batches
            return at(this, step)

        monkeypatch.setattr(trainer_module.Batches, "at", noticed)
        build = trainer_module.TrainingState.__init__

        def built(this: Any, *args: Any, **options: Any) -> None:
            build(this, *args, **options)
            self._infect(this.model)

        monkeypatch.setattr(trainer_module.TrainingState, "__init__", built)

    def _infect(self, model: Model) -> None:
        moe = model.model.layers[1].mlp
        assert isinstance(moe, MoE)

        def before(module: Any, args: Any) -> None:
            if self.active:
                self.expert = int(args[1].indices_nk.flatten().mode().values)
                module.down_proj.data[self.expert] = 3e38
                module.gate_up_proj.data[self.expert] *= 1e4
                self.active = False

        moe.experts.register_forward_pre_hook(before)


def test_a_loss_that_is_no_number_is_explained_rolled_back_and_left_out(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison = Poison(monkeypatch, {6})
    listener = Listener()
    outcome = train(tiny_recipe(data), tmp_path, listener)
    assert outcome.step == 12
    told = next(note for note in listener.notes if "not finite" in note)
    assert "step 7, batch 6" in told
    assert f"layer 1, expert {poison.expert}: the output of model.layers.1.mlp.experts is not finite" in told
    assert "back to step-00000004, this batch is left out" in told
    left_out = json.loads((tmp_path / "left_out.json").read_text())["batches"]
    assert [(entry["batch"], entry["stage"]) for entry in left_out] == [(6, "main")]
    assert [line["step"] for line in lines(tmp_path)] == list(range(1, 13))
    assert all(math.isfinite(line["loss"]) for line in lines(tmp_path))


def test_before_the_first_checkpoint_a_run_goes_back_to_its_start(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Poison(monkeypatch, {1})
    listener = Listener()
    assert train(tiny_recipe(data), tmp_path, listener).step == 12
    assert any("back to the start" in note for note in listener.notes)


def test_a_run_that_keeps_failing_ends(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Poison(monkeypatch, set(range(5, 100)))
    with pytest.raises(DeepseekError, match=r"3 batches were left out already .*step-00000004"):
        train(tiny_recipe(data), tmp_path)
    assert (tmp_path / "checkpoints" / "step-00000004").exists()


def test_float16_that_overflows_lowers_the_scale_and_goes_on(data: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(data, training={"precision": "float16"}, model={"initializer_std": 0.6})
    train(recipe, tmp_path / "whole")
    log = lines(tmp_path / "whole")
    left_out = [line["step"] for line in log if line["gradient_norm"] is None]
    assert left_out[:1] == [1]
    assert log[-1]["gradient_norm"] is not None
    assert json.loads((tmp_path / "whole/checkpoints/final/state.json").read_text())["loss_scale"]["factor"] < 2**16
    stop = StopRequest()
    middle = left_out[-1]  # the scale is not what it was at the start
    train(recipe, tmp_path / "parts", Listener(lambda record: record["step"] == middle and stop.ask()), stop=stop)
    train(recipe, tmp_path / "parts", resume=True)
    assert numbers(tmp_path / "parts") == numbers(tmp_path / "whole")


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit")
def test_a_full_disk_ends_the_run_with_the_last_checkpoint_whole(data: Path, whole: Path, tmp_path: Path) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(record: dict[str, Any]) -> None:
        if record["step"] == 6:
            resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))

    try:
        with pytest.raises(CheckpointError, match=r"no space left while writing .*step-00000008"):
            train(tiny_recipe(data), tmp_path, Listener(fill))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000004"]
    train(tiny_recipe(data), tmp_path, resume=True)
    assert numbers(tmp_path) == numbers(whole)
    assert weights(tmp_path) == weights(whole)


def test_tensorboard_files(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    stop = StopRequest()
    recipe = tiny_recipe(data, training={"tensorboard": True})
    train(recipe, tmp_path, Listener(lambda record: record["step"] == 7 and stop.ask()), stop=stop)
    train(recipe, tmp_path, resume=True)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    losses = events.Scalars("training/loss")
    assert [event.step for event in losses] == list(range(1, 13))
    assert [event.value for event in losses] == pytest.approx([line["loss"] for line in lines(tmp_path)])
    assert [event.step for event in events.Scalars("held out/pages")] == [6, 12]


def test_without_tensorboard_the_message_says_what_to_install(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"pip install 'deepseek-framework\[tensorboard\]'"):
        train(tiny_recipe(data, training={"tensorboard": True}), tmp_path)


def test_a_run_keeps_the_precision_that_it_began_with(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe(data, training={"precision": "auto"}, stage={"steps": 2})

    def on(has_bfloat16: bool) -> str:
        monkeypatch.setattr("deepseek.models.device._cpu_has_bfloat16", lambda: has_bfloat16)
        return Trainer(recipe, tmp_path / "run", data).recipe.training.precision

    assert on(has_bfloat16=False) == "float32"
    assert on(has_bfloat16=True) == "bfloat16"
    on(has_bfloat16=False)
    train(recipe, tmp_path / "run")
    assert on(has_bfloat16=True) == on(has_bfloat16=False)


def test_a_precision_that_the_processor_imitates_is_warned_of(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deepseek.models.device._cpu_has_bfloat16", lambda: False)
    for precision, warned in (("bfloat16", True), ("float32", False)):
        listener = Listener()
        recipe = tiny_recipe(data, training={"precision": precision}, stage={"steps": 1})
        train(recipe, tmp_path / precision, listener)
        assert any(f"imitates {precision}" in note for note in listener.notes) == warned
