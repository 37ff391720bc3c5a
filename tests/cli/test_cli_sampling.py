"""The command line samples as the server does: what was given, over what the model's makers recommend."""

import json
from pathlib import Path

import pytest

from deepseek.cli.sampling import given_options, over_recommended
from deepseek.errors import GenerationError


def test_options_that_are_left_out_are_the_models() -> None:
    assert over_recommended(None, None, {"max_tokens": 5}).temperature == 0
    assert over_recommended(None, None, {"temperature": 0.5}).temperature == 0.5


def test_a_folder_with_a_generation_config(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text(json.dumps({"temperature": 0.6, "top_k": 20}))
    (tmp_path / "config.json").write_text("{}")
    params = over_recommended(str(tmp_path), None, given_options(top_k=5, max_tokens=9, seed=None))
    assert (params.temperature, params.top_k, params.max_tokens, params.seed) == (0.6, 5, 9, None)


def test_what_no_model_takes_is_refused_before_one_is_fetched() -> None:
    with pytest.raises(GenerationError, match="top_p"):
        given_options(top_p=3.0)
