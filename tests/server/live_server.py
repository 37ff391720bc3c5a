"""A real server in a thread, on a free port; and a tiny model with experts, a byte tokenizer and a chat template."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2 as httpx

from deepseek.engine.engine import Engine
from deepseek.server.app import build_app
from deepseek.server.run import Server
from deepseek.server.server_config import ServerConfig
from deepseek.server.service import Service

SPECIALS = ["<|end|>", "<|user|>", "<|assistant|>", "<think>", "</think>"]
END = 256
TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message.role + '|>' + message.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>"
    "{% if enable_thinking is defined and enable_thinking %}<think>\n{% endif %}{% endif %}"
)


@dataclass
class Live:
    url: str
    service: Service
    server: Server
    client: httpx.Client

    @property
    def engine(self) -> Engine:
        return self.service.engine

    def post(self, path: str, body: Any, **options: Any) -> httpx.Response:
        return self.client.post(path, json=body, **options)

    def chat(self, text: str, **fields: Any) -> httpx.Response:
        return self.post("/v1/chat/completions", {"messages": [{"role": "user", "content": text}], **fields})


@contextmanager
def live(
    engine: Engine,
    name: str = "tiny",
    folder: Path | None = None,
    sampling_defaults: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Iterator[Live]:
    """Closes the engine in the end. folder: of the model, which may bring records of its training."""
    config = ServerConfig.of({"port": 0, "access_log": "off", "shutdown_timeout": 5.0, **settings}, environment={})
    app = build_app(config, engine, name, sampling_defaults, folder)
    started = threading.Event()
    server = Server(app, config, lambda address: started.set())
    thread = threading.Thread(target=server.run)
    thread.start()
    assert started.wait(60)
    with httpx.Client(base_url=server.address, timeout=120) as client:
        try:
            yield Live(server.address, app.state.service, server, client)
        finally:
            server.should_exit = True
            thread.join(60)
            assert not thread.is_alive()


def events(response: httpx.Response) -> list[Any]:
    """What a stream of server-sent events said, without its end."""
    data = [line.removeprefix("data: ") for line in response.text.split("\n") if line.startswith("data: ")]
    assert data[-1] == "[DONE]"
    return [json.loads(item) for item in data[:-1]]


def write_tiny_moe(folder: Path, context: int = 2048) -> Path:
    """Random weights in the shape of V2-Lite, nothing at its default. context: tokens, each of them a byte."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    from deepseek import AutoModel
    from model_cases import CASES

    config = replace(CASES["v2-lite"], vocab_size=264, max_position_embeddings=context, eos_token_ids=(END,))
    AutoModel.from_config(config, seed=3, std=0.3).save_pretrained(folder)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: place for place, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken(text, special="think" not in text, normalized=False) for text in SPECIALS])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"eos_token": SPECIALS[0], "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def tiny_engine(folder: Path, **settings: Any) -> Engine:
    defaults = {"quantize": "f32", "threads": 1, "kv_cache_bytes": 1 << 20, "speculation": "off"}
    return Engine.from_pretrained(str(folder), **{**defaults, "record_routing": True, **settings})


class Brake:
    """Stops an engine before each step, as long as it is pulled. steps: runs since it was made."""

    def __init__(self, engine: Engine) -> None:
        runner = engine._core._runner
        run = runner.run
        self.steps = 0
        self._go = threading.Event()
        self._go.set()
        self.at_step = threading.Event()

        def braked(batch: Any) -> Any:
            self.at_step.set()
            assert self._go.wait(60)
            self.steps += 1
            return run(batch)

        runner.run = braked  # type: ignore[method-assign]

    def pull(self) -> None:
        self._go.clear()
        self.at_step.clear()

    def release(self) -> None:
        self._go.set()
