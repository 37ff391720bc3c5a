"""What the routes of one server share: the engine, its names, its metrics, and threads for work that takes time."""

import asyncio
import secrets
import time
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from deepseek.engine.prompts import context_error
from deepseek.errors import ConfigError, TooManyTokensError
from deepseek.server import tool_prompt
from deepseek.server.errors import ApiError
from deepseek.server.long_bodies import LongBodies
from deepseek.server.metrics import Metrics
from deepseek.server.parsing import REASONING, TOOLS, detect
from deepseek.server.response_store import ResponseStore
from deepseek.server.token_views import TokenIdViews, TokenViews
from deepseek.server.tracing import Tracing
from deepseek.server.training_runs.shelf import DEFAULT_FOLDER, Shelf

if TYPE_CHECKING:
    from deepseek.engine.engine import Engine
    from deepseek.engine.streams import AsyncTokenStream
    from deepseek.server.server_config import ServerConfig
    from deepseek.tokenizer.tokenizer import Tokenizer

Result = TypeVar("Result")
_THREADS = 2
NONE = "none"
_MARKS = (
    "<think>", "</think>", "<tool_call>", "</tool_call>",
    "<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>",
)  # fmt: skip


class Service:
    """One for an application.

    model_names: under which the model is served, the first is told in answers. chat_template: what replaces the
    model's own; template_text: the one that is used, "" for none. parsers: names for `make_parser`.
    sampling_defaults: fields of SamplingParams that the model's makers recommend; chat_defaults: with what chats need.
    model_folder: of the model, which may bring the records of its training.
    """

    def __init__(
        self,
        config: "ServerConfig",
        engine: "Engine",
        model_name: str,
        sampling_defaults: Mapping[str, Any] | None = None,
        model_folder: Path | None = None,
    ) -> None:
        self.config = config
        self.engine = engine
        self.model_names = config.served_model_name or (model_name,)
        self.chat_template = None if config.chat_template is None else read_template(Path(config.chat_template))
        self.template_text = self.chat_template or self.tokenizer.chat_template or ""
        self.parsers = parser_names(config, self.template_text, engine.model_config.family)
        self.sampling_defaults = dict(sampling_defaults or {})
        self.chat_defaults = {**self.sampling_defaults, **_markers_shown(self.tokenizer)}
        self.token_views = TokenViews(self.tokenizer)
        self.token_id_views = TokenIdViews(self.tokenizer)
        self.metrics = Metrics(engine)
        endpoint = config.otlp_traces_endpoint
        self.tracing = None if endpoint is None else Tracing(endpoint, self.model_names[0])
        self.responses = ResponseStore(config.response_store, config.response_store_bytes)
        self.training_runs = Shelf(Path(config.runs or DEFAULT_FOLDER), model_folder)
        self.created = int(time.time())
        self.started = time.monotonic()
        self.is_draining = False
        self.streams: weakref.WeakSet[AsyncTokenStream] = weakref.WeakSet()
        """Of answers that run, for `end_answers`."""
        self._quick = ThreadPoolExecutor(_THREADS, "deepseek-prompts")
        self._slow = ThreadPoolExecutor(_THREADS, "deepseek-grammars")
        self.long_bodies = LongBodies(lambda: len(self.streams) > 0)

    @property
    def tokenizer(self) -> "Tokenizer":
        return self.engine.tokenizer  # type: ignore[return-value]

    async def in_thread(self, work: Callable[[], Result], *, slow: bool = False) -> Result:
        """The result of work that would hold up the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._slow if slow else self._quick, work)

    def within_context(self, encode: Callable[..., list[int]], *args: Any, **options: Any) -> list[int]:
        """The ids of a prompt, by a method of the tokenizer. Raises ContextLengthError as soon as they are too many."""
        limit = self.engine.max_model_len
        try:
            return encode(*args, **options, token_limit=limit)
        except TooManyTokensError as error:
            raise context_error(f"at least {error.at_least}", limit, self.engine.longer_prompts) from None

    def retry_after(self) -> float:
        """Seconds after which the queue has probably moved on."""
        rate = self.metrics.recent.ended_per_second()
        return min(60.0, max(1.0, self.engine.load().waiting / rate)) if rate else 5.0

    def check_open(self) -> None:
        """Raises ApiError where nothing new is taken."""
        if self.is_draining:
            raise ApiError(503, "the server is shutting down", retry_after=5, headers={"Connection": "close"})

    def check_model(self, name: str | None) -> str:
        """The name to answer with. Raises ApiError for a model that is not served."""
        if not name:
            return self.model_names[0]
        if name not in self.model_names:
            raise ApiError(
                404, f"the model {name!r:.200} is not served here; there is {', '.join(self.model_names)}",
                param="model", code="model_not_found",
            )  # fmt: skip
        return name

    def end_answers(self) -> None:
        """End all answers that run, with an error."""
        for stream in list(self.streams):
            self.engine.abort(stream.id)

    def close(self) -> None:
        self._quick.shutdown(wait=False, cancel_futures=True)
        self._slow.shutdown(wait=False, cancel_futures=True)
        self.long_bodies.close()
        self.responses.close()
        if self.tracing is not None:
            self.tracing.close()


@dataclass(frozen=True, slots=True)
class ParserNames:
    """bare_calls: whether a whole answer in plain JSON can be calls."""

    reasoning: str | None
    tools: str | None
    bare_calls: bool


def parser_names(config: "ServerConfig", template: str, family: str) -> ParserNames:
    """Those of the settings, else what the template shows. Raises ConfigError for names that are none."""
    reasoning, tools = detect(template, family)
    if not tool_prompt.knows_tools(template):
        tools = tool_prompt.PARSER
    chosen = {"reasoning_parser": reasoning, "tool_call_parser": tools}
    for name, known in (("reasoning_parser", REASONING), ("tool_call_parser", TOOLS)):
        wanted = getattr(config, name)
        if wanted is not None and wanted not in (NONE, *known):
            raise ConfigError(f"{name} must be one of {', '.join(known)} or {NONE}, not {wanted!r:.100}")
        if wanted is not None:
            chosen[name] = None if wanted == NONE else wanted
    bare_calls = config.tool_call_parser != NONE and chosen["tool_call_parser"] in (None, tool_prompt.PARSER)
    return ParserNames(chosen["reasoning_parser"], chosen["tool_call_parser"], bare_calls)


def _markers_shown(tokenizer: "Tokenizer") -> dict[str, Any]:
    """Where the marks that parsers look for are special tokens, special tokens must be in the text."""
    special = any(tokenizer.token_to_id(mark) in tokenizer.special_ids for mark in _MARKS)
    return {"skip_special_tokens": False} if special else {}


def read_template(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"chat_template {path}: cannot be read as text ({type(error).__name__})") from None


def new_id(prefix: str, wanted: str | None = None) -> str:
    """`chatcmpl-...`: with the client's own id, or a random one."""
    return f"{prefix}-{wanted or secrets.token_hex(16)}"
