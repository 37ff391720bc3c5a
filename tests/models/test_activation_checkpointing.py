"""Layers that run again in the backward pass give the same gradients, random numbers included."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from deepseek.errors import ConfigError
from deepseek.models.decoder import DecoderLayer, Model
from deepseek.models.mtp import predict_layer
from model_cases import CASES
from model_reference import randomise

CONFIG = replace(CASES["v3"], num_nextn_predict_layers=1)
IDS = torch.randint(0, 67, (2, 9), generator=torch.Generator().manual_seed(0))


def dropping_out(layer: nn.Module, args: Any, output: Tensor) -> Tensor:
    return nn.functional.dropout(output, 0.3)


def gradients(layers: bool | list[int], *, offload: bool = False) -> tuple[list[Tensor], list[int]]:
    """Of every weight; and how often each layer ran."""
    model = Model(CONFIG)
    randomise(model, 0)
    model.gradient_checkpointing = layers
    model.offload_checkpoints = offload
    runs = [0] * len(model.model.layers)

    def counting(place: int) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            runs[place] += 1

        return hook

    for place, layer in enumerate(model.model.layers):
        assert isinstance(layer, DecoderLayer)
        layer.register_forward_hook(counting(place))
        layer.register_forward_hook(dropping_out)
    torch.manual_seed(7)
    hidden = model(IDS).last_hidden_btm[:, :-1]
    model.head(predict_layer(model, 3, hidden, IDS[:, 1:])).square().mean().backward()
    return [weight.grad for weight in model.parameters() if weight.grad is not None], runs


@pytest.mark.parametrize("offload", [False, True])
@pytest.mark.parametrize(
    ("layers", "runs"), [(True, [2, 2, 2, 2]), ([1, 3], [1, 2, 1, 2]), ([], [1, 1, 1, 1]), (False, [1, 1, 1, 1])]
)
def test_gradients_are_the_same(layers: bool | list[int], runs: list[int], offload: bool) -> None:
    expected, _ = gradients(False)
    found, ran = gradients(layers, offload=offload)
    assert ran == runs
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_inputs_pass_through_the_hosts_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = []
    plain = Tensor.cpu

    def watched(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        packed.append(tuple(tensor.shape))
        return plain(tensor, *args, **kwargs)

    monkeypatch.setattr(Tensor, "cpu", watched)
    gradients([1], offload=True)
    assert (2, 9, 32) in packed


def test_without_gradients_nothing_is_kept() -> None:
    model = Model(CONFIG)
    model.gradient_checkpointing = True
    with torch.no_grad():
        assert not model(IDS).logits.requires_grad


def test_layers_must_exist() -> None:
    with pytest.raises(ConfigError, match=r"layer 4.*layers 0 to 3"):
        Model(CONFIG).gradient_checkpointing = [2, 4]
