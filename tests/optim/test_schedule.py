import itertools

import pytest
import torch
from torch.nn import Parameter

from deepseek.errors import ConfigError
from deepseek.optim.clipping import clip_factor, gradient_norm
from deepseek.optim.schedule import Schedule, ScheduleName


def test_warm_up_stable_decay() -> None:
    schedule = Schedule(name="wsd", steps=100, warmup_steps=10, decay_fraction=0.2, final_fraction=0.1)
    factors = [schedule.factor(step) for step in range(100)]
    assert factors[:10] == [pytest.approx((step + 1) / 10) for step in range(10)]
    assert set(factors[10:81]) == {1.0}
    assert all(a > b for a, b in itertools.pairwise(factors[80:]))
    assert factors[85] == pytest.approx(0.1 + 0.9 * (1 - 0.25**0.5))
    assert 0.1 < factors[-1] < 0.13


@pytest.mark.parametrize("name", ["wsd", "cosine", "constant"])
def test_the_fall_is_the_factor_without_the_warm_up(name: ScheduleName) -> None:
    schedule = Schedule(name=name, steps=50, warmup_steps=5)
    assert {schedule.fall(step) for step in range(5)} == {1.0}
    assert [schedule.fall(step) for step in range(5, 50)] == [schedule.factor(step) for step in range(5, 50)]


def test_cosine() -> None:
    schedule = Schedule(name="cosine", steps=110, warmup_steps=10, final_fraction=0.2)
    assert schedule.factor(9) == schedule.factor(10) == 1
    assert schedule.factor(60) == pytest.approx(0.6)
    assert schedule.factor(110) == pytest.approx(0.2)


def test_constant_stays() -> None:
    schedule = Schedule(name="constant", steps=10)
    assert {schedule.factor(step) for step in range(10)} == {1.0}


@pytest.mark.parametrize(
    "wrong", [{"name": "linear"}, {"steps": 0}, {"warmup_steps": 11}, {"decay_fraction": 1.5}, {"final_fraction": -1}]
)
def test_what_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong)).split("_")[0]):
        Schedule(**{"steps": 10, **wrong})


def test_the_norm_is_that_of_all_gradients_together() -> None:
    held = [Parameter(torch.zeros(2)), Parameter(torch.zeros(1).bfloat16()), Parameter(torch.zeros(3))]
    held[0].grad, held[1].grad = torch.tensor([2.0, 3.0]), torch.tensor([6.0]).bfloat16()
    assert gradient_norm(held) == pytest.approx(7)
    assert clip_factor(7.0, 1.0) == pytest.approx(1 / 7)
    assert clip_factor(0.5, 1.0) == clip_factor(7.0, None) == 1


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_the_norm_tells_of_what_is_not_finite(bad: float) -> None:
    held = [Parameter(torch.zeros(2)), Parameter(torch.zeros(2))]
    held[0].grad, held[1].grad = torch.ones(2), torch.tensor([1.0, bad])
    assert not gradient_norm(held) < float("inf")
