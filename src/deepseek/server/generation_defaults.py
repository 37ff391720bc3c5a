"""Sampling that a model's makers recommend: what `generation_config.json` beside its weights says."""

import json
from pathlib import Path
from typing import Any

from deepseek.errors import GenerationError
from deepseek.sampling import SamplingParams

_NAMES = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
_MOST_BYTES = 1 << 20


def recommended(model: Path) -> dict[str, Any]:
    """Fields of SamplingParams; empty where there is no such file, or none that can be used."""
    try:
        with (model / "generation_config.json").open("rb") as file:
            config = json.loads(file.read(_MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(config, dict) or config.get("do_sample") is False:
        return {}
    found = {}
    for name in _NAMES:
        if config.get(name) is None:
            continue
        try:
            SamplingParams(**{name: config[name]})
        except GenerationError:
            continue
        found[name] = config[name]
    return found
