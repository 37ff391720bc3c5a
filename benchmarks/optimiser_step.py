"""What an optimiser step costs beside the training step that it ends: the 62M-parameter V3 shape, bfloat16 weights.

    python benchmarks/optimiser_step.py [--rounds 5]

Prints a line of JSON: milliseconds, the least of the rounds, of AdamW as we run it, of its plain definition, of
PyTorch's own (float32 weights, `foreach` and `fused`), of Muon, of the gradient norm, and of forward and backward over
8 x 512 tokens.
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import torch

from deepseek.models.auto import AutoModel
from deepseek.models.decoder import Model
from deepseek.optim.adamw import AdamW
from deepseek.optim.clipping import gradient_norm
from deepseek.optim.groups import weight_kinds
from deepseek.optim.muon import Muon
from deepseek.training.loss import language_model_loss
from deepseek.training.size import derived_config

BATCH, LENGTH = 8, 512


def least(run: Callable[[], Any], rounds: int) -> float:
    run()
    seconds = []
    for _ in range(rounds):
        begun = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begun)
    return round(min(seconds) * 1000, 1)


def new_model(dtype: str = "bfloat16") -> Model:
    model = AutoModel.from_config(derived_config(60, "moe", vocab_size=8192, context=LENGTH), dtype=dtype, seed=0)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter) * 1e-3
    return model


def muon_and_adamw(model: Model) -> Callable[[], None]:
    kinds = weight_kinds(model.named_parameters())
    muon = Muon([{"params": list(kinds.matrices)}, {"params": list(kinds.pairs), "matrices_per_weight": 2}])
    rest = AdamW([*kinds.tables, *kinds.vectors])

    def step() -> None:
        muon.step()
        rest.step()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    model = new_model()
    result: dict[str, Any] = {"benchmark": "optimiser_step", "parameters": sum(p.numel() for p in model.parameters())}
    result["gradient_norm"] = least(lambda: gradient_norm(model.parameters()), rounds)
    result["adamw"] = least(AdamW(model.parameters()).step, rounds)
    result["adamw_plain"] = least(AdamW(model.parameters(), fused=False).step, rounds)
    result["muon"] = least(muon_and_adamw(model), rounds)
    wide = new_model("float32")
    result["torch_foreach"] = least(torch.optim.AdamW(wide.parameters(), foreach=True).step, rounds)
    result["torch_fused"] = least(torch.optim.AdamW(wide.parameters(), fused=True).step, rounds)
    del wide
    tokens = torch.randint(0, 8192, (BATCH, LENGTH + 1))

    def step() -> None:
        model.zero_grad(set_to_none=True)
        torch.autograd.backward(language_model_loss(model, tokens).total)

    result["forward_and_backward"] = least(step, max(2, rounds // 2))
    result["adamw_share"] = round(result["adamw"] / (result["adamw"] + result["forward_and_backward"]), 4)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
