"""How long work tells of itself: one function type that library code calls and that a front end shows."""

from typing import Protocol


class Report(Protocol):
    """Called often and cheaply while work goes on.

    label: what is being done, shown as it is ("downloading model.safetensors").
    done, total: how far, in `unit`; total is None when unknown. done == total ends the label.
    unit: "bytes" or a plural noun ("tensors").
    """

    def __call__(self, label: str, done: int, total: int | None, unit: str = "bytes") -> None: ...


def silent(label: str, done: int, total: int | None, unit: str = "bytes") -> None:
    """The default: say nothing."""
