"""Where a loss or gradient stopped being a number: the first module, layer and expert, found by running it again."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FINITE = "run again, it is finite everywhere"
_LAYER = re.compile(r"\.layers\.(\d+)\.")


def explain(model: nn.Module, loss: Callable[[], Tensor]) -> str:
    """One sentence. loss: runs the batch again, from the same weights. Gradients are left as they come out.

    Weights are looked at first, then the outputs of modules in the order they come, then gradients in theirs.
    """
    if fault := _weights(model):
        return fault
    found: list[str] = []
    handles = [
        module.register_forward_hook(lambda module, args, output, name=name: _watch(name, module, args, output, found))
        for name, module in model.named_modules()
        if name
    ]
    handles += [
        parameter.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
            lambda tensor, name=name: _gradient(name, tensor, found)
        )
        for name, parameter in model.named_parameters()
    ]
    try:
        total = loss()
        if not found and not bool(total.isfinite()):
            found.append("the head: the loss is not finite although every hidden state is")
        if not found:
            torch.autograd.backward(total)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else FINITE


def _weights(model: nn.Module) -> str | None:
    for name, parameter in model.named_parameters():
        if not _finite(parameter.detach()):
            return f"{_place(name, _experts_of(parameter.detach()))}: the weight {name} is not finite"
    return None


def _watch(name: str, module: nn.Module, args: tuple[Any, ...], output: Any, found: list[str]) -> None:
    """A forward hook: the first module that turns finite inputs into something else. Children end before parents."""
    if found:
        return
    tensors = list(_tensors(output))
    if not all(_finite(tensor.detach()) for tensor in tensors):
        experts = _overflowing_experts(module, args)
        found.append(f"{_place(name, experts)}: the output of {name} is not finite")
        return
    for tensor in tensors:
        if tensor.requires_grad:
            tensor.register_hook(  # type: ignore[no-untyped-call]
                lambda gradient: _arriving(name, gradient, found)
            )


def _arriving(name: str, gradient: Tensor, found: list[str]) -> None:
    if not found and not _finite(gradient):
        found.append(f"{_place(name, [])}: the gradient that comes back to the output of {name} is not finite")


def _gradient(name: str, parameter: Tensor, found: list[str]) -> None:
    if not found and parameter.grad is not None and not _finite(parameter.grad):
        found.append(f"{_place(name, _experts_of(parameter.grad))}: the gradient of {name} is not finite")


@torch.no_grad()
def _overflowing_experts(module: nn.Module, args: tuple[Any, ...]) -> list[int]:
    """Of a stack of experts: those whose own output is not finite, each run alone on its tokens."""
    gate_up, down = getattr(module, "gate_up_proj", None), getattr(module, "down_proj", None)
    if not isinstance(gate_up, Tensor) or not isinstance(down, Tensor) or len(args) < 2:
        return []
    x_nm, indices_nk = args[0].flatten(0, -2), args[1].indices_nk
    wrong = []
    for expert in range(gate_up.shape[0]):
        x_am = x_nm[(indices_nk == expert).any(dim=1)]
        gate, up = F.linear(x_am, gate_up[expert]).chunk(2, dim=-1)
        if not _finite(F.linear(F.silu(gate) * up, down[expert])):
            wrong.append(expert)
    return wrong


def _experts_of(tensor: Tensor) -> list[int]:
    if tensor.dim() != 3:
        return []
    wrong_e = ~tensor.isfinite().flatten(1).all(dim=1)
    return [int(expert) for expert in wrong_e.nonzero().flatten()]


def _place(name: str, experts: list[int]) -> str:
    """`layer 3, expert 5`; `model` outside of layers."""
    match = _LAYER.search(f".{name}.")
    place = f"layer {match[1]}" if match else "outside of the layers"
    if not experts:
        return place
    return f"{place}, expert{'s' if len(experts) > 1 else ''} {', '.join(map(str, experts[:8]))}"


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _tensors(item)


def _finite(tensor: Tensor) -> bool:
    return bool(tensor.isfinite().all())
