"""Which optimiser a weight belongs to, by its name and shape."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from torch.nn import Parameter

_TABLES = re.compile(r"(^|\.)(embed_tokens|lm_head|mlp\.gate|indexer\.\w+)\.weight$")
_PAIRS = re.compile(r"(^|\.)gate_up_proj(\.weight)?$")  # two matrices, one above the other


@dataclass(frozen=True, slots=True)
class WeightKinds:
    """matrices: hidden matrices and stacks of them; pairs: the same, with two matrices one above the other.

    tables: embedding, head, router: matrices whose rows stand for things. vectors: norms and biases.
    """

    matrices: tuple[Parameter, ...]
    pairs: tuple[Parameter, ...]
    tables: tuple[Parameter, ...]
    vectors: tuple[Parameter, ...]


def weight_kinds(named: Iterable[tuple[str, Parameter]]) -> WeightKinds:
    """Only weights that are trained (requires_grad)."""
    found: dict[str, list[Parameter]] = {"matrices": [], "pairs": [], "tables": [], "vectors": []}
    for name, parameter in named:
        if parameter.requires_grad:
            found[_kind(name, parameter)].append(parameter)
    return WeightKinds(**{kind: tuple(parameters) for kind, parameters in found.items()})


def _kind(name: str, parameter: Parameter) -> str:
    if parameter.dim() < 2:
        return "vectors"
    if _TABLES.search(name):
        return "tables"
    return "pairs" if _PAIRS.search(name) else "matrices"
