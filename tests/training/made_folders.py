"""Prepared folders without preparing: shards of numbers that say where they are from."""

import json
from collections.abc import Mapping
from pathlib import Path

from deepseek.training.data.shards import ShardWriter


def make_folder(folder: Path, sizes: Mapping[str, int], *, held_out: int, file_tokens: int = 300) -> Path:
    """Source number s (from 1) has tokens s * 10,000, s * 10,000 + 1, ...; held-out ones begin at 5,000."""
    for number, (name, size) in enumerate(sizes.items(), 1):
        first = number * 10_000
        with ShardWriter(folder / "shards" / name, 65_536, file_tokens) as writer:
            for start in range(0, size, 70):  # documents of 70 tokens
                writer.add("train", range(first + start, first + min(start + 70, size)))
            if held_out:
                writer.add("held_out", range(5000, 5000 + held_out))
            writer.finish("made")
    sources = {name: {"train_tokens": size, "share": 1.0} for name, size in sizes.items()}
    dataset = {"format": 1, "vocab_size": 65_536, "tokenizer": "tokenizer", "sources": sources}
    (folder / "dataset.json").write_text(json.dumps(dataset))
    return folder
