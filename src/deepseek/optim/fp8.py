"""FP8 training with block scales as in V3 (arXiv 2412.19437, section 3.3), emulated: no product runs in FP8 here.

Values are rounded to what FP8 could hold (e4m3, one scale for each 128 x 128 block of weights and each 1 x 128 tile of
activations and gradients) and multiplied in the model's type. That shows what FP8 does to a loss; it saves neither time
nor memory. Scales are powers of two, as in V3.1, so bfloat16 holds every rounded value exactly.

What stays as it is, as in V3: embedding, head, router, norms, attention's own products, float32 masters. Unlike V3:
inside a stack of experts only the input and the output's gradient are rounded, not what lies between its two products.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from deepseek.optim.groups import weight_kinds
from deepseek.optim.master_weights import MasterWeightOptimizer

BLOCK = 128
LARGEST = 448.0  # of e4m3


def rounded_blocks(weight: Tensor, block: int = BLOCK) -> Tensor:
    """(..., r, c) as FP8 with a scale for each block of rows and columns would hold it; edge blocks are smaller."""
    rows, columns = weight.shape[-2:]
    padded = nn.functional.pad(weight.float(), (0, -columns % block, 0, -rows % block))
    tiles = padded.unflatten(-1, (-1, block)).unflatten(-3, (-1, block))  # type: ignore[no-untyped-call]
    tiles = _rounded(tiles, tiles.abs().amax(dim=(-3, -1), keepdim=True))
    return tiles.flatten(-4, -3).flatten(-2)[..., :rows, :columns].to(weight.dtype)


def rounded_tiles(x: Tensor, tile: int = BLOCK) -> Tensor:
    """(..., c) as FP8 with a scale for each `tile` entries of the last dimension would hold it."""
    columns = x.shape[-1]
    padded = nn.functional.pad(x.float(), (0, -columns % tile))
    tiles = padded.unflatten(-1, (-1, tile))  # type: ignore[no-untyped-call]
    tiles = _rounded(tiles, tiles.abs().amax(dim=-1, keepdim=True))
    return tiles.flatten(-2)[..., :columns].to(x.dtype)


def _rounded(values: Tensor, largest: Tensor) -> Tensor:
    """To e4m3 under the smallest power-of-two scale that brings the largest into range."""
    scale = torch.exp2(torch.ceil(torch.log2(largest.clamp(min=2.0**-100) / LARGEST)))
    return (values / scale).to(torch.float8_e4m3fn).float() * scale


class Fp8Training:
    """Makes a model train as if in FP8. `round_weights` once before the first step and after each one."""

    def __init__(self, model: nn.Module) -> None:
        kinds = weight_kinds(model.named_parameters())
        self._weights = [*kinds.matrices, *kinds.pairs]
        held = {id(weight) for weight in self._weights}
        self._handles: list[Any] = []
        for module in model.modules():
            if any(id(parameter) in held for parameter in module.parameters(recurse=False)):
                self._handles.append(module.register_forward_pre_hook(_round_input))
                self._handles.append(module.register_forward_hook(_round_gradient))

    @torch.no_grad()
    def round_weights(self, optimizers: Iterable[MasterWeightOptimizer]) -> None:
        """The weights from their float32 masters, on the grid of FP8."""
        for optimizer in optimizers:
            held = {id(parameter) for _, parameter in optimizer.parameters()}
            for weight in self._weights:
                if id(weight) in held:
                    weight.copy_(rounded_blocks(optimizer.master(weight)))

    def close(self) -> None:
        """Leave the model as it was, but for its rounded weights."""
        for handle in self._handles:
            handle.remove()


def _round_input(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    rounded: Tensor = _RoundForward.apply(args[0])  # type: ignore[no-untyped-call]
    return rounded, *args[1:]


def _round_gradient(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
    same: Tensor = _RoundBackward.apply(output)  # type: ignore[no-untyped-call]
    return same


class _RoundForward(torch.autograd.Function):
    """Rounded on the way forward, the gradient as it is (straight through)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return rounded_tiles(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class _RoundBackward(torch.autograd.Function):
    """As it is on the way forward, the gradient rounded."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return rounded_tiles(gradient)
