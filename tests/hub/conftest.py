import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deepseek.hub import transfer
from hub_server import HubServer, Repo

MIB = 1 << 20


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for this test alone, for our files and for huggingface_hub's."""
    from huggingface_hub import constants

    folder = tmp_path / "cache"
    monkeypatch.setenv("DEEPSEEK_CACHE", str(folder))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))  # for subprocesses; this process has read it already
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture
def server(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """The hub, as far as this process and its children can see."""
    from huggingface_hub import close_session, constants

    monkeypatch.setattr(transfer, "PAUSE_SECONDS", 0.01)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    with HubServer() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, hub.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        yield hub
        close_session()


@pytest.fixture
def files() -> dict[str, bytes]:
    """A model in two shards with everything around it that must not come along."""
    index = b'{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}'
    return {
        "config.json": b'{"model_type": "llama"}',
        "tokenizer.json": b"{}",
        "chat_template.jinja": b"{{ messages }}",
        "model.safetensors.index.json": index,
        "model-00001-of-00002.safetensors": os.urandom(5 * MIB),
        "model-00002-of-00002.safetensors": os.urandom(MIB // 2),
        "pytorch_model.bin": b"pickle",
        "modeling_evil.py": b"import os",
        "README.md": b"hello",
        "onnx/model.safetensors": b"another",
    }


@pytest.fixture
def repo(server: HubServer, files: dict[str, bytes]) -> Repo:
    """`org/tiny` on the server."""
    server.repos["org/tiny"] = Repo.of(files)
    return server.repos["org/tiny"]


@pytest.fixture
def index(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place where pip finds wheels."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


Spawn = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Run Python code in another process; whatever is left of it is killed afterwards."""
    children: list[subprocess.Popen[str]] = []

    def start(code: str) -> "subprocess.Popen[str]":
        child = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        children.append(child)
        return child

    yield start
    for child in children:
        if child.poll() is None:
            child.kill()
        child.communicate()
