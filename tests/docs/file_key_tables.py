"""The half of docs/compatibility.md that lists keys of model files. Run it after changing what a family reads."""

import re
import sys
from pathlib import Path

from deepseek.config import ModelConfig
from deepseek.families import config_from_hf, config_to_gguf, gguf_reader, hf_reader
from deepseek.families.family import GgufSource
from deepseek.families.gguf_keys import READ_BY_LLAMA_CPP
from deepseek.families.reference_keys import READ, ROPE, SHARED, TRANSFORMERS
from deepseek.families.unread import WITHOUT_EFFECT_GGUF, WITHOUT_EFFECT_HF

sys.path.insert(0, str(Path(__file__).parent.parent / "families"))  # where it runs as a script
from real_key_sets import PUBLISHED, tiny

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "compatibility.md"
BEGIN, END = "<!-- file-keys -->\n", "<!-- /file-keys -->"
FAMILIES = ("llama", "qwen2", "qwen3", "deepseek", "deepseek_v2", "deepseek_v3", "deepseek_v32", "glm4_moe")
ARCHITECTURES = {
    "llama": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "deepseek": "deepseek",
    "deepseek2": "deepseek_v3",
    "deepseek32": "deepseek_v32",
}
_ROPE = ("linear", "llama3", "yarn")
COMPUTED, NEUTRAL, NOT_READ = "computed", "neutral", ""


def file_key_tables() -> str:
    computed = {family: _asked_of_hf(family) for family in FAMILIES}
    read = {family: (READ.get(family, frozenset()) | SHARED) - WITHOUT_EFFECT_HF for family in FAMILIES}
    written = {name: _asked_of_gguf(name, family) for name, family in ARCHITECTURES.items()}
    known = {name: READ_BY_LLAMA_CPP[name] - WITHOUT_EFFECT_GGUF for name in ARCHITECTURES}
    rope = {kind: ROPE[kind] | {"rope_type", "type"} for kind in _ROPE}
    parts = (
        f"### config.json, by `model_type` (Transformers {TRANSFORMERS})\n",
        _table({name: each - WITHOUT_EFFECT_HF for name, each in computed.items()}, read),
        "\n### rope_scaling, rope_parameters, by type\n",
        _table(rope, rope),
        "\n### GGUF header, under the architecture's name (llama.cpp)\n",
        _table({name: each - WITHOUT_EFFECT_GGUF for name, each in written.items()}, known),
    )
    return "\n".join(parts)


def _asked_of_hf(family: str) -> set[str]:
    found = {"model_type"}
    published = [values for values in PUBLISHED.values() if values["model_type"] == family]
    for values in (tiny(family), *published):
        reader, named = hf_reader(values, "config.json")
        named.from_hf(reader)
        found |= reader.asked
    return found


def _asked_of_gguf(architecture: str, family: str) -> set[str]:
    """Every key that is asked for of the header that is written of a tiny model with YaRN, where it has one."""
    yarn = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "mscale": 1.0, "mscale_all_dim": 1.0}
    config: ModelConfig = config_from_hf(tiny(family, rope_scaling=yarn))
    shapes = dict.fromkeys(("token_embd.weight", "output.weight"), (config.vocab_size, config.hidden_size))
    reader, named = gguf_reader(config_to_gguf(config), shapes, "GGUF metadata")
    named.from_gguf(GgufSource(reader=reader, shapes=shapes))
    return {key.removeprefix(f"{architecture}.") for key in reader.asked}


def _table(computed: dict[str, set[str]] | dict[str, frozenset[str]], read: dict[str, frozenset[str]]) -> str:
    """A row for each key; keys with the same row share it."""
    columns = list(computed)
    rows: dict[tuple[str, ...], list[str]] = {}
    for key in sorted({key for column in columns for key in computed[column] | read[column]}):
        row = tuple(_verdict(key, computed[column], read[column]) for column in columns)
        rows.setdefault(row, []).append(key)
    lines = [
        f"| {', '.join(f'`{key}`' for key in keys)} | {' | '.join(row)} |"
        for row, keys in sorted(rows.items(), reverse=True)
    ]
    head = f"| key | {' | '.join(f'`{column}`' for column in columns)} |"
    return "\n".join((head, "|---" * (len(columns) + 1) + "|", *lines))


def _verdict(key: str, computed: set[str] | frozenset[str], read: frozenset[str]) -> str:
    return COMPUTED if key in computed else NEUTRAL if key in read else NOT_READ


def with_file_keys(text: str) -> str:
    marked = re.compile(rf"({BEGIN}).*?({END})", re.DOTALL)
    return marked.sub(lambda found: f"{found[1]}\n{file_key_tables()}\n\n{found[2]}", text)


if __name__ == "__main__":
    DOCUMENT.write_text(with_file_keys(DOCUMENT.read_text()))
