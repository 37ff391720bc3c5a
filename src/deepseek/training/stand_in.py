"""Stand-ins for what other branches bring: loss, balance. Deleted when they are merged."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from deepseek.models.decoder import Model
from deepseek.models.moe import MoE
from deepseek.models.mtp import predict_layer


class Loss(NamedTuple):
    total: Tensor
    main: Tensor
    mtp: Tensor


def language_model_loss(model: Model, tokens_bt1: Tensor, *, mtp_weight: float = 0.0) -> Loss:
    output = model(tokens_bt1[:, :-1])
    main = F.cross_entropy(output.logits.flatten(0, 1).float(), tokens_bt1[:, 1:].flatten())
    mtp = torch.zeros(())
    if mtp_weight and len(model.prediction_layers):
        at = model.config.num_hidden_layers
        hidden = predict_layer(model, at, output.last_hidden_btm[:, :-1], tokens_bt1[:, 1:-1])
        mtp = F.cross_entropy(model.head(hidden).flatten(0, 1).float(), tokens_bt1[:, 2:].flatten())
    return Loss(main + mtp_weight * mtp, main.detach(), mtp.detach())


@dataclass(frozen=True, kw_only=True)
class BalanceConfig:
    bias_speed: float = 0.001


@dataclass(frozen=True, kw_only=True)
class CapacityConfig:
    mode: str = "dropless"


@dataclass(frozen=True)
class LayerLoad:
    layer: int
    load_e: tuple[float, ...]
    max_violation: float
    entropy: float
    utilisation: float
    dropped: int
    confidence: float
    balance_loss: float
    router_z: float


class RoutingTraining:
    def __init__(self, model: Model, balance: BalanceConfig, capacity: CapacityConfig) -> None:
        self._layers = {at: layer.mlp for at, layer in enumerate(model.model.layers) if isinstance(layer.mlp, MoE)}
        self._speed = balance.bias_speed
        self._counts: dict[int, Tensor] = {}
        self._counting = False
        for at, mlp in self._layers.items():
            mlp.gate.register_forward_hook(lambda module, args, routing, at=at: self._count(at, routing))

    def _count(self, layer: int, routing: Any) -> None:
        if self._counting:
            experts = routing.scores_ne.shape[1]
            self._counts[layer] = self._counts.get(layer, 0) + torch.bincount(
                routing.indices_nk.flatten(), minlength=experts
            )

    def begin_step(self, micro_batches: int) -> None:
        self._counts, self._counting = {}, True

    def end_step(self) -> tuple[LayerLoad, ...]:
        self._counting = False
        loads = []
        for layer, counts in self._counts.items():
            share = counts / counts.sum()
            mean = share.mean()
            self._layers[layer].gate.e_score_correction_bias.add_((mean - share).sign(), alpha=self._speed)
            entropy = float(-(share * share.clamp_min(1e-9).log()).sum() / np.log(len(share)))
            violation = float(share.max() / mean - 1)
            loads.append(
                LayerLoad(layer, tuple(share.tolist()), violation, entropy, 1 / (1 + violation), 0, 0.0, 0.0, 0.0)
            )
        return tuple(loads)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass
