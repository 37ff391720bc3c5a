"""API keys: read once, kept as digests, compared without telling by time how much of a guess was right."""

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from deepseek.errors import ConfigError
from deepseek.server.access.quotas import Quota

_MOST_FILE_BYTES = 1 << 20
_NAME = re.compile(r"[\w.@-]{1,64}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class KeySettings:
    """An entry of a keys file. key or sha256 (of the key, in hex): one of them. name: for logs.

    tenant: whose cached prompts it shares; without one its own name's. Limits: None is none.
    """

    name: str
    key: str | None = None
    sha256: str | None = None
    tenant: str | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_day: int | None = None
    max_concurrent: int | None = None

    def __post_init__(self) -> None:
        for name in ("name", "tenant"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, str) and _NAME.fullmatch(value)):
                raise ConfigError(f"{name} must be 1 to 64 letters, digits or . @ - _, not {value!r:.100}")
        if (self.key is None) == (self.sha256 is None):
            raise ConfigError(f"{self.name}: give key or sha256")
        if self.key is not None and not (isinstance(self.key, str) and self.key):
            raise ConfigError(f"{self.name}: key must be a text in quotes")
        if self.sha256 is not None and not (isinstance(self.sha256, str) and _DIGEST.fullmatch(self.sha256)):
            raise ConfigError(f"{self.name}: sha256 must be 64 hexadecimal digits")
        for name in ("requests_per_minute", "tokens_per_minute", "tokens_per_day", "max_concurrent"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise ConfigError(f"{self.name}: {name} must be a whole number above 0, not {value!r:.100}")

    @property
    def digest(self) -> bytes:
        return _digest(self.key) if self.key is not None else bytes.fromhex(self.sha256 or "")


class ApiKey:
    """A key that was found. tenant: "" where all share. owner: of stored files, the same after any restart."""

    def __init__(self, settings: KeySettings, tenant: str, owner: str) -> None:
        self.name = settings.name
        self.tenant = tenant
        self.owner = owner
        self.digest = settings.digest
        self.quota = Quota(
            requests_per_minute=settings.requests_per_minute,
            tokens_per_minute=settings.tokens_per_minute,
            tokens_per_day=settings.tokens_per_day,
            max_concurrent=settings.max_concurrent,
        )


class Keyring:
    """All keys of a server; with none, everybody may use it."""

    def __init__(self, keys: Iterable[str], file: str | None) -> None:
        """keys: from the command line or the environment, unlimited. Raises ConfigError naming the file and entry."""
        plain = [KeySettings(name=f"key-{number}", key=key) for number, key in enumerate(keys, start=1)]
        listed = plain + (_read(Path(file)) if file is not None else [])
        for what in ("name", "digest"):
            if len({getattr(one, what) for one in listed}) < len(listed):
                raise ConfigError(f"two API keys have the same {'name' if what == 'name' else 'key'}: change one")
        alone = len(listed) == 1
        self._keys = [
            ApiKey(one, "" if alone else one.tenant or one.name, _owner(one, is_named=place >= len(plain)))
            for place, one in enumerate(listed)
        ]

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, given: str | None) -> ApiKey | None:
        """The key that was given; looks at all of them, whichever it is."""
        digest = _digest(given or "")
        found = None
        for key in self._keys:
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found if given else None

    def payer(self, owner: str, name: str | None) -> ApiKey | None:
        """The key of that name if it is this owner's, else another one of the owner."""
        own = [key for key in self._keys if key.owner == owner]
        return next((key for key in own if key.name == name), own[0] if own else None)


def _owner(settings: KeySettings, *, is_named: bool) -> str:
    """A key without a name of its own, whose place on the command line may change, is known by its digest."""
    if is_named:
        return f"tenant {settings.tenant}" if settings.tenant is not None else f"key {settings.name}"
    return f"digest {hashlib.sha256(b'owner' + settings.digest).hexdigest()}"


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _read(path: Path) -> list[KeySettings]:
    import yaml

    try:
        with path.open("rb") as file:
            content = yaml.safe_load(file.read(_MOST_FILE_BYTES))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML ({type(error).__name__}): mend --api-key-file") from None
    entries = content.get("keys") if isinstance(content, dict) and content.keys() == {"keys"} else None
    if not isinstance(entries, list) or not entries:
        raise ConfigError(f"{path}: must hold `keys:` and under it a list of entries with name and key")
    return [_entry(path, place, entry) for place, entry in enumerate(entries)]


def _entry(path: Path, place: int, entry: Any) -> KeySettings:
    known = [each.name for each in fields(KeySettings)]
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{path}: keys[{place}] must be an entry with name and key")
    if unknown := sorted(str(name) for name in entry.keys() - set(known)):
        raise ConfigError(f"{path}: keys[{place}] has an unknown {unknown[0]!r}; known are {', '.join(known)}")
    if "name" not in entry:
        raise ConfigError(f"{path}: keys[{place}] must have a name")
    try:
        return KeySettings(**entry)
    except ConfigError as error:
        raise ConfigError(f"{path}: keys[{place}]: {error}") from None
