"""Transformers' models with random weights, and how far a routing decision is from going the other way."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, DeepseekV2Config, PreTrainedModel
from transformers.models.deepseek_v2.modeling_deepseek_v2 import DeepseekV2Moe, DeepseekV2TopkRouter

from deepseek.config import ModelConfig, MoeConfig
from deepseek.families import config_to_hf
from deepseek.models.decoder import Model
from deepseek.models.indexer import Indexer
from deepseek.models.routing_record import RoutingRecord, record_routing

SMALLEST_GAP = 1e-3


def reference_model(config: ModelConfig) -> PreTrainedModel:
    """Transformers' model of our config; for V1, which it lacks, composed of Llama and V2's experts."""
    values = config_to_hf(config)
    if config.family == "deepseek":
        return _v1(config, values)
    hf_config = AutoConfig.for_model(values.pop("model_type"), **values)
    return AutoModelForCausalLM.from_config(hf_config, attn_implementation="eager").eval()


def _v1(config: ModelConfig, values: dict) -> PreTrainedModel:
    values.pop("model_type")
    llama = AutoModelForCausalLM.from_config(
        AutoConfig.for_model("llama", **values, mlp_bias=False), attn_implementation="eager"
    )
    experts = DeepseekV2Config(**{**values, "mlp_bias": False})
    experts._experts_implementation = "eager"
    for layer in range(config.num_hidden_layers):
        if config.is_moe_layer(layer):
            block = DeepseekV2Moe(experts)
            if config.moe.norm_topk_prob:
                block.gate = NormedRouter(experts)
            llama.model.layers[layer].mlp = block
    return llama.eval()


class NormedRouter(DeepseekV2TopkRouter):
    """DeepSeekMoE's published code renormalises; Transformers' V2 router never does."""

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits, weights, indices = super().forward(hidden_states)
        return logits, weights / (weights.sum(dim=-1, keepdim=True) + 1e-20), indices


@torch.no_grad()
def randomise(model: nn.Module, seed: int) -> None:
    """Every parameter and correction bias; nothing keeps its default. Matrices keep the size of what they multiply."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if not name.endswith(("weight", "bias", "proj")):
            continue  # rotary frequencies
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith("bias"):
            tensor.copy_(0.4 * noise)
        elif tensor.dim() == 1:
            tensor.copy_(1 + 0.4 * noise)
        else:
            tensor.copy_(1.5 * noise * (1.0 if "embed" in name else tensor.shape[-1] ** -0.5))


def paired(config: ModelConfig, seed: int) -> tuple[Model, PreTrainedModel]:
    """Ours and Transformers', with the same random weights."""
    reference = reference_model(config)
    randomise(reference, seed)
    ours = Model(config).eval()
    weights = reference.state_dict()
    if config.tie_word_embeddings:
        weights.pop("lm_head.weight")
    ours.load_state_dict(weights)
    return ours, reference


def decided(config: ModelConfig, *, tokens: int) -> tuple[Model, PreTrainedModel, Tensor]:
    """The first seed for which no routing or indexing decision is near a tie: both models and ids (2, tokens)."""
    for seed in count():
        assert seed < 400, "no seed without near ties: make the case smaller"
        ours, reference = paired(config, seed)
        ids = torch.randint(0, config.vocab_size, (2, tokens), generator=torch.Generator().manual_seed(seed))
        if smallest_gap(ours, ids) > SMALLEST_GAP:
            return ours, reference, ids
    raise AssertionError


@torch.no_grad()
def smallest_gap(model: Model, ids: Tensor) -> float:
    """The smallest margin of any choice of experts, of groups or of indexed keys in a forward pass."""
    with record_routing(model) as record, record_indexing() as indexed:
        model(ids)
    gaps = [*_indexing_gaps(model.config, indexed), *_routing_gaps(model, record)]
    return min(gaps, default=float("inf"))


def _routing_gaps(model: Model, record: RoutingRecord) -> Iterator[float]:
    for name, calls in record.calls.items():
        router = model.get_submodule(name)
        bias = router.e_score_correction_bias if router.moe.has_correction_bias else 0.0
        for routing in calls:
            yield from _choice_gaps(routing.scores_ne + bias, router.moe)


def _choice_gaps(choice: Tensor, moe: MoeConfig) -> Iterator[float]:
    if moe.topk_group < moe.n_group:
        groups = choice.unflatten(-1, (moe.n_group, -1))
        best = groups.topk(2, -1).values.sum(-1) if moe.topk_method == "noaux_tc" else groups.amax(-1)
        ranked = best.sort(descending=True)
        yield (ranked.values[:, moe.topk_group - 1] - ranked.values[:, moe.topk_group]).min().item()
        kept = ranked.indices[:, : moe.topk_group]
        choice = groups.gather(1, kept[..., None].expand(-1, -1, groups.shape[-1])).flatten(1)
    k = moe.num_experts_per_tok
    if k < choice.shape[1]:
        ranked_choice = choice.sort(descending=True).values
        yield (ranked_choice[:, k - 1] - ranked_choice[:, k]).min().item()


def _indexing_gaps(config: ModelConfig, scores: list[Tensor]) -> Iterator[float]:
    for scores_bts in scores:
        k, queries = config.indexer.index_topk, scores_bts.shape[1]
        for query in range(k, queries):
            ranked = scores_bts[:, query, : query + 1].sort(descending=True).values
            yield (ranked[:, k - 1] - ranked[:, k]).min().item()


@contextmanager
def record_indexing() -> Iterator[list[Tensor]]:
    seen: list[Tensor] = []
    plain = Indexer.scores

    def scores(self: Indexer, *args: Tensor) -> Tensor:
        seen.append(plain(self, *args))
        return seen[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Indexer, "scores", scores)
        yield seen


def relative_difference(ours: Tensor, reference: Tensor) -> float:
    """Largest absolute difference over the largest absolute reference."""
    assert torch.isfinite(ours).all()
    return ((ours - reference).abs().max() / reference.abs().max()).item()
