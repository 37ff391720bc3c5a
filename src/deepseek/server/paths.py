"""Which route a path means, for clients whose base address has a slash, a /v1 or a prefix too many or too few."""

import difflib
import re
from collections.abc import Iterable, Iterator

from starlette.routing import BaseRoute, Route

API = "/v1"
_SLASHES = re.compile("/{2,}")


class Paths:
    """The paths of an application."""

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        self._fixed: dict[str, set[str]] = {}
        self._patterns: list[tuple[re.Pattern[str], set[str]]] = []
        for route in routes:
            if isinstance(route, Route):
                methods = set(route.methods or ())
                if "{" in route.path:
                    self._patterns.append((route.path_regex, methods))
                else:
                    self._fixed.setdefault(route.path, set()).update(methods)

    def resolve(self, path: str) -> str:
        """The path of a route that is meant by this one; where there is none, the path without superfluous slashes."""
        if path in self._fixed:
            return path
        clean = _SLASHES.sub("/", path)
        clean = clean.rstrip("/") or "/"
        return next((candidate for candidate in _candidates(clean) if self._is_known(candidate)), clean)

    def methods(self, path: str) -> list[str]:
        """What may be done at a path; nothing at one that is not known."""
        found = set(self._fixed.get(path, ()))
        found.update(*(methods for regex, methods in self._patterns if regex.match(path)))
        if "GET" in found:
            found.add("HEAD")
        return sorted({*found, "OPTIONS"}) if found else []

    def similar(self, path: str) -> str | None:
        """A path that somebody may have meant who came to this one in vain."""
        near = difflib.get_close_matches(path[:200], [*self._fixed], n=1, cutoff=0.75)
        return near[0] if near else None

    def _is_known(self, path: str) -> bool:
        return path in self._fixed or any(regex.match(path) for regex, _ in self._patterns)


def _candidates(path: str) -> Iterator[str]:
    for tail in dict.fromkeys((path, path[max(0, path.rfind(f"{API}/")) :])):  # /v1/v1/models, /api/v1/models
        yield tail
        yield tail.removeprefix(API) if tail.startswith(f"{API}/") else API + tail  # /v1/health, /chat/completions
