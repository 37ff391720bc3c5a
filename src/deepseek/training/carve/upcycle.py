"""Sparse upcycling (arXiv 2212.05055): every expert a copy of the dense layer, so that training starts from its output.

Each of `active` chosen experts counts 1 / active, whichever they are: the new model writes what the dense one wrote. It
gains nothing until it is trained, and costs more than the dense model from `active` 2 on.
"""

from dataclasses import replace
from typing import cast

import torch

from deepseek.config import ModelConfig, MoeConfig
from deepseek.errors import ConfigError
from deepseek.models.decoder import Model
from deepseek.models.mlp import Mlp
from deepseek.models.moe import MoE
from deepseek.models.weights import canonical_tensors
from deepseek.training.carve.target import LOGIT_SIZE, check_dense


def upcycled_config(dense: ModelConfig, *, experts: int, active: int) -> ModelConfig:
    check_dense(dense)
    if experts < 2 or not 1 <= active <= experts:
        raise ConfigError(f"an upcycled model needs 2 experts or more and 1 to all active, not {experts}, {active}")
    moe = MoeConfig(
        n_routed_experts=experts,
        num_experts_per_tok=active,
        moe_intermediate_size=dense.intermediate_size,
        scoring_func="sigmoid",
        topk_method="noaux_tc",
        norm_topk_prob=True,
    )
    return replace(dense, family="glm4_moe", moe=moe, sliding_window=None, max_window_layers=0)


@torch.no_grad()
def upcycle(model: Model, *, experts: int, active: int, seed: int = 0) -> Model:
    """A mixture of experts of the same type that computes what `model` does. Routers are drawn from `seed`."""
    with torch.device("meta"):
        copied = Model(upcycled_config(model.config, experts=experts, active=active))
    copied.to(model.dtype).to_empty(device=model.device)
    generator = torch.Generator().manual_seed(seed)
    sources = dict(model.named_parameters())
    for name, target in canonical_tensors(copied).items():
        if ".mlp." not in name:
            target.copy_(sources[name].detach())
        elif name.endswith("mlp.gate.weight"):
            target.copy_(LOGIT_SIZE * torch.randn(target.shape, generator=generator))
        elif name.endswith("e_score_correction_bias"):
            target.zero_()
    for source, layer in zip(model.main_layers, copied.main_layers, strict=True):
        dense = cast(Mlp, source.mlp)
        copies = cast(MoE, layer.mlp).experts
        copies.gate_up_proj.copy_(torch.cat((dense.gate_proj.weight, dense.up_proj.weight)))
        copies.down_proj.copy_(dense.down_proj.weight)
    return copied.eval()
