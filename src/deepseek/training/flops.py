"""How much arithmetic a training step is, and how much the machine can do: from speed to a share of the peak."""

import time

import torch

from deepseek.config import ModelConfig
from deepseek.families.sizes import model_size
from deepseek.families.weights import mtp_weights
from deepseek.models.device import fast_dtype

PEAK_SIZE = 2048
_PEAK_ROUNDS = 3


def training_flops_per_token(config: ModelConfig, sequence_length: int, *, with_mtp: bool) -> float:
    """Forward and backward (twice the forward): 6 for each active weight, and the scores of causal attention.

    What activation checkpointing computes again is not counted: it is no work that training asks for.
    """
    active = model_size(config).active
    layers = config.num_hidden_layers
    if with_mtp:
        active += sum(_active_of_prediction_layer(config, layers + depth) for depth in range(_depth(config)))
        layers += _depth(config)
    qk, value = (config.head_dim, config.mla.v_head_dim) if config.mla else (config.head_dim, config.head_dim)
    keys = (sequence_length + 1) / 2
    scores = 2 * layers * config.num_attention_heads * (qk + value) * keys
    return 6.0 * active + 3 * scores


def _depth(config: ModelConfig) -> int:
    return config.num_nextn_predict_layers


def _active_of_prediction_layer(config: ModelConfig, layer: int) -> int:
    """Its head is the model's, multiplied with once more; its embedding is looked up."""
    active = 0.0
    for name, shape in mtp_weights(config, layer):
        count = 1
        for side in shape:
            count *= side
        if ".mlp.experts." in name:
            assert config.moe is not None
            active += count * config.moe.num_experts_per_tok / config.moe.n_routed_experts
        elif not name.endswith("embed_tokens.weight"):
            active += count
    return round(active)


def matrix_peak(device: torch.device) -> float:
    """FLOP/s of a matrix product in the device's fastest type, the best of a few rounds now, in a second at most."""
    dtype = fast_dtype(device)
    a, b = (torch.randn(PEAK_SIZE, PEAK_SIZE, device=device).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(_PEAK_ROUNDS):
        begun = time.perf_counter()
        (a @ b)[0, 0].item()
        best = min(best, time.perf_counter() - begun)
    return 2 * PEAK_SIZE**3 / best
