"""An HTTP server that answers as it is told and notes what it was asked. Its completions know a toy language model."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Reply:
    """body: bytes as they are, else JSON. cut: the connection is closed before the promised length."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False

    def data(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body, ensure_ascii=False).encode()


@dataclass
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    body: Any


Answering = Callable[[Asked], Reply]


@contextmanager
def serving(*answers: Reply | Answering) -> Iterator[tuple[str, list[Asked]]]:
    """Its address, and the requests so far. The answers are given in turn; the last one again and again."""
    asked: list[Asked] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            size = int(self.headers.get("content-length") or 0)
            body = json.loads(self.rfile.read(size)) if size else None
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = answers[min(len(asked), len(answers) - 1)]
            asked.append(Asked(self.command, self.path, headers, body))
            reply = answer if isinstance(answer, Reply) else answer(asked[-1])
            data = reply.data()
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(data) + (1000 if reply.cut else 0)))
            self.end_headers()
            self.wfile.write(data)
            self.close_connection = reply.cut

        do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def chat_reply(**message: Any) -> Reply:
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}}
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop"}
    return Reply({"id": "chatcmpl-1", "choices": [choice], "usage": usage})


def stream_reply(*chunks: Any, done: bool = True, **options: Any) -> Reply:
    lines = [f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n" for chunk in chunks]
    text = ": keep-alive\n\n" + "".join(lines) + ("data: [DONE]\n\n" if done else "")
    return Reply(text.encode(), headers={"content-type": "text/event-stream"}, **options)


def delta(**fields: Any) -> dict[str, Any]:
    finish_reason = fields.pop("finish_reason", None)
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": finish_reason}]}


def echoed(likes: dict[str, float]) -> Answering:
    """`/v1/completions` with echo, a token a letter; each letter of a label has the log-probability given for it."""

    def answer(asked: Asked) -> Reply:
        assert asked.body["echo"] is True
        return Reply({"choices": [_echo(place, text, likes) for place, text in enumerate(asked.body["prompt"])][::-1]})

    return answer


def _echo(index: int, text: str, likes: dict[str, float]) -> dict[str, Any]:
    label = text.rsplit("Label: ", 1)[1].strip()
    start = len(text) - len(label) - 1
    logprobs: list[float | None] = [None, *([-1.0] * (start - 1)), *([likes[label]] * len(label)), -0.5, -9.0]
    offsets = list(range(len(text) + 1))
    return {
        "index": index,
        "text": text + "!",
        "logprobs": {"tokens": [*text, "!"], "token_logprobs": logprobs, "text_offset": offsets},
    }
