"""Speaks the server's API from a script, so that the page can be shown what a real model rarely says.

The last user message chooses the script: "hold" sends three tokens and waits for `release`, "drop" breaks off
after three, "refuse" is refused, "long" stops at the token limit, "tools" calls two; anything else that is in
SCRIPTS; else PLAIN.
Run it to develop the page: python tests/studio/fake_server.py [PORT [RUNS]]
"""

import contextlib
import json
import math
import random
import re
import socket
import sys
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from deepseek.server.studio.files import studio_file
from deepseek.server.training_runs.json_lines import Thinning
from deepseek.server.training_runs.shelf import Shelf

LAYERS, EXPERTS, ACTIVE = 6, 16, 4
LATENCIES = ("time_to_first_token_seconds", "inter_token_latency_seconds", "e2e_request_latency_seconds")
BALANCE = ("entropy", "gini", "max_vio", "top_share")
PLAIN = """A **mixture-of-experts** model works like a hospital: at the door a nurse (the *router*) looks at each \
patient and sends them to the two doctors who know that illness best.

| part | in the hospital | in the model |
|---|---|---|
| router | nurse at the door | a small linear layer |
| expert | doctor | a feed-forward network |

```python
def route(token, experts, k=2):
    scores = softmax(token @ router)      # one score an expert
    best = top_k(scores, k)
    return sum(scores[e] * experts[e](token) for e in best)
```

So the model *knows* a lot, yet each word costs little."""
HOSTILE = """Hello <script>window.hacked = 1</script><img src=x onerror="window.hacked = 2"> <b>bold?</b>

[link](javascript:window.hacked=3) [safe](https://example.com/) ![pixel](/stolen.png?secret)

<style>body { display: none }</style><svg onload="window.hacked = 4"></svg>
<iframe srcdoc="<script>parent.hacked=5</script>"></iframe>

`<script>window.hacked = 6</script>`

```html
</code></pre><img src=x onerror="window.hacked = 7">
```

<form action="/stolen"><input name="a" onfocus="window.hacked = 8" autofocus></form>
<a href="data:text/html,<script>1</script>">data</a>
"""
FORMULAS = r"""The roots of $ax^2 + bx + c = 0$ cost \$5, or $5 and $6:

$$
x = \frac{-b \pm \sqrt{b^2 - 4ac}}{2a}
$$

Also \(\alpha_i \ne \beta_j\) and

\[ \sum_{i=1}^{n} i = \frac{n(n+1)}{2} \]

`$not_maths$` and $\frac{1$ are not."""
HOSTILE_FORMULAS = r"""$\href{javascript:window.hacked=1}{x}$ $\url{javascript:window.hacked=2}$
$\includegraphics{/stolen.png}$ $\htmlStyle{display:none}{x}$ $\htmlData{a=b}{y}$
$\def\x{\x\x}\x$ $\rule{9999em}{9999em}$

$<img src=x onerror="window.hacked = 3">$ and $$\text{<script>window.hacked = 4</script>}$$

$" onmouseover="window.hacked = 5$ $\class{x}{y}$ end"""
SCRIPTS = {
    "formulas": ("", FORMULAS),
    "hostile formulas": ("", HOSTILE_FORMULAS),
    "hostile": (HOSTILE, HOSTILE),
    "think": ("First I look at the question. Then I count: seven times six is 42.", "The answer is **42**."),
}


@dataclass
class FakeState:
    """models: as in /v1/models. requests: (path, body or query, headers) in order. api_key: wanted where not empty.

    runs: a folder of training runs, read as the real server reads it.
    """

    models: list[dict[str, Any]]
    api_key: str = ""
    runs: Path | None = None
    requests: list[tuple[str, Any, dict[str, str]]] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)
    pace: float = 0.0  # seconds a token, for people who watch
    generated: int = 0
    started: float = field(default_factory=time.monotonic)


def moe_model(name: str = "fake-moe", *, layers: int = LAYERS, experts: int = EXPERTS) -> dict[str, Any]:
    told = {"layers": list(range(1, layers + 1)), "n_routed_experts": experts, "n_shared_experts": 1}
    return {**dense_model(name), "experts": {**told, "num_experts_per_tok": ACTIVE}}


def dense_model(name: str = "fake-dense") -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 1, "owned_by": "tests", "max_model_len": 8192, "experts": None}


def pieces_of(text: str) -> list[str]:
    return re.findall(r"\s*[\w]+|\s*[^\w\s]|\s+", text)


def routing(text: str, model: dict[str, Any]) -> list[Any]:
    """Depends on the token's text alone, so that equal words go to equal experts."""
    draw = random.Random(text)
    shape = model["experts"]
    layers = []
    for _ in shape["layers"]:
        scores = [math.exp(draw.gauss(0, 1) - 0.02 * expert) for expert in range(shape["n_routed_experts"])]
        best = sorted(range(len(scores)), key=lambda expert: -scores[expert])[:ACTIVE]
        total = sum(scores[expert] for expert in best)
        layers.append([best, [scores[expert] / total for expert in best]])
    return layers


def logprob(text: str) -> dict[str, Any]:
    share = 0.2 + 0.8 * random.Random(text).random()
    others = [" the", " of", " model", "\n"]
    top = [(text, share)] + [(other, (1 - share) / 2 ** (place + 1)) for place, other in enumerate(others)]
    told = [{"token": word, "logprob": math.log(part), "bytes": list(word.encode())} for word, part in top]
    return {**told[0], "top_logprobs": told}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "FakeServer"

    def log_message(self, *_: object) -> None:
        """Silent: the tests read `requests`."""

    def reply(
        self, status: int, body: bytes, kind: str = "application/json", headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, text in {"Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(body)

    def reply_json(self, value: Any, status: int = 200) -> None:
        self.reply(status, json.dumps(value).encode())

    def refuse(self, status: int, message: str, parameter: str | None = None) -> None:
        self.reply_json(
            {"error": {"message": message, "type": "invalid_request_error", "param": parameter, "code": None}}, status
        )

    def is_allowed(self) -> bool:
        key = self.server.state.api_key
        return not key or self.headers.get("Authorization") == f"Bearer {key}"

    def do_GET(self) -> None:
        state = self.server.state
        path = self.path.split("?")[0].removeprefix(self.server.root)
        state.requests.append((path, urlsplit(self.path).query or None, dict(self.headers)))
        file = studio_file("index.html" if path == "/" else path.removeprefix("/studio/"))
        if file is not None:
            self.reply(200, file.body, file.media_type, file.headers)
        elif not path.startswith("/v1/"):
            self.refuse(404, "no such page")
        elif not self.is_allowed():
            self.refuse(401, "an API key is wanted")
        elif path == "/v1/models":
            self.reply_json({"object": "list", "data": state.models})
        elif path == "/v1/server/status":
            self.reply_json(status_of(state))
        elif path.startswith("/v1/training/runs"):
            self.training(path)
        else:
            self.refuse(404, "no such route")

    def training(self, path: str) -> None:
        assert self.server.state.runs is not None or path == "/v1/training/runs"
        shelf = Shelf(self.server.state.runs or Path("/nowhere/runs"))
        names = [unquote(part) for part in path.split("/")[4:]]
        query = {name: int(value) for name, value in parse_qsl(urlsplit(self.path).query)}
        if not names:
            self.reply(200, msgspec.json.encode(shelf.listed()))
        elif len(names) == 1:
            self.reply(200, msgspec.json.encode(shelf.facts(names[0])))
        else:
            offset = query.pop("offset", 0)
            self.reply(200, msgspec.json.encode(shelf.records(names[0], names[1], offset, Thinning(**query))))

    def do_POST(self) -> None:
        path = self.path.removeprefix(self.server.root)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.state.requests.append((path, body, dict(self.headers)))
        if not self.is_allowed():
            self.refuse(401, "an API key is wanted")
        elif path == "/v1/chat/completions":
            self.chat(body)
        elif path == "/v1/completions":
            self.completion(body)
        else:
            self.refuse(404, "no such route")

    def model_of(self, body: dict[str, Any]) -> dict[str, Any]:
        return next(model for model in self.server.state.models if model["id"] == body["model"])

    def completion(self, body: dict[str, Any]) -> None:
        if body.get("stream"):
            self.text(body)
            return
        routed = [routing(word, self.model_of(body)) for word in pieces_of(body["prompt"])]
        self.reply_json(
            {"choices": [{"index": 0, "text": "", "finish_reason": "length", "prompt_routed_experts": routed}]}
        )

    def text(self, body: dict[str, Any]) -> None:
        self.begin_stream()
        for word in (" so", " on"):
            logprobs = {"tokens": [word], "token_logprobs": [-0.5], "top_logprobs": None, "text_offset": [0]}
            routed = [routing(word, self.model_of(body))]
            self.event({"choices": [{"index": 0, "text": word, "logprobs": logprobs, "routed_experts": routed}]})
        self.end_stream()

    def chat(self, body: dict[str, Any]) -> None:
        question = next(message["content"] for message in reversed(body["messages"]) if message["role"] == "user")
        if question == "refuse":
            return self.refuse(400, "temperature must be at most 2", "temperature")
        if self.model_of(body)["id"] == "fake-base":
            return self.refuse(400, "this model has no chat template", "messages")
        if question == "hold" and self.server.holding.is_set():
            question = "held"
        self.begin_stream()
        try:
            self.stream(body, question)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def stream(self, body: dict[str, Any], question: str) -> None:
        state = self.server.state
        reasoning, content = SCRIPTS.get(question, ("", PLAIN))
        words = [("reasoning_content", word) for word in pieces_of(reasoning)] + [
            ("content", word) for word in pieces_of(content)
        ]
        if body.get("continue_final_message"):
            words = [("content", word) for word in pieces_of(" and so it goes on.")]
        finish = "stop"
        if question == "tools" and body["messages"][-1]["role"] == "user":
            self.call(["paris", "rome"])
            return
        if question == "long" and not body.get("continue_final_message"):
            words, finish = words[:5], "length"
        for place, (kind, word) in enumerate(words):
            if question in ("hold", "drop") and place == 3:
                if question == "hold":
                    self.server.holding.set()
                    state.release.wait(60)
                if question == "drop" or self.server.is_closing:
                    self.break_off()
                    return
            time.sleep(state.pace)
            state.generated += 1
            choice: dict[str, Any] = {"index": 0, "delta": {kind: word}, "finish_reason": None}
            if body.get("logprobs"):
                choice["logprobs"] = {"content": [], kind: [logprob(word)]}
            if body.get("routed_experts"):
                choice["routed_experts"] = [routing(word, self.model_of(body))]
            self.event({"choices": [choice]})
        self.event({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
        details = {"cached_tokens": 32}
        usage = {
            "prompt_tokens": 40,
            "completion_tokens": len(words),
            "total_tokens": 40 + len(words),
            "prompt_tokens_details": details,
        }
        self.event({"choices": [], "usage": usage})
        self.end_stream()

    def call(self, cities: list[str]) -> None:
        """A call of `weather` for each city, its arguments in pieces."""
        for index, city in enumerate(cities):
            text = json.dumps({"city": city, "days": [1, 2]})
            first = {"index": index, "id": f"call-{city}", "type": "function"}
            parts: list[dict[str, Any]] = [{**first, "function": {"name": "weather", "arguments": ""}}]
            parts += [{"index": index, "function": {"arguments": piece}} for piece in (text[:9], text[9:])]
            for part in parts:
                self.event({"choices": [{"index": 0, "delta": {"tool_calls": [part]}, "finish_reason": None}]})
        self.event({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})
        self.end_stream()

    def begin_stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def end_stream(self) -> None:
        self.part(b": a comment\r\n\r\ndata: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def break_off(self) -> None:
        self.close_connection = True
        self.connection.shutdown(2)

    def event(self, value: dict[str, Any]) -> None:
        self.part(f"data: {json.dumps({'object': 'chat.completion.chunk', **value}, ensure_ascii=False)}\n\n".encode())

    def part(self, data: bytes) -> None:
        """Cut in two, also within a character: the page must put it together."""
        middle = len(data) // 2
        for piece in (data[:middle], data[middle:]):
            self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        self.wfile.flush()


def status_of(state: FakeState) -> dict[str, Any]:
    counts = [2, 11, 34, 51, 38, 17, 8, 3, 1]
    bounds = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5]
    latency = {"bounds": bounds, "counts": counts, "sum": 28.1, "count": sum(counts)}
    shape = next((model["experts"] for model in state.models if model["experts"]), None)
    even = random.Random(1)
    layers = shape["layers"] if shape else []
    return {
        "version": "0.1.0",
        "uptime_seconds": time.monotonic() - state.started,
        "model": state.models[0]["id"] if state.models else None,
        "draining": False,
        "requests": {"running": 3, "waiting": 1, "finished": 165, "rejected": 4, "max_running": 64, "max_waiting": 256},
        "tokens": {"prompt": 9120, "generated": 20_000 + state.generated, "cached": 3000},
        "kv_cache": {
            "used_blocks": 120,
            "total_blocks": 512,
            "cached_blocks": 210,
            "block_tokens": 32,
            "bytes": 360 << 20,
        },
        "prefix_cache": {"queries": 9120, "hits": 3000},
        "memory": {
            "resident_bytes": 774 << 20,
            "weights_bytes": 88 << 20,
            "kv_cache_bytes": 360 << 20,
            "total_bytes": 24 << 30,
            "available_bytes": 17 << 30,
        },
        "latency": dict.fromkeys(LATENCIES, latency),
        "experts": {"layers": layers, **{name: [even.random() for _ in layers] for name in BALANCE}} if shape else None,
    }


class FakeServer(ThreadingHTTPServer):
    """Bound at once; `with FakeServer(...) as server:` serves until the block ends."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, state: FakeState, *, port: int = 0, root: str = "") -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.state, self.root = state, root
        self.is_closing = False
        self.connections: set[socket.socket] = set()
        self.holding = threading.Event()  # a "hold" answer has sent its three tokens

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{self.root}/"

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def __enter__(self) -> "FakeServer":
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.is_closing = True
        self.state.release.set()
        self.shutdown()
        self.server_close()
        for connection in self.connections:  # those that are kept alive would still be answered
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


if __name__ == "__main__":
    models = [moe_model(layers=26, experts=64), dense_model()]
    watched = FakeState(models, pace=0.02, runs=Path(sys.argv[2]) if len(sys.argv) > 2 else None)
    with FakeServer(watched, port=int(sys.argv[1]) if len(sys.argv) > 1 else 8765) as running:
        print(running.url, flush=True)
        threading.Event().wait()
