"""Models that come with the project: small enough, whole, described, and alive."""

import json
import re
from pathlib import Path

import pytest
import yaml

from deepseek.engine.engine import Engine

ROOT = Path(__file__).parents[2]
SHIPPED = sorted(folder for folder in (ROOT / "checkpoints").iterdir() if folder.is_dir())
MOST_BYTES = 40_000_000


def test_a_mixture_comes_with_the_project() -> None:
    assert "tiny-moe" in [folder.name for folder in SHIPPED]


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_the_model_predicts_its_kind_of_text(folder: Path) -> None:
    """Far better than by the frequency of tokens; and each token tells its experts."""
    with Engine.from_pretrained(folder, threads=1, record_routing=True) as engine:
        ids = engine.tokenizer.encode("It is a truth universally acknowledged, that a single man in possession")
        told = engine.generate(ids, max_tokens=1, prompt_logprobs=0).prompt_logprobs
        assert told is not None
        assert -sum(logprob for logprob, _ in told) / len(told) < 6
        answer = engine.generate("def main():\n", max_tokens=8, temperature=0, ignore_eos=True, record_routing=True)
        routing = answer.samples[0].routing
        assert routing is not None
        assert len(set(routing.experts[:, 0].flatten().tolist())) > 8


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_the_card_says_what_there_is(folder: Path) -> None:
    (weights,) = folder.glob("*.gguf")
    assert weights.stat().st_size <= MOST_BYTES
    card = (folder / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["pipeline_tag"] == "text-generation"
    assert f"`{weights.name}`, {weights.stat().st_size / 1e6:.1f} MB" in card
    for heading in ("Results", "Samples", "Limits", "Data and licences", "Training"):
        assert f"\n## {heading}\n" in card
    for linked in re.findall(r"\]\((?!http)([^)]+)\)", card):
        assert (folder / linked).exists(), linked


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_its_records_are_those_of_the_card(folder: Path) -> None:
    card = " ".join((folder / "README.md").read_text().split())
    runs = sorted((folder / "training").iterdir())
    assert runs
    for run in runs:
        lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
        assert f"{len(lines):,} steps, {lines[-1]['tokens']:,} tokens" in card
        assert f"{sum(line['seconds'] for line in lines) / 3600:.2f} hours" in card
        recipe = json.loads((run / "run.json").read_text())["recipe"]
        assert recipe["data"] == {"recipe": "data/open-mixture.toml"}  # no path of the machine that trained
        assert not Path(recipe["model"].get("start_from", "")).is_absolute()
