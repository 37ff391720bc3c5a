"""What the routes of one server share: the engine, its names, its metrics, and threads for work that takes time."""

import asyncio
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from deepseek.server.errors import ApiError
from deepseek.server.metrics import Metrics

if TYPE_CHECKING:
    from deepseek.engine.engine import Engine
    from deepseek.server.server_config import ServerConfig
    from deepseek.tokenizer.tokenizer import Tokenizer

Result = TypeVar("Result")
_THREADS = 2


class Service:
    """One for an application. model_names: under which the model is served, the first is told in answers."""

    def __init__(self, config: "ServerConfig", engine: "Engine", model_name: str) -> None:
        self.config = config
        self.engine = engine
        self.model_names = config.served_model_name or (model_name,)
        self.chat_template = None if config.chat_template is None else Path(config.chat_template).read_text("utf-8")
        self.metrics = Metrics(engine)
        self.created = int(time.time())
        self.started = time.monotonic()
        self.is_draining = False
        self._quick = ThreadPoolExecutor(_THREADS, "deepseek-prompts")
        self._slow = ThreadPoolExecutor(_THREADS, "deepseek-grammars")

    @property
    def tokenizer(self) -> "Tokenizer":
        return self.engine.tokenizer  # type: ignore[return-value]

    async def in_thread(self, work: Callable[[], Result], *, slow: bool = False) -> Result:
        """The result of work that would hold up the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._slow if slow else self._quick, work)

    def check_open(self) -> None:
        """Raises ApiError where nothing new is taken."""
        if self.is_draining:
            raise ApiError(503, "the server is shutting down", retry_after=5, headers={"Connection": "close"})

    def check_model(self, name: str | None) -> str:
        """The name to answer with. Raises ApiError for a model that is not served."""
        if name is None:
            return self.model_names[0]
        if name not in self.model_names:
            raise ApiError(
                404, f"the model {name!r:.200} is not served here; there is {', '.join(self.model_names)}",
                param="model", code="model_not_found",
            )  # fmt: skip
        return name

    def close(self) -> None:
        self._quick.shutdown(wait=False, cancel_futures=True)
        self._slow.shutdown(wait=False, cancel_futures=True)


def new_id(prefix: str, wanted: str | None = None) -> str:
    """`chatcmpl-...`: with the client's own id, or a random one."""
    return f"{prefix}-{wanted or secrets.token_hex(16)}"
