"""Reasoning turned on, off or to an effort, for chat templates that can be told so."""

from collections.abc import Mapping
from typing import Any

from deepseek.errors import GenerationError

_SWITCHES = ("enable_thinking", "thinking")


def switches(template: str) -> list[str]:
    """What a template reads to know whether the model is to reason."""
    return [name for name in _SWITCHES if name in template]


def with_effort(
    template: str, values: Mapping[str, Any] | None, effort: str | None, field: str = "reasoning_effort"
) -> dict[str, Any]:
    """The values that a template is given, with a reasoning effort.

    Raises GenerationError naming the request's field for a template that reads none.
    """
    told = dict(values or {})
    if effort is None:
        return told
    if "reasoning_effort" in template:
        told["reasoning_effort"] = effort
    elif effort == "none" and switches(template):
        told |= dict.fromkeys(switches(template), False)
    else:
        raise GenerationError(f"{field} cannot be set: this model's chat template does not read it")
    return told
