"""Which names and which web pages may reach the server from a browser.

DNS rebinding: a stranger's page lets its own name point to this machine, so that the browser takes the server for part
of the page. Such a request carries the stranger's name in Host. It must be a name that strangers can own: one with a
dot below a top-level domain of the public DNS. Addresses in numbers, names of one label and names below the domains
that are never registered cannot be theirs. See docs/decisions/026-hosts-and-origins.md.
"""

import ipaddress
import re
import socket
from collections.abc import Iterable, Sequence

from deepseek.server.errors import ApiError

ANY = "*"
_HOST = re.compile(r"(\[[0-9a-fA-F:.%]+\]|[A-Za-z0-9_.-]+)(?::\d{0,5})?")
_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://([^\s/?#]*)")
_WEB_SCHEMES = frozenset(("http", "https", "ws", "wss", "ftp", "gopher"))  # of addresses that strangers serve
_LOCAL_DOMAINS = frozenset((
    "localhost", "local", "internal", "home.arpa", "test", "invalid",  # reserved by RFCs and ICANN
    "lan", "home", "corp", "intranet", "private", "localdomain",  # used in private networks, not in the public DNS
))  # fmt: skip


class Origins:
    """hosts, origins: what is allowed beside local names and pages of this machine; `*.example.com`: all below it."""

    def __init__(self, own: str, hosts: Iterable[str], origins: Iterable[str]) -> None:
        named = {host.lower().rstrip(".") for host in (own, socket.gethostname(), *hosts)}
        self._domains = tuple(host.removeprefix("*") for host in named if host.startswith(("*.", ".")))
        self._hosts = named
        self._origins = {origin.lower().rstrip("/") for origin in origins}

    def check_host(self, given: Sequence[str], http_version: str = "1.1") -> None:
        """Raises ApiError for names that are not allowed. given: all Host headers of a request."""
        if len(given) > 1:
            raise ApiError(400, "the request has two Host headers: send one")
        if ANY in self._hosts or (not given and http_version == "1.0"):  # no browser leaves it out
            return
        match = _HOST.fullmatch(given[0]) if given else None
        if match is None:
            raise ApiError(400, "the Host header must be a name or an address")
        name = match[1].lower().rstrip(".")
        if name not in self._hosts and not name.endswith(self._domains) and not _is_local(name):
            raise ApiError(
                403,
                f"this server is not known as {name!r:.200}: start it with --allowed-hosts {name:.200}, or set "
                "--api-key, which turns this check off",
                code="host",
            )

    def check_origin(self, origin: str | None, host: str) -> bool:
        """Whether the answer needs CORS headers for this origin. Raises ApiError for what is not allowed."""
        if origin is None:
            return False
        lowered = origin.lower()
        match = _ORIGIN.fullmatch(lowered)
        if match is not None and match[1] in _WEB_SCHEMES and match[2] and match[2] == host.lower():
            return False
        if ANY in self._origins or lowered in self._origins:
            return True
        if match is not None and _is_own_page(match[1], match[2], host):
            return True
        hint = "null, which sandboxed frames and opened files send" if lowered == "null" else f"{lowered:.200}"
        message = f"pages of this origin may not use the API: start the server with --allowed-origins {hint}"
        raise ApiError(403, message, code="origin")


def _is_own_page(scheme: str, netloc: str, host: str) -> bool:
    """Apps and browser extensions, whose origins no web page has; pages of this machine at any port."""
    if scheme not in _WEB_SCHEMES:
        return True
    page, served = _HOST.fullmatch(netloc), _HOST.fullmatch(host.lower())
    if page is None:
        return False
    return _is_loopback(page[1]) or (served is not None and page[1] == served[1])


def _is_local(name: str) -> bool:
    """Whether no stranger can own this name."""
    if "." not in name or _is_address(name):
        return True
    labels = name.split(".")
    return labels[-1] in _LOCAL_DOMAINS or ".".join(labels[-2:]) in _LOCAL_DOMAINS


def _is_loopback(name: str) -> bool:
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = _address(name)
    return address is not None and (address.is_loopback or address.is_unspecified)


def _is_address(name: str) -> bool:
    return _address(name) is not None


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return None
