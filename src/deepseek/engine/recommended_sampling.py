"""How a model is sampled where nobody says how: the one source for server, studio, command line and `Engine.chat`.

The first of these that says something: `generation_config.json` beside the weights, the sampling keys of a GGUF header,
the catalog's entry of the model, and for a model of which nothing is known, what is safe for small ones.
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepseek.errors import DeepseekError, GenerationError
from deepseek.sampling import SamplingParams

if TYPE_CHECKING:
    from deepseek.hub.catalog import Entry

OF_UNKNOWN_MODELS: Mapping[str, Any] = {"temperature": 0.7, "top_p": 0.95}
"""At 1.0, the default of OpenAI's models, small and quantized ones ramble; at 0 barely trained ones loop."""
_NAMES = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
_GGUF_KEYS = {
    "general.sampling.temp": "temperature",
    "general.sampling.top_p": "top_p",
    "general.sampling.top_k": "top_k",
    "general.sampling.min_p": "min_p",
    "general.sampling.penalty_repeat": "repetition_penalty",
}
_MOST_BYTES = 1 << 20
_SUFFIX = re.compile(r"([-._](i?q\d\w*|[bf]+p?(16|32)|mxfp4)|-\d{5}-of-\d{5}|[-.]gguf)+$", re.IGNORECASE)


def recommended(model: Path, name: str | None = None) -> dict[str, Any]:
    """Fields of SamplingParams. model: its folder or file; name: as the user wrote it, if not as that path."""
    sources: tuple[Callable[[], Mapping[str, Any]], ...] = (
        lambda: _of_file(model / "generation_config.json"),
        lambda: _of_gguf(model),
        lambda: _of_catalog(model, name),
    )
    return dict(next((found for source in sources if (found := source())), OF_UNKNOWN_MODELS))


def _of_file(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            config = json.loads(file.read(_MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(config, dict):
        return {}
    return {"temperature": 0.0} if config.get("do_sample") is False else _usable(config)


def _of_gguf(path: Path) -> dict[str, Any]:
    from deepseek.checkpoint.gguf import read_gguf_metadata

    if path.suffix != ".gguf" or not path.is_file():
        return {}
    try:
        metadata = read_gguf_metadata(path)
    except DeepseekError:
        return {}
    return _usable({name: metadata.get(key) for key, name in _GGUF_KEYS.items()})


def _usable(values: Mapping[str, Any]) -> dict[str, Any]:
    """What can be used of it: files come from anywhere."""
    found: dict[str, Any] = {}
    for name in _NAMES:
        value = values.get(name)
        if value is None:
            continue
        try:
            SamplingParams(**{name: value})
        except GenerationError:
            continue
        found[name] = value
    return found


def _of_catalog(model: Path, name: str | None) -> Mapping[str, Any]:
    entry = (_entry_named(name) if name else None) or _entry_named(model.name)
    return entry.sampling if entry else {}


def _entry_named(name: str) -> "Entry | None":
    """By its name, its source, or as files of it are called: `Qwen3-0.6B-Q8_0.gguf`."""
    from deepseek.hub.catalog import entries

    wanted = name.lower()
    bare = _SUFFIX.sub("", wanted)
    for entry in entries():
        sources = {source.lower() for source in entry.sources}
        names = {entry.name, *entry.aliases, *sources, *(source.partition("==")[0] for source in sources)}
        if wanted in names:
            return entry
        if entry.repo and bare == entry.repo.rpartition("/")[2].lower():
            return entry
        if any(Path(pin.member).name.lower() == wanted for pin in entry.wheels):
            return entry
        if entry.joined and entry.joined.name.lower() == wanted:
            return entry
    return None
