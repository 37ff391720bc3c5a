"""Reasoning turned on, off or to an effort, for chat templates that read such a setting. For others these are hints."""

from collections.abc import Mapping
from typing import Any

from deepseek.server.protocol.ignored_fields import ignore

_SWITCHES = ("enable_thinking", "thinking")


def switches(template: str) -> list[str]:
    """What a template reads to know whether the model is to reason."""
    return [name for name in _SWITCHES if name in template]


def with_effort(
    template: str, values: Mapping[str, Any] | None, effort: str | None, field: str = "reasoning_effort"
) -> dict[str, Any]:
    """The values that a template is given, with a reasoning effort; one that reads none is given nothing.

    field: of the request, recorded as ignored then.
    """
    told = dict(values or {})
    if effort is None:
        return told
    if "reasoning_effort" in template:
        told["reasoning_effort"] = effort
    elif effort == "none" and switches(template):
        told |= dict.fromkeys(switches(template), False)
    else:
        ignore(field)
    return told


def with_thinking(template: str, values: Mapping[str, Any], wanted: bool | None, field: str) -> dict[str, Any]:
    """The same with reasoning turned on or off; None: as it is."""
    names = switches(template)
    if wanted is not None and not names:
        ignore(field)
    return {**values, **({} if wanted is None else dict.fromkeys(names, wanted))}


def usable_budget(budget: int | None, *, reasons: bool, field: str) -> int | None:
    """Tokens of reasoning at most. Below 0, and for a model that does not reason, nothing is bounded."""
    if budget is None or budget < 0:
        return None
    if not reasons:
        ignore(field)
        return None
    return budget
