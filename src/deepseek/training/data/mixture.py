"""How much of each source a run reads, stage by stage (a curriculum)."""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Self

from deepseek.errors import ConfigError

_STAGE_KEYS = ("shares", "until_tokens", "sequence_length", "batch_size")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What is read until `until_tokens` tokens of the whole run have been (None: to its end).

    shares: of tokens, by source; any positive numbers, their sum counts as the whole; 0 leaves a source out.
    sequence_length, batch_size: of this stage, where they differ from those of the run.
    """

    shares: Mapping[str, float]
    until_tokens: int | None = None
    sequence_length: int | None = None
    batch_size: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.shares, Mapping) or not self.shares:
            raise ConfigError("shares must name at least one source, as in {prose = 0.7, code = 0.3}")
        for source, share in self.shares.items():
            if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share < math.inf:
                raise ConfigError(f"shares.{source} must be a number, 0 or more, not {share!r}")
        if not any(self.shares.values()):
            raise ConfigError("shares are all 0: give at least one source a share")
        for name in ("until_tokens", "sequence_length", "batch_size"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ConfigError(f"{name} must be a whole number above 0, not {value!r}")
        object.__setattr__(self, "shares", MappingProxyType(dict(self.shares)))

    def __reduce__(self) -> tuple[Any, ...]:  # a mapping proxy does not pickle, and workers get mixtures
        return _stage, (dict(self.shares), self.until_tokens, self.sequence_length, self.batch_size)


def _stage(shares: dict[str, float], until: int | None, length: int | None, batch: int | None) -> Stage:
    return Stage(shares=shares, until_tokens=until, sequence_length=length, batch_size=batch)


@dataclass(frozen=True)
class Mixture:
    """Stages in order. All but the last say when they end; the last lasts as long as the run."""

    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        if not self.stages:
            raise ConfigError("a mixture has at least one stage")
        ends = [stage.until_tokens for stage in self.stages]
        if ends[-1] is not None:
            raise ConfigError("until_tokens of the last stage must be left out: it lasts as long as the run")
        told = [end for end in ends[:-1] if end is not None]
        if len(told) != len(ends) - 1 or any(a >= b for a, b in itertools.pairwise(told)):
            raise ConfigError("until_tokens must grow from stage to stage, and only the last stage goes without")

    @classmethod
    def of(cls, shares: Mapping[str, float]) -> Self:
        """One stage."""
        return cls((Stage(shares=shares),))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """`{"shares": {...}}` for one stage, `{"stages": [{"until_tokens": ..., "shares": {...}}, ...]}` for several.

        Raises ConfigError naming what is unknown or wrong.
        """
        if "stages" not in values:
            return cls((_stage_of(values, "mixture"),))
        if unknown := sorted(values.keys() - {"stages"}):
            raise ConfigError(f"unknown key mixture.{unknown[0]} beside mixture.stages: put it into a stage")
        stages = values["stages"]
        if not isinstance(stages, list | tuple):
            raise ConfigError("mixture.stages must be a list of stages")
        return cls(tuple(_stage_of(stage, f"mixture.stages[{place}]") for place, stage in enumerate(stages)))

    def to_dict(self) -> dict[str, Any]:
        """As `from_dict` takes it."""
        stages = [{key: getattr(stage, key) for key in _STAGE_KEYS} for stage in self.stages]
        return {"stages": [_told({**stage, "shares": dict(stage["shares"])}) for stage in stages]}

    @property
    def sources(self) -> tuple[str, ...]:
        """Every source that some stage reads, in alphabetical order."""
        return tuple(sorted({name for stage in self.stages for name, share in stage.shares.items() if share}))


def _stage_of(values: Any, where: str) -> Stage:
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where} must be a table with shares, not {values!r:.60}")
    if unknown := sorted(values.keys() - set(_STAGE_KEYS)):
        raise ConfigError(f"unknown key {where}.{unknown[0]}; known are {', '.join(_STAGE_KEYS)}")
    if "shares" not in values:
        raise ConfigError(f"missing key {where}.shares")
    try:
        return Stage(**values)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def _told(stage: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in stage.items() if value is not None}
