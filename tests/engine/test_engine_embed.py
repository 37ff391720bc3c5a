"""Embeddings and whole answers from the compiled runner beside the PyTorch reference, through the public engine."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from deepseek import AutoModel
from deepseek.checkpoint.packed import ensure_packed
from deepseek.engine.engine import Engine
from deepseek.engine.runner import CpuRunner
from model_cases import CASES

PROMPTS = [[1, 2, 3, 4, 5], [7], [9, 8, 7] * 15]


@pytest.mark.parametrize("name", ["llama", "v3"])
def test_embeddings_equal_the_reference(name: str, tmp_path: Path) -> None:
    config = replace(CASES[name], num_nextn_predict_layers=0)
    model = AutoModel.from_config(config, seed=3, std=0.3).eval()
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        hidden = [model(torch.tensor([prompt])).last_hidden_btm[0].numpy() for prompt in PROMPTS]
    runner = CpuRunner(
        ensure_packed(tmp_path, quantize="f32"), threads=2, kv_cache_bytes=1 << 20, max_model_len=96,
        max_tokens_per_step=32, max_sequences=4,
    )  # fmt: skip
    with Engine(runner, None) as engine:
        means = engine.embed(PROMPTS, normalize=False)
        np.testing.assert_allclose(means, [rows.mean(0) for rows in hidden], atol=3e-3)
        last = engine.embed(PROMPTS[2], pooling="last")
    expected = hidden[2][-1] / np.linalg.norm(hidden[2][-1])
    np.testing.assert_allclose(last, expected, atol=3e-3)
