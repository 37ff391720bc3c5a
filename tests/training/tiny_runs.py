"""Tiny training runs: data prepared from this project's own pages, recipes of a dozen steps, a watcher that listens."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from deepseek.training.data.prepare import prepare
from deepseek.training.data.recipe import DataRecipe
from deepseek.training.plan import Plan
from deepseek.training.recipe import Recipe
from deepseek.training.run_folder import RunFolder
from deepseek.training.trainer import Outcome, Trainer

PAGES = Path(__file__).parent.parent.parent / "docs"
UNEQUAL = ("seconds", "tokens_per_second", "peak_share", "memory_bytes")  # of two equal runs


def prepare_pages(folder: Path) -> Path:
    """A vocabulary of 300 and some 50,000 tokens, in a second."""
    source = {
        "name": "pages",
        "kind": "path",
        "path": str(PAGES),
        "members": ["decisions/*.md"],
        "format": "text",
        "language": "en",
        "licence": "Apache-2.0",
        "held_out": 0.2,
    }
    recipe = {"source": [source], "tokenizer": {"vocab_size": 300}}
    prepare(DataRecipe.from_dict(recipe, folder=folder), folder)
    return folder


def tiny_recipe(data: Path, **changes: Mapping[str, Any] | Any) -> Recipe:
    """A mixture of experts of two layers, 12 steps of 4 sequences of 32 tokens. Tables in `changes` are merged."""
    values: dict[str, Any] = {
        "name": "tiny",
        "data": {"folder": str(data)},
        "model": {"size": 0.5, "config": {"num_hidden_layers": 2}},
        "stage": {"steps": 12, "batch_size": 4, "sequence_length": 32, "learning_rate": 5e-3},
        "training": {"load_every": 4},
        "evaluation": {"every": 6, "batches": 1, "prompts": ["The"], "sample_tokens": 4},
        "checkpoints": {"every": 4},
    }
    for key, value in changes.items():
        values[key] = {**values.get(key, {}), **value} if isinstance(value, Mapping) else value
    return Recipe.from_dict(values)


class Listener:
    """Keeps what a run tells. on_step: called with each record, to interfere."""

    def __init__(self, on_step: Any = None) -> None:
        self.notes: list[str] = []
        self._on_step = on_step

    def step(self, record: Mapping[str, Any], plan: Plan) -> None:
        if self._on_step is not None:
            self._on_step(record)

    def note(self, text: str) -> None:
        self.notes.append(text)


def train(recipe: Recipe, run: Path, listener: Listener | None = None, **options: Any) -> Outcome:
    assert recipe.data.folder is not None
    return Trainer(recipe, run, Path(recipe.data.folder)).run(listener or Listener(), **options)


def numbers(run: Path, log: str = "log.jsonl") -> list[dict[str, Any]]:
    """A log without what no two runs have in common."""
    return [{key: value for key, value in line.items() if key not in UNEQUAL} for line in lines(run, log)]


def lines(run: Path, log: str = "log.jsonl") -> list[dict[str, Any]]:
    import json

    path = run / log
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def weights(run: Path, checkpoint: str = "final") -> bytes:
    """Of the model and of the optimiser, as they lie in the files."""
    folder = RunFolder(run).checkpoints / checkpoint
    return (folder / "model.safetensors").read_bytes() + (folder / "optimiser.safetensors").read_bytes()


def use_one_thread() -> None:
    torch.set_num_threads(1)
