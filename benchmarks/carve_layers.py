"""How much of a layer's output carving loses on text it was not fitted to, before any distillation, layer by layer.

Run: python benchmarks/carve_layers.py [--model smollm2] [--layers 3,14] [--parts 16,48] [--refinements 0,2,6]
Prints one JSON line. For each layer, number of parts, number of refinements, and share of active neurons: the size of
the error over the size of the output (energies), on 4,096 tokens after 12,288 of calibration of `carve_text`, with
the output columns refitted and as they were. A third of the parts is shared. The layer sees the dense model's input.
"""

import argparse
import itertools
import json
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from carve_text import training_texts
from deepseek import AutoModel, AutoTokenizer, hub
from deepseek.models.decoder import DecoderLayer
from deepseek.models.mlp import Mlp
from deepseek.training.carve import grouping
from deepseek.training.carve.carving import CarveConfig
from deepseek.training.carve.compensation import ColumnFit
from deepseek.training.carve.layer import CarvedMlp
from deepseek.training.carve.routing import expert_sizes, fit_router
from deepseek.training.carve.text import token_windows

WINDOWS, LENGTH, CALIBRATION = 32, 512, 12_288
SHARES = (0.75, 0.5)


@torch.no_grad()
def inputs_of(model_name: str, layers: list[int]) -> dict[int, tuple[Mlp, Tensor]]:
    """Each layer's MLP and what enters it over the text, (tokens, hidden)."""
    path = hub.resolve(model_name).path
    model = AutoModel.from_pretrained(path, dtype="float32", device="cpu")
    windows_wt = token_windows(training_texts(), AutoTokenizer.from_pretrained(path), length=LENGTH, seed=0)[:WINDOWS]
    mlps = {number: cast(Mlp, cast(DecoderLayer, list(model.main_layers)[number]).mlp) for number in layers}
    seen: dict[int, list[Tensor]] = {number: [] for number in layers}
    for number, mlp in mlps.items():
        mlp.register_forward_pre_hook(lambda _, given, number=number: seen[number].append(given[0].flatten(0, 1)))
    for part in windows_wt.split(4):
        model(part, keep_logits=1)
    return {number: (mlp, torch.cat(seen[number])) for number, mlp in mlps.items()}


@torch.no_grad()
def errors(mlp: Mlp, x_nm: Tensor, parts: int, share: float, refinements: int) -> dict[str, float]:
    grouping._REFINEMENTS = refinements  # what is varied here is a constant there
    width = mlp.down_proj.weight.shape[1] // parts
    shared = round(parts / 3)
    split = CarveConfig(experts=parts - shared, shared=shared, active=round(share * parts) - shared)
    down_mi = mlp.down_proj.weight
    inner_ni = F.silu(mlp.gate_proj(x_nm)) * mlp.up_proj(x_nm)
    wanted_nm = inner_ni @ down_mi.T
    fit, unseen = slice(0, CALIBRATION), slice(CALIBRATION, None)
    groups = grouping.group_neurons(
        inner_ni[fit].abs() * down_mi.norm(dim=0), x_nm[fit],
        experts=split.experts, shared=shared * width, width=width, active=split.active, seed=0,
    )  # fmt: skip
    carved = CarvedMlp(mlp, groups, split.active)
    ordered_ni = carved.activations(x_nm)
    strength_ni = (ordered_ni[:, carved.shared :].abs() * carved.down_proj[:, carved.shared :].norm(dim=0))[fit]
    carved.set_router(*fit_router(x_nm[fit], expert_sizes(strength_ni, split.experts)), x_nm[fit])
    masked_ni = carved.masked(ordered_ni, carved.open_experts(x_nm))
    columns = ColumnFit(carved.down_proj.detach())
    for number, part in enumerate(torch.arange(CALIBRATION).split(CALIBRATION // 8)):
        columns.add(masked_ni[part], wanted_nm[part], judging=number == 7)
    refitted_mi = columns.columns()

    def error(columns_mi: Tensor) -> float:
        missed = (masked_ni[unseen] @ columns_mi.T - wanted_nm[unseen]).square().sum()
        return round(float(missed / wanted_nm[unseen].square().sum()), 4)

    return {"refitted": error(refitted_mi), "as_they_were": error(carved.down_proj)}


def main() -> None:
    def numbers(text: str) -> list[int]:
        return [int(number) for number in text.split(",")]

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--layers", type=numbers, default=[3, 14])
    parser.add_argument("--parts", type=numbers, default=[16, 48])
    parser.add_argument("--refinements", type=numbers, default=[0, 2, 6])
    options = parser.parse_args()
    found = []
    for layer, (mlp, x_nm) in inputs_of(options.model, options.layers).items():
        for parts, refinements, share in itertools.product(options.parts, options.refinements, SHARES):
            case = {"layer": layer, "parts": parts, "refinements": refinements, "active": share}
            found.append({**case, **errors(mlp, x_nm, parts, share, refinements)})
    print(json.dumps({"benchmark": "carve_layers", "model": options.model, "errors": found}))


if __name__ == "__main__":
    main()
