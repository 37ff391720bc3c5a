"""The distillation's gradient is the true one, it learns, and when it was stopped it goes on as if it had not been."""

from pathlib import Path

import pytest
import torch
from carve_models import DENSE, SPLIT, dense_model, windows
from torch import Tensor

from deepseek.errors import CheckpointError, ConfigError
from deepseek.models.decoder import Model
from deepseek.training.carve import carve
from deepseek.training.carve import distillation as distillation_module
from deepseek.training.carve.distillation import (
    DistilConfig,
    Distillation,
    divergence_and_gradient,
    held_out_divergence,
)
from deepseek.training.carve.step_clock import StepClock


@pytest.fixture(autouse=True)
def one_second_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = StepClock.add
    monkeypatch.setattr(StepClock, "add", lambda clock, duration: plain(clock, 1.0))


def models() -> tuple[Model, Model, Tensor]:
    config = DENSE["llama"]
    ids = windows(config, 24)
    student = carve(dense_model(config), ids, SPLIT).model
    return student, dense_model(config), ids


def distillation(folder: Path | None, steps: int, *, save_every: int = 1000, optimizer: str = "muon") -> Distillation:
    student, teacher, ids = models()
    config = DistilConfig(
        minutes=steps / 60, batch=3, learning_rate=5e-3, save_minutes=save_every / 60, optimizer=optimizer
    )
    return Distillation(student, teacher, ids, config, folder)


@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 0.9999), (torch.bfloat16, 0.9)])
def test_the_gradient_is_that_of_the_divergence(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, near: float
) -> None:
    monkeypatch.setattr(distillation_module, "fast_dtype", lambda device: dtype)
    student, teacher, ids = models()
    log_s, log_t = (model(ids[:3]).logits.log_softmax(-1) for model in (student, teacher))
    expected = (log_t.exp() * (log_t - log_s)).sum(-1).mean()
    norm = student.main_layers[0].post_attention_layernorm.weight
    router = student.main_layers[1].mlp.router.weight
    wanted = torch.autograd.grad(expected, [norm, router])
    divergence = divergence_and_gradient(student, teacher, ids[:3])
    assert divergence == pytest.approx(expected.item(), rel=0.05)
    for parameter, gradient in zip((norm, router), wanted, strict=True):
        assert torch.cosine_similarity(parameter.grad.flatten(), gradient.flatten(), dim=0) > near


def test_the_routers_gradient_stops_there_and_asks_for_no_more_experts_than_are_active() -> None:
    student, _, _ = models()
    mlp = student.main_layers[0].mlp
    x = torch.randn(5, mlp.router.in_features, requires_grad=True)
    open_ = mlp.open_experts(x)
    (open_ * torch.randn_like(open_)).sum().backward()
    assert x.grad is None
    assert mlp.router.bias.grad.abs().max() > 1e-3
    assert mlp.router.bias.grad.sum().item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_carved_model_learns_what_the_dense_one_predicts(optimizer: str) -> None:
    run = distillation(None, steps=30, optimizer=optimizer)
    run.held_out_wt = run.windows_wt = run.windows_wt[:3]  # a random model's predictions can only be learnt by heart
    before = held_out_divergence(run.student, run.teacher, run.held_out_wt)
    after = run.run()
    assert after["step"] == 30
    assert after["held_out_divergence"] < 0.5 * before


def test_a_stopped_distillation_goes_on_as_if_it_had_not_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = distillation(None, steps=8)
    whole.run()
    broken = distillation(tmp_path, steps=8, save_every=3)
    plain = broken._train_step

    def stops_at_five() -> float:
        if broken.step == 5:
            raise KeyboardInterrupt
        return plain()

    monkeypatch.setattr(broken, "_train_step", stops_at_five)
    with pytest.raises(KeyboardInterrupt):
        broken.run()
    resumed = distillation(tmp_path, steps=8, save_every=3)
    resumed.run()
    assert resumed.step == whole.step
    for name, tensor in whole.student.state_dict().items():
        assert torch.equal(tensor, resumed.student.state_dict()[name]), name


def test_windows_that_were_carved_on_come_last() -> None:
    student, teacher, ids = models()
    run = Distillation(student, teacher, ids, DistilConfig(minutes=1, batch=3), calibrated=18)
    assert torch.equal(run._batch(), ids[18:21])
    run.step = 1
    assert torch.equal(run._batch(), torch.cat((ids[21:22], ids[:2])))  # two of 24 are held out


def test_a_state_of_other_settings_is_refused(tmp_path: Path) -> None:
    distillation(tmp_path, steps=1).run()
    with pytest.raises(ConfigError, match="other settings"):
        distillation(tmp_path, steps=2).run()


def test_a_damaged_state_says_what_to_remove(tmp_path: Path) -> None:
    distillation(tmp_path, steps=1).run()
    path = tmp_path / distillation_module.STATE
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=f"remove {tmp_path} to begin"):
        distillation(tmp_path, steps=1).run()


def test_a_step_in_which_the_machine_stood_still_counts_as_a_usual_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    clock = StepClock(10.0)
    for duration in (1.0, 1.0, 1.2, 500.0, 1.1):
        clock.add(duration)
    assert clock.seconds == pytest.approx(15.3)
