"""Activation checkpointing (arXiv 1604.06174): keep the input of a layer, run the layer again in the backward pass."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor
from torch.autograd.graph import save_on_cpu
from torch.utils.checkpoint import checkpoint

from deepseek.errors import ConfigError

_recomputing: ContextVar[bool] = ContextVar("recomputing", default=False)


def recomputing() -> bool:
    """Whether the forward pass now running repeats an earlier one: what counts tokens must not count these."""
    return _recomputing.get()


@dataclass(frozen=True, slots=True)
class Checkpointing:
    """layers: True for all, False for none, or their indices. offload: kept inputs wait in the host's memory."""

    layers: bool | frozenset[int] = False
    offload: bool = False

    def of(self, layers: bool | Iterable[int], total: int) -> Self:
        """The same with other layers. Raises ConfigError for an index that is not below `total`."""
        if isinstance(layers, bool):
            return replace(self, layers=layers)
        chosen = frozenset(layers)
        if wrong := sorted(layer for layer in chosen if not 0 <= layer < total):
            raise ConfigError(
                f"gradient_checkpointing names layer {wrong[0]}, but this model has layers 0 to {total - 1}: "
                "give True, False or indices of layers"
            )
        return replace(self, layers=chosen)

    def run(self, layer: int, run: Callable[..., Tensor], *inputs: object) -> Tensor:
        """run(*inputs). Random numbers of the second run are those of the first."""
        if not self._covers(layer) or not torch.is_grad_enabled():
            return run(*inputs)
        kept: AbstractContextManager[object] = save_on_cpu() if self.offload else nullcontext()
        with kept:
            output: Tensor = checkpoint(run, *inputs, use_reentrant=False, context_fn=_contexts)
        return output

    def _covers(self, layer: int) -> bool:
        return self.layers if isinstance(self.layers, bool) else layer in self.layers


def _contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """For the first and for the second run of a layer."""
    return nullcontext(), _second_run()


@contextmanager
def _second_run() -> Iterator[None]:
    token = _recomputing.set(True)
    try:
        yield
    finally:
        _recomputing.reset(token)
