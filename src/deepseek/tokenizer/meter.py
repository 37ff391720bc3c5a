"""The budget of one rendering of a chat template: steps, characters, containers, time.

Steps are counted, so the same template stops at the same place on any machine; the clock is a second net. Nothing
here needs a signal or a thread, so a render can be limited from any thread.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from deepseek.errors import TokenizerError


@dataclass(frozen=True, kw_only=True)
class TemplateLimits:
    """What one chat template may use. Characters count what the template builds, not only what it prints."""

    source_characters: int = 256 * 1024
    output_characters: int = 16 * 1024 * 1024
    string_characters: int = 16 * 1024 * 1024
    built_characters: int = 256 * 1024 * 1024
    container_items: int = 1_000_000
    steps: int = 5_000_000
    seconds: float = 10.0


class TemplateLimitError(TokenizerError):
    """A chat template asked for more than its limits allow."""


class Meter:
    """Counts what one rendering uses and raises `TemplateLimitError` when a limit is passed."""

    def __init__(self, limits: TemplateLimits) -> None:
        self.limits = limits
        self._steps = 0
        self._built = 0
        self._deadline = time.monotonic() + limits.seconds

    def step(self, cost: int = 1) -> None:
        self._steps += cost
        if self._steps > self.limits.steps:
            raise TemplateLimitError(f"the chat template took more than {self.limits.steps:,} steps")
        if time.monotonic() > self._deadline:
            raise TemplateLimitError(f"the chat template ran longer than {self.limits.seconds:g} seconds")

    def text(self, characters: int) -> None:
        """Ask for a string of this length before it is built."""
        if characters > self.limits.string_characters:
            raise TemplateLimitError(
                f"the chat template built a string of more than {self.limits.string_characters:,} characters"
            )
        self._built += characters
        if self._built > self.limits.built_characters:
            raise TemplateLimitError(f"the chat template built more than {self.limits.built_characters:,} characters")
        self.step()

    def items(self, count: int) -> None:
        """Ask for a container of this many items before it is built."""
        if count > self.limits.container_items:
            raise TemplateLimitError(
                f"the chat template built a list of more than {self.limits.container_items:,} items"
            )
        self.step(1 + count // 8)

    def admit(self, value: Any) -> Any:
        """Check a value that an operation has just built, and return it."""
        if isinstance(value, str):
            self.text(len(value))
        elif isinstance(value, int):
            integer(value)
        elif isinstance(value, (list, tuple, dict, set)):
            self.items(weigh(value, self.limits.container_items))
        return value

    def iterate(self, values: Iterable[Any]) -> Iterator[Any]:
        for value in values:
            self.step()
            yield value

    def join(self, parts: Iterable[Any]) -> str:
        pieces = [part if isinstance(part, str) else str(part) for part in parts]
        self.text(sum(map(len, pieces)))
        return "".join(pieces)


def integer(value: int) -> int:
    if value.bit_length() > 256:
        raise TemplateLimitError("the chat template built an integer of more than 256 bits")
    return value


def weigh(value: Any, limit: int) -> int:
    """Items below a container plus one for every 16 characters, what is shared counted each time; stops at the limit.

    Each time, because printing or comparing walks every path: forty lists [x, x] inside each other are 2**40 items.
    """
    count = 0
    stack = [iter((value,))]
    while stack and count <= limit:
        for item in stack[-1]:
            count += 1 + (len(item) // 16 if isinstance(item, str) else 0)
            if isinstance(item, Mapping):
                stack.append(iter((*item.keys(), *item.values())))
                break
            if isinstance(item, (list, tuple, set)):
                stack.append(iter(item))
                break
            if count > limit:
                break
        else:
            stack.pop()
    return count


_current: ContextVar[Meter | None] = ContextVar("deepseek_template_meter", default=None)


def current() -> Meter:
    """The meter of the rendering under way. Outside one (a template being compiled) every request is refused."""
    meter = _current.get()
    if meter is None:
        raise TemplateLimitError("a chat template may not compute while it is compiled")
    return meter


class metered:
    """Context manager: within it `current()` is the given meter."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def __enter__(self) -> Meter:
        self._token = _current.set(self._meter)
        return self._meter

    def __exit__(self, *error: object) -> None:
        _current.reset(self._token)
