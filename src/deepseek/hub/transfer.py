"""One file over HTTP, continued where an earlier run was cut, accepted only with the announced size and hash.

huggingface_hub (2.4) starts a file anew after the process died; checkpoints come in shards of several gigabytes, so
the bytes are moved here, with its session, headers and addresses, and handed to its cache when they are proven.
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import BinaryIO

from deepseek.errors import HubError
from deepseek.hub.listing import RemoteFile
from deepseek.hub.record import CHUNK, git_hasher

ATTEMPTS = 5  # in a row without a new byte
PAUSE_SECONDS = 1.0
_PASSING = {408, 425, 429, 500, 502, 503, 504}


class WrongContent(HubError):
    """What arrived is not what was announced."""


def transport_errors() -> tuple[type[Exception], ...]:
    """Every way in which the network itself can fail, for whichever HTTP client huggingface_hub uses."""
    from huggingface_hub.errors import HfHubHTTPError

    client = next(base for base in HfHubHTTPError.__mro__ if base.__name__ == "HTTPError")
    return (client, ConnectionError, TimeoutError)


class Part:
    """What has arrived of a file, on the disk, with the hash of it.

    `arrived` is told of every byte as it comes, also of those an earlier run left, and negatively of bytes thrown
    away; what it raises ends the transfer and leaves the part for the next run.
    """

    def __init__(self, path: Path, file: RemoteFile, arrived: Callable[[int], None]) -> None:
        self.path, self.file, self.arrived = path, file, arrived
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        self.have = 0
        self._hasher = self._new_hasher()
        self._take_up()

    def _new_hasher(self) -> "hashlib._Hash":
        return git_hasher(self.file.size) if self.file.digest.startswith("git:") else hashlib.sha256()

    def _take_up(self) -> None:
        with self.path.open("r+b") as source:
            if os.fstat(source.fileno()).st_size > self.file.size:  # cannot be right
                source.truncate(0)
            while block := source.read(CHUNK):
                self._count(block)

    def _count(self, block: bytes) -> None:
        self._hasher.update(block)
        self.have += len(block)
        self.arrived(len(block))

    def append(self, out: BinaryIO, blocks: Iterable[bytes]) -> None:
        """Write on at `have`, never past the announced size."""
        out.seek(self.have)
        for block in blocks:
            if self.have + len(block) > self.file.size:
                raise WrongContent(f"{self.file.name} is longer than the {self.file.size} bytes that the hub announced")
            out.write(block)
            self._count(block)

    def restart(self, out: BinaryIO) -> None:
        """Throw away what is there."""
        out.truncate(0)
        self.arrived(-self.have)
        self.have, self._hasher = 0, self._new_hasher()

    def accept(self, target: Path) -> None:
        """Rename to `target` if every byte is right."""
        digest = f"{self.file.digest.partition(':')[0]}:{self._hasher.hexdigest()}"
        if digest != self.file.digest:
            raise WrongContent(f"{self.file.name} arrived with {digest}, but the hub announced {self.file.digest}")
        with self.path.open("r+b") as written:
            os.fsync(written.fileno())
        os.replace(self.path, target)


def fetch(url: str, headers: Mapping[str, str], part: Part, target: Path) -> None:
    """Complete `part` from `url` and move it to `target`, on the same disk.

    A cut connection is taken up again where it broke, several times, before its error is raised. Raises WrongContent
    after removing a part that cannot be right.
    """
    try:
        _complete(url, headers, part)
        part.accept(target)
    except WrongContent:
        part.arrived(-part.have)
        part.path.unlink(missing_ok=True)
        raise


def _complete(url: str, headers: Mapping[str, str], part: Part) -> None:
    from huggingface_hub.errors import HfHubHTTPError

    failures = 0
    while part.have < part.file.size:
        before = part.have
        try:
            _stream(url, headers, part)
        except transport_errors() as error:
            if isinstance(error, HfHubHTTPError) and error.response.status_code not in _PASSING:
                raise
            failures = 1 if part.have > before else failures + 1
            if failures >= ATTEMPTS:
                raise
            time.sleep(PAUSE_SECONDS * failures)


def _stream(url: str, headers: Mapping[str, str], part: Part) -> None:
    """One request, from `part.have` on."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session, hf_raise_for_status  # type: ignore[attr-defined]

    asked = {**headers, "Accept-Encoding": "identity"} | ({"Range": f"bytes={part.have}-"} if part.have else {})
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    with (
        get_session().stream("GET", url, headers=asked, timeout=timeout, follow_redirects=True) as response,
        part.path.open("r+b") as out,
    ):
        if response.status_code == 416:
            raise WrongContent(f"{part.file.name}: the hub does not have byte {part.have} of it")
        hf_raise_for_status(response)
        if part.have and not _continues(response.headers.get("Content-Range"), part.have, response.status_code):
            part.restart(out)
        part.append(out, response.iter_bytes(CHUNK))


def _continues(content_range: str | None, have: int, status: int) -> bool:
    return status == 206 and (content_range or "").startswith(f"bytes {have}-")
