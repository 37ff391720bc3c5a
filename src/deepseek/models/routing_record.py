"""Watching the routers: which experts each token of a forward pass took, and with what weight."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from deepseek.models.moe import Router
from deepseek.models.routing import Routing


class RoutingRecord:
    """calls[name]: one Routing for each forward pass, by the router's module name ("model.layers.3.mlp.gate").

    Tensors are detached; tokens are numbered over batch and sequence together, padding included.
    """

    def __init__(self) -> None:
        self.calls: dict[str, list[Routing]] = {}

    def expert_counts(self, name: str) -> Tensor:
        """How many tokens each expert of that layer was given, (e,)."""
        calls = self.calls[name]
        experts = calls[0].scores_ne.shape[1]
        total = calls[0].indices_nk.new_zeros(experts)
        for routing in calls:
            total += routing.indices_nk.flatten().bincount(minlength=experts)
        return total


@contextmanager
def record_routing(model: nn.Module) -> Iterator[RoutingRecord]:
    """Record every router of `model` while the block runs: `with record_routing(model) as record: model(ids)`."""
    record = RoutingRecord()
    handles = [
        module.register_forward_hook(_recorder(record, name))
        for name, module in model.named_modules()
        if isinstance(module, Router)
    ]
    try:
        yield record
    finally:
        for handle in handles:
            handle.remove()


def _recorder(record: RoutingRecord, name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Routing], None]:
    def hook(module: nn.Module, args: tuple[Tensor, ...], routing: Routing) -> None:
        record.calls.setdefault(name, []).append(_detached(routing))

    return hook


def _detached(routing: Routing) -> Routing:
    tensors = {name: part.detach() for name, part in routing._asdict().items() if part is not None}
    return Routing(**tensors)
