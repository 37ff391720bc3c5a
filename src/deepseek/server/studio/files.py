"""The files of the studio, by name, with the headers that keep a page showing hostile text safe."""

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).parent
_MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".woff2": "font/woff2",
}

# Model output is hostile. Should any of it ever reach the page as markup, the browser still runs and loads nothing of
# it: only our files are scripts and styles, only DOMPurify may make markup out of a string.
_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "font-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types dompurify",
    ]
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    # Kept, but asked for again each time: a new version of the server shows its own page at once.
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class StudioFile:
    """body: as it goes over the wire; etag: quoted, changes with the body; headers: all but type, length and etag."""

    body: bytes
    media_type: str
    etag: str
    headers: dict[str, str]


@cache
def _names() -> dict[str, Path]:
    """What may be served, listed once: a name from outside is looked up here and never joined to a path."""
    return {
        path.relative_to(_FOLDER).as_posix(): path
        for path in sorted(_FOLDER.rglob("*"))
        if path.suffix in _MEDIA_TYPES and path.is_file()
    }


@cache
def _read(name: str) -> StudioFile:
    path = _names()[name]
    body = path.read_bytes()
    return StudioFile(
        body=body,
        media_type=_MEDIA_TYPES[path.suffix],
        etag=f'"{hashlib.sha256(body).hexdigest()[:32]}"',
        headers=dict(_HEADERS),
    )


def studio_file(name: str) -> StudioFile | None:
    """`index.html` is the page; every other name is what follows `/studio/` in its address. None: no such file."""
    return _read(name) if name in _names() else None


def read_all() -> None:
    """Read every file now, so that none has to be opened later."""
    for name in _names():
        _read(name)
