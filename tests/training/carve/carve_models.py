"""Tiny dense models to carve, and how they are split."""

from dataclasses import replace

import torch

from deepseek.config import ModelConfig
from deepseek.models.decoder import Model
from deepseek.training.carve import CarveConfig
from model_cases import CASES
from model_reference import randomise

SPLIT = CarveConfig(experts=6, shared=2, active=3)
DENSE = {
    "llama": replace(CASES["llama-tied-no-bias"], intermediate_size=64),
    "qwen2": replace(CASES["qwen2"], intermediate_size=64),
    "qwen3": replace(CASES["qwen3"], attention_output_bias=False, intermediate_size=64),
}


def dense_model(config: ModelConfig) -> Model:
    model = Model(config).eval()
    randomise(model, 1)
    return model


def windows(config: ModelConfig, count: int = 8) -> torch.Tensor:
    return torch.randint(0, config.vocab_size, (count, 32), generator=torch.Generator().manual_seed(2))
