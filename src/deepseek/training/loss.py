"""Next-token cross entropy, and that of the prediction layers (multi-token prediction, V3 section 2.2).

Shape suffixes: b batch, t tokens, t1 tokens and one more, n tokens of batch and sequence together, m model size,
v vocabulary, c tokens of a chunk, s tokens of several chunks.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from deepseek.errors import ConfigError
from deepseek.models.decoder import Model
from deepseek.models.mtp import predict_layer

CHUNK_ELEMENTS = 1 << 21  # of logits: 8 MB in float32, which stays in a processor's cache and is small on any device
CHUNKS_A_SUM = 8  # whose gradients wait for one product: to add to the weights' takes longer than a chunk's own


class Loss(NamedTuple):
    """Scalars in float32, in nats a token. total = main + mtp_weight * mtp, and the only one to differentiate.

    mtp: mean over the prediction layers; 0 if they did not run.
    """

    total: Tensor
    main: Tensor
    mtp: Tensor


def language_model_loss(model: Model, tokens_bt1: Tensor, *, mtp_weight: float = 0.0) -> Loss:
    """Loss of predicting each token (int64) from those before it in its sequence.

    Prediction layer k reads token i + k and predicts token i + k + 1 from the states of token i, with the model's own
    embedding and head; its loss is the mean over the t - k tokens for which both exist. With mtp_weight 0 these layers
    do not run. Raises ConfigError if the weight asks for layers that the model lacks, or for sequences too short.
    """
    depth = len(model.prediction_layers) if mtp_weight else 0
    _check(model, tokens_bt1, mtp_weight)
    hidden_btm = model(tokens_bt1[:, :-1], keep_logits=0).last_hidden_btm
    main = head_loss(model, hidden_btm, tokens_bt1[:, 1:])
    if not depth:
        return Loss(main, main.detach(), torch.zeros_like(main))
    losses = []
    for k in range(1, depth + 1):
        layer = model.config.num_hidden_layers + k - 1
        hidden_btm = predict_layer(model, layer, hidden_btm[:, : tokens_bt1.shape[1] - 1 - k], tokens_bt1[:, k:-1])
        losses.append(head_loss(model, hidden_btm, tokens_bt1[:, k + 1 :]))
    mtp = torch.stack(losses).mean()
    return Loss(main + mtp_weight * mtp, main.detach(), mtp.detach())


def head_loss(model: Model, hidden_btm: Tensor, targets_bt: Tensor) -> Tensor:
    """Mean cross entropy of the model's head over normalised hidden states, without ever holding all logits."""
    weight_vm = model.model.embed_tokens.weight if model.lm_head is None else model.lm_head.weight
    inputs = hidden_btm.flatten(0, 1), weight_vm, targets_bt.flatten(), torch.is_grad_enabled()
    loss: Tensor = _HeadLoss.apply(*inputs)  # type: ignore[no-untyped-call]
    return loss


def plain_head_loss(model: Model, hidden_btm: Tensor, targets_bt: Tensor) -> Tensor:
    """Slow twin of `head_loss`."""
    return F.cross_entropy(model.head(hidden_btm).flatten(0, 1).float(), targets_bt.flatten())


class _HeadLoss(torch.autograd.Function):
    """Chunk by chunk: logits, their loss, and at once the gradients, so that no logits wait for the backward pass.

    Logits are rounded to the type of the weights, as a head would give them; everything after is float32. Gradients
    are of the sum over tokens until `backward` scales them: divided by n at once, those of float16 would underflow.
    """

    @staticmethod
    def forward(ctx: Any, hidden_nm: Tensor, weight_vm: Tensor, targets_n: Tensor, differentiable: bool) -> Tensor:
        needs_hidden, needs_weight = (differentiable and needed for needed in ctx.needs_input_grad[:2])
        hidden_grad_nm = torch.empty_like(hidden_nm) if needs_hidden else None
        weight_grad_vm = torch.zeros_like(weight_vm, dtype=torch.float32) if needs_weight else None
        total = torch.zeros((), dtype=torch.float32, device=hidden_nm.device)
        size = max(1, CHUNK_ELEMENTS // weight_vm.shape[0])
        waiting_sv = weight_vm.new_empty(min(size * CHUNKS_A_SUM, len(targets_n)), len(weight_vm))
        for start in range(0, len(targets_n), size):
            chunk, targets_c1 = slice(start, start + size), targets_n[start : start + size, None]
            logits_cv = F.linear(hidden_nm[chunk], weight_vm)
            probabilities_cv = logits_cv.softmax(dim=-1, dtype=torch.float32)
            # log sum exp from the likeliest token, whose probability cannot underflow: half the passes of log_softmax
            log_sum_c1 = (
                logits_cv.amax(dim=-1, keepdim=True).float() - probabilities_cv.amax(dim=-1, keepdim=True).log()
            )
            total += (log_sum_c1 - logits_cv.gather(1, targets_c1).float()).sum()
            if hidden_grad_nm is None and weight_grad_vm is None:
                continue
            minus_one_c1 = probabilities_cv.new_full((), -1.0).expand_as(targets_c1)
            at = start % (size * CHUNKS_A_SUM)
            logit_grad_cv = waiting_sv[at : at + len(targets_c1)]
            logit_grad_cv.copy_(probabilities_cv.scatter_add_(1, targets_c1, minus_one_c1))
            if hidden_grad_nm is not None:
                torch.mm(logit_grad_cv, weight_vm, out=hidden_grad_nm[chunk])
            end = start + len(targets_c1)
            if weight_grad_vm is not None and (end == len(targets_n) or end % (size * CHUNKS_A_SUM) == 0):
                waited = at + len(targets_c1)
                weight_grad_vm += waiting_sv[:waited].T @ hidden_nm[end - waited : end]
        ctx.save_for_backward(hidden_grad_nm, weight_grad_vm)
        ctx.tokens, ctx.dtype = len(targets_n), weight_vm.dtype
        return total / len(targets_n)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        hidden_grad_nm, weight_grad_vm = ctx.saved_tensors
        scale = grad / ctx.tokens
        hidden = None if hidden_grad_nm is None else hidden_grad_nm * scale
        weight = None if weight_grad_vm is None else (weight_grad_vm * scale).to(ctx.dtype)
        return hidden, weight, None, None


def _check(model: Model, tokens_bt1: Tensor, mtp_weight: float) -> None:
    depth = len(model.prediction_layers)
    if mtp_weight and not depth:
        raise ConfigError(
            f"mtp_weight is {mtp_weight}, but the model has no MTP layers: set num_nextn_predict_layers, or 0"
        )
    least = 2 + depth if mtp_weight else 2
    if tokens_bt1.dim() != 2 or tokens_bt1.shape[1] < least:
        raise ConfigError(
            f"tokens must be (batch, sequence_length + 1) with at least {least} a sequence, "
            f"not {tuple(tokens_bt1.shape)}"
        )
