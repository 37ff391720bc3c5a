import pytest
import torch

from deepseek.errors import ConfigError
from deepseek.training.device import peak_memory, training_device


def test_without_a_name_the_best_there_is() -> None:
    assert training_device(None).type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["cuda:99", "abacus", ""])
def test_a_device_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(ConfigError, match=r"training\.device"):
        training_device(name)


def test_memory_of_the_cpu_counts_what_was_touched() -> None:
    before = peak_memory(torch.device("cpu"))
    block = torch.ones(1 << 27, dtype=torch.uint8)
    assert block[-1] == 1
    assert before > 0
    assert peak_memory(torch.device("cpu")) >= before
