"""How the command line samples: the options that were given, over what the model's makers recommend."""

from dataclasses import replace
from typing import Any

from deepseek.sampling import SamplingParams


def given_options(**options: Any) -> dict[str, Any]:
    """Those that were given. Raises GenerationError for one that no model takes, before a model is fetched."""
    given = {name: value for name, value in options.items() if value is not None}
    SamplingParams(**given)
    return given


def over_recommended(model: str | None, revision: str | None, given: dict[str, Any]) -> SamplingParams:
    """The model must have been fetched. `given` also holds what a verb sets itself, such as max_tokens."""
    from deepseek.engine.recommended_sampling import recommended
    from deepseek.hub import DEFAULT_MODEL, resolve

    name = model or DEFAULT_MODEL
    return replace(SamplingParams(**recommended(resolve(name, revision=revision, offline=True).path, name)), **given)
