"""A ModelConfig from JSON that may be hostile: every value must be of the type that its field declares."""

import dataclasses
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from deepseek.config import ModelConfig
from deepseek.errors import ConfigError


def config_from_json(values: Any) -> ModelConfig:
    """The inverse of `ModelConfig.to_dict` after a way through JSON. Raises ConfigError naming the key."""
    _check_fields(ModelConfig, values, "")
    return ModelConfig.from_dict(values)


def _check_fields(cls: type, values: Any, where: str) -> None:
    if not isinstance(values, dict):
        raise ConfigError(f"{where or 'the configuration'} must be an object, not {str(values)[:40]!r}")
    hints = get_type_hints(cls)
    for key, value in values.items():
        if key in hints:  # from_dict tells of unknown and missing keys
            _check(hints[key], value, f"{where}.{key}" if where else key)


def _check(hint: Any, value: Any, where: str) -> None:
    part = next((part for part in _choices(hint) if dataclasses.is_dataclass(part)), None)
    if part is not None and value is not None:
        assert isinstance(part, type)
        _check_fields(part, value, where)
    elif not any(_fits(choice, value) for choice in _choices(hint)):
        raise ConfigError(f"{where} is {str(value)[:40]!r}, which is not of its type")


def _choices(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) is UnionType else (hint,)


def _fits(hint: Any, value: Any) -> bool:
    """JSON has no tuples, and writes a whole float as it likes."""
    if hint is NoneType:
        return value is None
    if hint is float:
        return type(value) in (int, float)
    if get_origin(hint) is Literal:
        return type(value) is str and value in get_args(hint)
    if get_origin(hint) is tuple:
        items = get_args(hint)
        lengths_fit = isinstance(value, list) and (items[-1] is Ellipsis or len(value) == len(items))
        return lengths_fit and all(_fits(items[0], item) for item in value)
    return type(value) is hint
