"""The process: uvicorn around the application, its signals and its end.

On the first signal the server takes nothing new and lets what runs end, for `shutdown_timeout` seconds; then answers
that still run end with an error. On the second it leaves at once.
"""

import asyncio
import logging
import socket
import sys
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from deepseek.errors import ConfigError
from deepseek.server.connection import Connection

if TYPE_CHECKING:
    from fastapi import FastAPI

    from deepseek.server.server_config import ServerConfig
    from deepseek.server.service import Service

_KEEP_ALIVE_SECONDS = 75  # longer than clients keep connections, so that it is they who close them
_GRACE_SECONDS = 5.0  # for telling clients that their answers end


def require_free_port(host: str, port: int) -> None:
    """Raises ConfigError where nobody could listen, in time before a model is loaded. Port 0 is always free."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        other = "choose another --host" if isinstance(error, socket.gaierror) else "choose another with --port"
        raise ConfigError(f"cannot listen on {host}, port {port} ({reason}): {other}") from None


def _print_debug_messages() -> None:
    """Ours alone: the libraries' would drown them."""
    log = logging.getLogger("deepseek")
    log.setLevel(logging.DEBUG)
    if not log.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        log.addHandler(handler)


class Server(uvicorn.Server):
    """on_started: called with the address once the server listens."""

    def __init__(
        self, app: "FastAPI", config: "ServerConfig", on_started: Callable[[str], None] = lambda address: None
    ) -> None:
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # it warns of every malformed request
        if config.log_level == "debug":
            _print_debug_messages()
        super().__init__(
            uvicorn.Config(
                app, host=config.host, port=config.port, http=Connection, ws="none", loop=_loop(), lifespan="on",
                log_config=None, access_log=False, server_header=False, root_path=config.root_path,
                ssl_keyfile=config.ssl_keyfile, ssl_certfile=config.ssl_certfile, proxy_headers=False,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=int(config.shutdown_timeout + _GRACE_SECONDS), backlog=2048,
            )
        )  # fmt: skip
        self._settings = config
        self._on_started = on_started
        self._service: Service = app.state.service

    async def startup(self, sockets: "list[socket.socket] | None" = None) -> None:
        log = logging.getLogger("uvicorn.error")
        log.disabled = True  # it would print the system's words first
        try:
            await super().startup(sockets)
        except SystemExit:
            require_free_port(self._settings.host, self._settings.port)
            raise ConfigError(f"cannot listen on {self._settings.host}, port {self._settings.port}") from None
        finally:
            log.disabled = False
        self._on_started(self.address)

    async def shutdown(self, sockets: "list[socket.socket] | None" = None) -> None:
        self._service.is_draining = True
        timer = asyncio.get_running_loop().call_later(self._settings.shutdown_timeout, self._service.end_answers)
        try:
            await super().shutdown(sockets)
        finally:
            timer.cancel()
        if not self.force_exit:
            self._captured_signals.clear()  # uvicorn would raise them again: a drained server ends with status 0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self.force_exit = True
        super().handle_exit(sig, frame)

    @property
    def address(self) -> str:
        """Where clients find it, without a slash at the end."""
        scheme = "https" if self._settings.ssl_keyfile else "http"
        host = self._settings.host
        if host in ("0.0.0.0", "::"):
            host = "localhost"
        port = self.servers[0].sockets[0].getsockname()[1]
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}{self._settings.root_path}"


def _loop() -> "uvicorn.config.LoopFactoryType":
    return "asyncio" if sys.platform == "win32" else "uvloop"
