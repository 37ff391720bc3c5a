"""What the optimisers share: float32 master weights, flat pieces that fit the processor's cache, and their state."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

PIECE = 1 << 19  # elements updated at once: what one update reads and writes of them stays in a 32 MB cache

MASTER = "master"


class MasterWeightOptimizer(torch.optim.Optimizer, ABC):
    """An optimiser that computes in float32 whatever the parameters' type.

    A parameter of fewer bits has a float32 master in `state[parameter]["master"]`: updates go there, and the parameter
    is rounded from it. Gradients may be of the parameter's type or float32 (set `Tensor.grad_dtype`).
    State exists from construction on, so that what is saved has the same tensors at every step.
    """

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        super().__init__(params, defaults)
        for _, parameter in self.parameters():
            state = self.state[parameter]
            if parameter.dtype != torch.float32:
                state[MASTER] = parameter.detach().float()
            state.update(self.first_state(parameter))

    @abstractmethod
    def first_state(self, parameter: Tensor) -> dict[str, Tensor]:
        """The tensors kept for a parameter besides its master, before the first step."""

    @abstractmethod
    def update(self, group: dict[str, Any], gradient_scale: float) -> None:
        """One step for the parameters of `group` that have a gradient."""

    def parameters(self) -> Iterator[tuple[dict[str, Any], Parameter]]:
        """Every parameter with its group."""
        for group in self.param_groups:
            for parameter in group["params"]:
                yield group, parameter

    def master(self, parameter: Tensor) -> Tensor:
        """The float32 weights: the parameter itself if it is float32."""
        master: Tensor = self.state[parameter].get(MASTER, parameter)
        return master

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None, *, gradient_scale: float = 1.0) -> float | None:  # type: ignore[override]
        """gradient_scale multiplies every gradient first (clipping, loss scaling); gradients stay as they are."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self.update(group, gradient_scale)
        return loss

    def state_tensors(self, names: Mapping[Tensor, str]) -> dict[str, Tensor]:
        """All state by `PARAMETER.KIND`, sharing memory with the optimiser, to be saved or filled in place."""
        return {
            f"{names[parameter]}.{kind}": tensor
            for _, parameter in self.parameters()
            for kind, tensor in self.state[parameter].items()
        }

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As `torch.optim.Optimizer`, but float32 state of a parameter of fewer bits stays float32."""
        saved = [state_dict["state"][at] for group in state_dict["param_groups"] for at in group["params"]]
        super().load_state_dict(state_dict)
        for (_, parameter), state in zip(self.parameters(), saved, strict=True):
            for kind, tensor in state.items():
                self.state[parameter][kind] = tensor.to(parameter.device, copy=True)


def with_gradients(group: dict[str, Any]) -> list[Parameter]:
    return [parameter for parameter in group["params"] if parameter.grad is not None]


def flat_pieces(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Tensors of one shape cut alike into flat pieces of at most PIECE elements. All but the last must be contiguous.

    The last may lie anyhow (a gradient); it is copied if it must be.
    """
    flat = [tensor.view(-1) for tensor in tensors[:-1]] + [tensors[-1].reshape(-1)]
    for start in range(0, flat[0].numel(), PIECE):
        yield tuple(tensor[start : start + PIECE] for tensor in flat)
