"""Which names and which web pages may reach the server from a browser.

DNS rebinding: a stranger's page lets its own name point to this machine, so that the browser takes the server for part
of the page. Such a request carries the stranger's name in Host; an address written as numbers cannot be a stranger's.
"""

import ipaddress
import re
import socket
from collections.abc import Iterable

from deepseek.server.errors import ApiError

ANY = "*"
_HOST = re.compile(r"(\[[0-9a-fA-F:.%]+\]|[A-Za-z0-9_.-]+)(?::\d{1,5})?")


class Origins:
    """hosts, origins: what is allowed beside the machine's own names and pages served here."""

    def __init__(self, own: str, hosts: Iterable[str], origins: Iterable[str]) -> None:
        self._hosts = {host.lower() for host in (own, socket.gethostname(), "localhost", *hosts)}
        self._origins = {origin.lower().rstrip("/") for origin in origins}

    def check(self, host: str | None, origin: str | None) -> bool:
        """Whether the answer needs CORS headers for this origin. Raises ApiError for what is not allowed."""
        self._check_host(host)
        if origin is None or self._is_same(origin, host or ""):
            return False
        if ANY in self._origins or origin.lower() in self._origins:
            return True
        raise ApiError(403, "pages of this origin may not use the API: start the server with --allowed-origins ORIGIN")

    def _check_host(self, host: str | None) -> None:
        if ANY in self._hosts:
            return
        match = _HOST.fullmatch(host or "")
        if match is None:
            raise ApiError(400, "the Host header must be a name or an address")
        name = match[1].lower().rstrip(".")
        if name not in self._hosts and not name.endswith(".localhost") and not _is_address(name):
            raise ApiError(
                403,
                f"this server is not known as {name!r:.200}: start it with --allowed-hosts {name:.200}",
                code="host",
            )

    def _is_same(self, origin: str, host: str) -> bool:
        _, _, netloc = origin.lower().partition("://")
        return netloc != "" and netloc == host.lower()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
