"""Random initialisation of a whole model."""

import torch
from torch import nn

from deepseek.models.experts import Experts
from deepseek.models.moe import Router
from deepseek.models.norm import RMSNorm

INITIALIZER_STD = 0.006  # V2, section 3.1.2; V3, section 4.2


@torch.no_grad()
def initialise(model: nn.Module, *, std: float = INITIALIZER_STD, generator: torch.Generator | None = None) -> None:
    """Every weight matrix and embedding normal with deviation `std`, norms 1, biases and correction biases 0.

    In place; does nothing on the meta device. generator: its device must be the model's.
    """
    for module in model.modules():
        match module:
            case nn.Linear() | nn.Embedding() | Router():
                module.weight.normal_(0, std, generator=generator)
            case Experts():
                module.gate_up_proj.normal_(0, std, generator=generator)
                module.down_proj.normal_(0, std, generator=generator)
            case RMSNorm() | nn.LayerNorm():
                module.weight.fill_(1)
        if isinstance(bias := getattr(module, "bias", None), nn.Parameter):
            bias.zero_()
        if isinstance(module, Router) and module.moe.has_correction_bias:
            module.e_score_correction_bias.zero_()
