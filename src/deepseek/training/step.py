"""One training step: a batch in parts, their gradients, the balance of experts, the update."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from deepseek.optim.clipping import clip_factor, gradient_norm
from deepseek.training.balance import LayerLoad
from deepseek.training.loss import language_model_loss
from deepseek.training.not_finite import FINITE, explain
from deepseek.training.state import TrainingState


class NotFinite(Exception):
    """The loss or the gradient of a batch is not a number, and why. Nothing was updated yet but the balance."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepResult:
    """Losses in nats a token. gradient_norm: before clipping; None: left out, the loss scale was too large."""

    loss: float
    main_loss: float
    mtp_loss: float
    gradient_norm: float | None
    loads: tuple[LayerLoad, ...]


def train_step(
    state: TrainingState,
    tokens_bt1: Tensor,
    *,
    micro_batch_size: int,
    learning_rate: float,
    bias_update: float,
    mtp_weight: float,
    clip_norm: float | None,
) -> StepResult:
    """tokens_bt1: the batch, a multiple of micro_batch_size sequences. bias_update: see `RoutingTraining.end_step`.

    Raises NotFinite.
    """
    parts = torch.split(tokens_bt1.to(state.model.device), micro_batch_size)
    factor = state.loss_scale.factor
    state.routing.begin_step(len(parts), loss_scale=factor)
    losses = torch.zeros(3)
    for part in parts:
        loss = language_model_loss(state.model, part, mtp_weight=mtp_weight)
        torch.autograd.backward(loss.total * (factor / len(parts)))
        losses += torch.stack([loss.total.detach(), loss.main.detach(), loss.mtp]).float().cpu() / len(parts)
    norm = gradient_norm(state.parameters()) / factor
    finite = math.isfinite(norm)
    if not math.isfinite(float(losses[0])) or (not finite and state.loss_scale.is_exhausted):
        what = "gradient" if math.isfinite(float(losses[0])) else "loss"
        raise NotFinite(f"the {what} is not finite: {_explained(state, parts, mtp_weight)}")
    loads = state.routing.end_step(bias_update)
    state.set_learning_rate(learning_rate)
    if finite:
        state.update(clip_factor(norm, clip_norm) / factor)
    state.loss_scale.update(finite=finite)
    state.zero_grad()
    total, main, mtp = losses.tolist()
    return StepResult(
        loss=total, main_loss=main, mtp_loss=mtp, gradient_norm=norm if finite else None, loads=tuple(loads)
    )


def _explained(state: TrainingState, parts: tuple[Tensor, ...], mtp_weight: float) -> str:
    """Run the batch again, part by part, to find where it stops being finite."""

    def loss_of(part: Tensor) -> Callable[[], Tensor]:
        return lambda: language_model_loss(state.model, part, mtp_weight=mtp_weight).total * state.loss_scale.factor

    for part in parts:
        state.zero_grad()
        explanation = explain(state.model, loss_of(part))
        if explanation != FINITE:
            break
    state.zero_grad()
    return explanation
