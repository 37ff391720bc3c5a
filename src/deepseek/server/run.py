"""The process: uvicorn around the application, its signals and its end."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import uvicorn

if TYPE_CHECKING:
    import socket

    from fastapi import FastAPI

    from deepseek.server.server_config import ServerConfig


class Server(uvicorn.Server):
    """on_started: called with the address once the server listens."""

    def __init__(
        self, app: "FastAPI", config: "ServerConfig", on_started: Callable[[str], None] = lambda address: None
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app, host=config.host, port=config.port, http="httptools", ws="none", loop="uvloop", lifespan="on",
                log_config=None, access_log=False, server_header=False, root_path=config.root_path,
                ssl_keyfile=config.ssl_keyfile, ssl_certfile=config.ssl_certfile,
            )
        )  # fmt: skip
        self._settings = config
        self._on_started = on_started

    async def startup(self, sockets: "list[socket.socket] | None" = None) -> None:
        await super().startup(sockets)
        self._on_started(self.address)

    @property
    def address(self) -> str:
        """Where clients find it, without a slash at the end."""
        scheme = "https" if self._settings.ssl_keyfile else "http"
        host = self._settings.host
        if host in ("0.0.0.0", "::"):
            host = "localhost"
        port = self.servers[0].sockets[0].getsockname()[1]
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}{self._settings.root_path}"
