"""Recipes: what they may say, what is refused and how, and what the dial makes of the rest."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepseek.errors import ConfigError
from deepseek.families.sizes import model_size
from deepseek.training.keys import data_keys, run_keys
from deepseek.training.plan import make_plan
from deepseek.training.recipe import Recipe
from deepseek.training.recipe_file import read_recipe
from deepseek.training.size import dense_twin, derived_config, derived_training
from deepseek.training.toml import to_toml

BASE: dict[str, Any] = {"name": "x", "data": {"folder": "d"}, "model": {"size": 2}}
RECIPES = sorted((Path(__file__).parent.parent.parent / "recipes").glob("*.toml"))


def recipe(**changes: Any) -> Recipe:
    return Recipe.from_dict({**BASE, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modell": {}}, "unknown key modell; known are name, data, model"),
        ({"stage": {"stepz": 3}}, "unknown key stage.stepz; known are name, steps"),
        ({"stage": {"rope": {"base": 3}}}, "unknown key stage.rope.base; known are theta, yarn_factor"),
        ({"balance": {"speed": 1}}, "unknown key balance.speed; known are bias_update_speed"),
        ({"stages": [{"name": "long", "tokenz": 1}]}, r"unknown key stages\[0\].tokenz"),
        ({"stage": {"steps": "many"}}, "stage.steps must be a whole number, not 'many'"),
        ({"stage": {"steps": True}}, "stage.steps must be a whole number, not True"),
        ({"stage": {"steps": 0}}, "stage.steps must be above 0, not 0"),
        ({"stage": {"steps": 1, "tokens": 1}}, "stage.steps or tokens: only one"),
        ({"stage": {"needles": 0.5, "sequence_length": 14}}, "stage.needles want a sequence_length of at least 64"),
        ({"training": {"precision": "int4"}}, "training.precision must be one of auto, bfloat16, float32"),
        ({"evaluation": {"prompts": "Once"}}, "evaluation.prompts must be a list"),
        ({"optimizer": 3}, "optimizer must be a table"),
        ({"model": {}}, "model.size or start_from: exactly one"),
        ({"data": {}}, "data.recipe or folder"),
        ({"stages": [{"name": "main", "steps": 1}]}, "stages need names of their own"),
        ({"stages": [{"name": "long"}]}, "stages: long needs steps or tokens"),
        ({"checkpoints": {"named": {"step-5": 5}}}, "checkpoints.named: 'step-5' must be"),
        ({"schedule": {}}, "unknown key schedule"),
    ],
)
def test_a_refusal_names_the_key(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        recipe(**changes)


def test_a_missing_key_is_named() -> None:
    with pytest.raises(ConfigError, match="missing key model"):
        Recipe.from_dict({"name": "x", "data": {"folder": "d"}})


def test_what_is_written_is_read_back() -> None:
    whole = recipe(stage={"steps": 3, "rope": {"theta": 5.0}}, checkpoints={"named": {"early": 2}}, seed=7)
    assert Recipe.from_dict(whole.to_dict()) == whole


def test_the_fingerprint_is_of_what_numbers_depend_on() -> None:
    assert recipe(evaluation={"every": 3}).fingerprint() == recipe().fingerprint()
    assert recipe(seed=1).fingerprint() != recipe().fingerprint()


def test_a_file_with_changes(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text('name = "x"\n[data]\nfolder = "./d"\n[model]\nsize = 2\n')
    changes = ["model.size=3", "optimizer.name=muon", "stage.schedule.name=cosine", "evaluation.prompts=['a', 'b']"]
    read = read_recipe(path, changes=changes)
    assert read.model.size == 3
    assert read.optimizer.name == "muon"
    assert read.stage.schedule.name == "cosine"
    assert read.evaluation.prompts == ("a", "b")
    assert read.data.folder == str(tmp_path / "d")
    with pytest.raises(ConfigError, match="--set takes KEY=VALUE"):
        read_recipe(path, changes=["model.size"])
    with pytest.raises(ConfigError, match=r"r.toml: unknown key model.sizes"):
        read_recipe(path, changes=["model.sizes=3"])
    with pytest.raises(ConfigError, match="cannot be read"):
        read_recipe(tmp_path / "other.toml")
    path.write_text("name = ")
    with pytest.raises(ConfigError, match="not valid TOML"):
        read_recipe(path)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_our_recipes_can_be_read(path: Path) -> None:
    read = read_recipe(path)
    assert read.name == path.stem
    assert read.data.recipe is not None
    assert Path(read.data.recipe).is_file()
    if read.model.start_from is None:
        assert make_plan(read, 8192).steps > 0


@pytest.mark.parametrize("size", [1, 3, 6, 10, 15, 20, 60, 120, 400])
def test_the_dial_gives_the_size_it_says(size: float) -> None:
    config = derived_config(size, "moe", vocab_size=8192, context=512)
    assert model_size(config).total == pytest.approx(size * 1e6, rel=0.2)
    assert config.mla is not None
    assert config.moe is not None
    widths = (config.hidden_size, config.moe.moe_intermediate_size, config.mla.kv_lora_rank, config.mla.q_lora_rank)
    assert all(width is not None and width % 32 == 0 for width in widths)
    assert config.moe.n_routed_experts >= 32 or size < 30


@pytest.mark.parametrize("size", [3, 60, 400])
def test_the_twin_has_the_same_active_parameters(size: float) -> None:
    config = derived_config(size, "moe", vocab_size=8192, context=512)
    twin = derived_config(size, "dense", vocab_size=8192, context=512)
    assert twin == dense_twin(config)
    sizes = model_size(twin)
    assert sizes.total - sizes.layers[0].total == sizes.active  # all but the embedding, which is looked up
    assert sizes.active == pytest.approx(model_size(config).active, rel=0.02)


def test_the_shape_of_the_speed_benchmark() -> None:
    config = derived_config(60, "moe", vocab_size=8192, context=512)
    moe = config.moe
    assert moe is not None
    assert (config.hidden_size, config.num_hidden_layers) == (384, 8)
    assert (moe.n_routed_experts, moe.num_experts_per_tok, moe.moe_intermediate_size) == (32, 4, 192)
    assert model_size(config).total == pytest.approx(62e6, rel=0.01)


@pytest.mark.parametrize("size", [0.1, 1e6])
def test_sizes_out_of_range_are_refused(size: float) -> None:
    with pytest.raises(ConfigError, match="size must be between"):
        derived_config(size, "moe", vocab_size=8192, context=512)


def test_longer_runs_take_larger_batches_and_smaller_steps() -> None:
    config = derived_config(60, "moe", vocab_size=8192, context=512)
    short, long = (derived_training(config, tokens) for tokens in (10_000_000, 10_000_000_000))
    assert short.batch_tokens < long.batch_tokens
    assert short.learning_rate > long.learning_rate


def test_the_recipe_wins_over_the_dial() -> None:
    config = {"hidden_size": 64, "moe": {"n_routed_experts": 12}, "rope": {"theta": 77.0}}
    stage = {"steps": 5, "batch_size": 6, "micro_batch_size": 3, "learning_rate": 0.5}
    plan = make_plan(recipe(model={"size": 2, "config": config}, stage=stage), 500)
    assert plan.config.hidden_size == 64
    assert plan.config.rope.theta == 77
    assert plan.config.moe is not None
    assert plan.config.moe.n_routed_experts == 12
    only = plan.stages[0]
    assert (only.stop, only.batch_size, only.micro_batches, only.learning_rate) == (5, 6, 2, 0.5)
    with pytest.raises(ConfigError, match=r"unknown key model.config.moe.experts"):
        make_plan(recipe(model={"size": 2, "config": {"moe": {"experts": 1}}}), 500)


def test_stages_follow_each_other_in_steps_tokens_and_data() -> None:
    stages = [{"name": "long", "tokens": 40_000, "sequence_length": 512, "batch_size": 2, "rope": {"theta": 9e4}}]
    stage = {"steps": 10, "sequence_length": 128, "batch_size": 5}
    plan = make_plan(recipe(stage=stage, stages=stages), 500)
    first, second = plan.stages
    assert (second.start, second.stop, second.start_tokens) == (10, 50, 6400)
    assert plan.tokens_after(10) == 6400
    assert plan.tokens_after(12) == 6400 + 2 * 1024
    assert second.first_batch == 7  # 6,400 of 1,024
    assert (first.config.rope.theta, second.config.rope.theta) == (1e4, 9e4)
    assert (first.config.max_position_embeddings, second.config.max_position_embeddings) == (128, 512)
    assert [plan.stage_at(step).name for step in (0, 9, 10, 49, 50)] == ["main", "main", "long", "long", "long"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stage": {"steps": 1, "batch_size": 3, "micro_batch_size": 2}}, "must be a multiple of micro_batch_size"),
        ({"stage": {"steps": 1}, "checkpoints": {"named": {"late": 9}}}, "checkpoints.named.late is step 9"),
        (
            {
                "stage": {"steps": 1, "rope": {"yarn_factor": 2}},
                "stages": [{"name": "b", "steps": 1, "rope": {"yarn_factor": 2}}],
            },
            "already scaled",
        ),
    ],
)
def test_plans_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_plan(recipe(**changes), 500)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("model.config.moe=64", "model.config.moe must be a table of keys and values, not 64; set one of its keys"),
        ("model.config.mla=3", "model.config.mla must be a table of keys and values, not 3"),
        ("model.config.rope=yarn", "model.config.rope must be a table of keys and values, not 'yarn'"),
        ("model.config.eos_token_ids=1", "model.config.eos_token_ids must be a list, not 1"),
        ("model.config.eos_token_ids=[1.5]", r"model.config.eos_token_ids\[0\] must be a whole number"),
        ("model.config.hidden_size=wide", "model.config.hidden_size must be a whole number, not 'wide'"),
        ("model.config.moe.n_routed_experts=true", "model.config.moe.n_routed_experts must be a whole number"),
        ("stage.learning_rate=1e10", "stage.learning_rate must be at most 1"),
        ("name=../../esc", "name must be letters, digits"),
        ("name=a/b", "name must be letters, digits"),
        ("name=..", "name must be letters, digits"),
        ('name=""', "name must be letters, digits"),
    ],
)
def test_a_wrong_change_is_one_message(tmp_path: Path, change: str, words: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text('name = "x"\n[data]\nfolder = "d"\n[model]\nsize = 1\n')
    with pytest.raises(ConfigError, match=words):
        make_plan(read_recipe(path, changes=[change]), 500)


def test_every_wrong_key_is_named_at_once() -> None:
    values = {"nme": "x", "data": {"fodler": "d"}, "model": {"size": "big"}, "stage": {"stepz": 3, "batch_size": 1.5}}
    with pytest.raises(ConfigError) as caught:
        Recipe.from_dict(values)
    for words in (
        "unknown key nme; known are name, data",
        "missing key name",
        "unknown key data.fodler",
        "model.size must be a number, not 'big'",
        "unknown key stage.stepz",
    ):
        assert words in str(caught.value)


def test_differences_name_the_keys_that_changed() -> None:
    before = recipe(stage={"steps": 300}, optimizer={"name": "muon"})
    after = recipe(stage={"steps": 200, "batch_size": 4}, evaluation={"every": 7})
    assert after.differences(before.to_dict()) == [
        "stage.steps: 300 -> 200",
        'optimizer.name: "muon" -> "adamw"',
        "stage.batch_size: by default -> 4",
    ]


def test_every_key_has_a_meaning_and_every_meaning_a_key() -> None:
    found = {key.name: key for key in (*run_keys(), *data_keys())}
    assert {
        "stage.steps",
        "model.config",
        "optimizer.beta1",
        "balance.bias_update_speed",
        "source.path",
    } <= found.keys()
    assert found["optimizer.name"].kind == "adamw, muon"
    assert (found["name"].default, found["stage.sequence_length"].default) == ("", "512")
    assert "folder" not in found
    assert all(key.meaning and "  " not in key.meaning for key in found.values())
    assert "a table" not in " ".join(key.meaning for key in found.values() if key.name != "stages")


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=8),
        st.recursive(
            st.one_of(st.text(max_size=8), st.integers(-(2**60), 2**60), st.booleans(), st.floats(allow_nan=False)),
            lambda inner: st.one_of(
                st.lists(st.text(max_size=3), max_size=3), st.dictionaries(st.text(min_size=1, max_size=4), inner)
            ),
            max_leaves=6,
        ),
        max_size=5,
    )
)
def test_toml_is_read_back_as_it_was(values: dict[str, Any]) -> None:
    assert tomllib.loads(to_toml(values)) == values
