"""Requests as they are sent and answers as they come, without sending: what both clients share."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from deepseek.client.answers import Answer, Event, ToolCall, Usage
from deepseek.client.errors import ClientError, NotAuthorized, RequestRefused, ServerBusy, ServerFault
from deepseek.errors import ConfigError

DEFAULT_URL = "http://127.0.0.1:8000"
LONGEST_WAIT = 30.0
"""Seconds before a request is sent again, whatever Retry-After says."""
LONGEST_EVENT = 64 << 20

Messages = str | Sequence[Mapping[str, Any]]
Body = dict[str, Any]


def server_url(base_url: str | None) -> str:
    """Where the server is, without `/v1`; DEEPSEEK_BASE_URL where none is given."""
    url = (base_url or os.environ.get("DEEPSEEK_BASE_URL") or DEFAULT_URL).rstrip("/").removesuffix("/v1")
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise ConfigError(f"base_url must be like {DEFAULT_URL}, not {url!r:.100}")
    return url


def is_local(url: str) -> bool:
    """Whether a URL names this machine, where no proxy has a say."""
    return urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1")


def headers(api_key: str | None) -> dict[str, str]:
    key = api_key or os.environ.get("DEEPSEEK_API_KEY")
    if key and not (key.isascii() and key.isprintable()):
        raise ConfigError("api_key must be of printable ASCII characters: is there a line break in it?")
    return {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}


def encode(body: Body) -> bytes:
    try:
        return json.dumps(body, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"the request cannot be written as JSON: {error}") from None


def chat_body(messages: Messages, fields: Mapping[str, Any]) -> Body:
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    return {"messages": list(messages), **_fields(fields, "chat")}


def completion_body(prompt: str | Sequence[str], fields: Mapping[str, Any]) -> Body:
    return {"prompt": prompt if isinstance(prompt, str) else list(prompt), **_fields(fields, "generate")}


def _fields(fields: Mapping[str, Any], method: str) -> Mapping[str, Any]:
    if "stream" in fields:
        raise ConfigError(f"stream cannot be a field of {method}(): call stream_{method}()")
    return fields


def chat_answer(data: Any) -> Answer:
    with _understood():
        answers = [_chat_choice(choice, data) for choice in data["choices"]]
        return _with_others(answers)


def completion_answer(data: Any) -> Answer:
    with _understood():
        answers = [
            Answer(choice["text"], finish_reason=choice.get("finish_reason"), usage=_usage(data), raw=data)
            for choice in data["choices"]
        ]
        return _with_others(answers)


def _chat_choice(choice: Mapping[str, Any], data: Mapping[str, Any]) -> Answer:
    message = choice["message"]
    return Answer(
        message.get("content") or "",
        reasoning=_reasoning(message),
        tool_calls=_tool_calls(message),
        finish_reason=choice.get("finish_reason"),
        usage=_usage(data),
        raw=data,
    )


def _with_others(answers: Sequence[Answer]) -> Answer:
    first, *others = answers
    first.others = tuple(others)
    return first


def vectors(data: Any) -> list[list[float]]:
    with _understood():
        rows = sorted(data["data"], key=lambda row: row["index"])
        return [[float(value) for value in row["embedding"]] for row in rows]


def model_names(data: Any) -> list[str]:
    with _understood():
        return [str(model["id"]) for model in data["data"]]


def events_of(data: Any) -> list[Event]:
    """The events in one chunk of a stream."""
    with _understood():
        if "error" in data:
            raise ServerFault(_message(data) or "the server gave up in the middle of its answer")
        usage = _usage(data)
        events = [_event(choice, data) for choice in data["choices"]]
        return events if events or usage is None else [Event(usage=usage, raw=data)]


def _event(choice: Mapping[str, Any], data: Mapping[str, Any]) -> Event:
    delta = choice.get("delta") or {}
    return Event(
        index=choice.get("index", 0),
        text=delta.get("content") or choice.get("text") or "",
        reasoning=_reasoning(delta),
        tool_calls=tuple(_tool_calls(delta)),
        finish_reason=choice.get("finish_reason"),
        usage=_usage(data),
        raw=data,
    )


def _reasoning(message: Mapping[str, Any]) -> str:
    return message.get("reasoning_content") or message.get("reasoning") or ""


def _tool_calls(message: Mapping[str, Any]) -> Iterator[ToolCall]:
    for place, call in enumerate(message.get("tool_calls") or ()):
        function = call.get("function") or {}
        yield ToolCall(
            call.get("index", place), call.get("id") or "", function.get("name") or "", function.get("arguments") or ""
        )


def _usage(data: Mapping[str, Any]) -> Usage | None:
    usage = data.get("usage")
    if not usage:
        return None
    details = usage.get("prompt_tokens_details") or {}
    return Usage(usage["prompt_tokens"], usage.get("completion_tokens", 0), details.get("cached_tokens") or 0)


class StreamReader:
    """The chunks of an event stream out of its bytes. is_done: the end was announced."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self.is_done = False

    def feed(self, data: bytes) -> list[Any]:
        """Line breaks are those of the protocol only: others, such as U+2028, occur within JSON texts."""
        self._size += len(data)
        if self._size > LONGEST_EVENT:
            raise ServerFault(f"the server sent an event of over {LONGEST_EVENT >> 20} MiB")
        if b"\n" not in data:
            self._parts.append(data)
            return []
        *lines, rest = b"".join((*self._parts, data)).split(b"\n")
        self._parts, self._size = [rest], len(rest)
        return [chunk for line in lines if (chunk := self._chunk(line.rstrip(b"\r"))) is not None]

    def _chunk(self, line: bytes) -> Any:
        name, _, value = line.partition(b":")
        if name != b"data" or self.is_done:
            return None
        if value.strip() == b"[DONE]":
            self.is_done = True
            return None
        return parse(value)

    def end(self) -> None:
        """No more bytes come. Raises ServerFault where more had to."""
        if not self.is_done:
            raise ServerFault("the stream ended before the answer did: the server stopped or the connection broke")


def parse(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise ServerFault(f"the server's answer is not JSON: {body[:200]!r}") from None


def error_of(status: int, answer_headers: Mapping[str, str], body: bytes) -> ClientError:
    """What an answer with this status means."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        data = None
    message = _message(data) or f"the server answered with status {status}: {body[:200].decode(errors='replace')}"
    if status in (429, 503):
        return ServerBusy(message, status=status, retry_after=_seconds(answer_headers.get("retry-after")))
    if not 400 <= status < 500:
        return ServerFault(message, status=status)
    error = data.get("error") if isinstance(data, Mapping) else None
    details = error if isinstance(error, Mapping) else {}
    kind = NotAuthorized if status in (401, 403) else RequestRefused
    return kind(message, status=status, field=details.get("param"), code=details.get("code"))


def _message(data: Any) -> str | None:
    error = data.get("error") if isinstance(data, Mapping) else None
    message = error.get("message") if isinstance(error, Mapping) else error
    return message if isinstance(message, str) else None


def _seconds(text: str | None) -> float | None:
    try:
        seconds = float(text or "")
    except ValueError:
        return None
    return seconds if 0 <= seconds < 1e9 else None


def waits(error: ClientError, attempt: int) -> float:
    """Seconds to wait before attempt number `attempt` + 1, from 0."""
    said = error.retry_after if isinstance(error, ServerBusy) else None
    return min(0.5 * 2**attempt if said is None else said, LONGEST_WAIT)


@contextmanager
def _understood() -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        raise ServerFault(
            f"the server's answer has another form than expected: {type(error).__name__}: {error}"
        ) from None


def first_line(answer: str) -> str:
    """A name that a model was asked for: its first line that is not empty, without quotes and full stop."""
    lines: Iterable[str] = (line.strip(" \t\"'`*.。") for line in answer.splitlines())
    return next((line for line in lines if line), "")
