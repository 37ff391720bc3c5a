"""Standard streams as they come: closed, full, in another encoding, or with a reader that has left."""

import contextlib
import errno
import io
import os
import sys

from deepseek.errors import GenerationError

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


def prepare() -> None:
    """What the output's encoding lacks is escaped (`\\U0001f600`); a closed stream keeps nothing."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  it stays open to the end
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def abandon_stdout() -> None:
    """What is still in its buffer goes nowhere, so that Python's own flush at the end has nothing to complain about."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def fault_of(error: OSError) -> str | None:
    """One line for an error of the system; None for one that is no fault of the surroundings."""
    if error.errno in _NO_SPACE:
        return f"no space left on the device{f' for {error.filename}' if error.filename else ' (standard output)'}"
    if error.filename is None:
        return None
    return f"{error.filename}: {error.strerror}"


def speaks_unicode() -> bool:
    """Whether standard output can take any character."""
    return (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "").startswith("utf")


def read_stdin() -> str:
    """All of standard input, which is UTF-8 whatever the locale says. Raises GenerationError."""
    if sys.stdin is None:
        return ""
    raw = getattr(sys.stdin, "buffer", None)
    if raw is None:
        return sys.stdin.read()
    return _decoded(raw.read(), "standard input")


def argument_text(value: str, name: str) -> str:
    """A text from the command line. Raises GenerationError for one that is not UTF-8."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return _decoded(os.fsencode(value), name)
    return value


def _decoded(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise GenerationError(
            f"{name} is not UTF-8: byte {error.start} is 0x{data[error.start]:02x}; convert it first, for example with "
            "`iconv -f latin1 -t utf-8`"
        ) from None
