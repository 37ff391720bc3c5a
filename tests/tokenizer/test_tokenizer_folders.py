"""Folders as they are published: no tokenizer.json, templates of any name, end tokens in several files."""

import json
import re
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st

from deepseek.errors import TokenizerError
from deepseek.tokenizer import AutoTokenizer, Tokenizer, tokenizer_from_gguf
from deepseek.tokenizer.sentencepiece_file import parse_model
from tiny_vocabularies import byte_level_metadata, sentencepiece_metadata, unigram_metadata

GGML = "tokenizer.ggml."


def published(tokenizer: Tokenizer, folder: Path, **config: Any) -> Path:
    tokenizer.save_pretrained(folder)
    (folder / "special_tokens_map.json").unlink()
    merged = json.loads((folder / "tokenizer_config.json").read_text()) | config
    (folder / "tokenizer_config.json").write_text(json.dumps(merged))
    return folder


def split_up(folder: Path) -> Path:
    """tokenizer.json as vocab.json and merges.txt."""
    spec = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(spec["model"]["vocab"]))
    merges = "\n".join(" ".join(merge) for merge in spec["model"]["merges"])
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")
    return folder


@pytest.mark.parametrize(("pre", "kind"), [("gpt-2", "GPT2Tokenizer"), ("qwen2", "Qwen2Tokenizer"), ("gpt-2", None)])
def test_vocabulary_and_merges(pre: str, kind: str | None, texts: list[str], tmp_path: Path) -> None:
    whole = tokenizer_from_gguf(byte_level_metadata(pre))
    tokens = {str(i): {"content": whole.id_to_token(i), "special": i < 3} for i in range(4)}
    folder = split_up(published(whole, tmp_path, tokenizer_class=kind, added_tokens_decoder=tokens))
    read = AutoTokenizer.from_pretrained(folder)
    assert read.special_ids == whole.special_ids
    assert [text for text in texts[::5] if read.encode(text) != whole.encode(text)] == []


def test_vocabulary_and_merges_split_as_in_transformers(texts: list[str], tmp_path: Path) -> None:
    folder = split_up(published(tokenizer_from_gguf(byte_level_metadata("gpt-2")), tmp_path))
    (folder / "added_tokens.json").write_text('{"<|tool|>": 605}')
    theirs = transformers.GPT2Tokenizer.from_pretrained(folder)
    ours = AutoTokenizer.from_pretrained(folder)
    assert ours.token_to_id("<|tool|>") == 605
    assert [text for text in texts[::5] if ours.encode(text) != theirs.encode(text)] == []


def test_a_class_that_splits_otherwise_is_refused(tmp_path: Path) -> None:
    whole = tokenizer_from_gguf(byte_level_metadata("gpt-2"))
    folder = split_up(published(whole, tmp_path, tokenizer_class="CLIPTokenizer"))
    with pytest.raises(TokenizerError, match=r"'CLIPTokenizer' splits text is not known here.*save it once"):
        AutoTokenizer.from_pretrained(folder)


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = b""
    while value > 0x7F:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def field(number: int, value: int | bytes | float) -> bytes:
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    return varint(number << 3) + varint(value)


def sentencepiece_model(metadata: dict[str, Any]) -> bytes:
    """The same vocabulary as SentencePiece writes it."""
    rows = zip(*(metadata[GGML + name] for name in ("tokens", "scores", "token_type")), strict=True)
    pieces = b"".join(
        field(1, field(1, token.encode()) + field(2, float(score)) + field(3, kind)) for token, score, kind in rows
    )
    bpe = metadata[GGML + "model"] == "llama"
    ids = [metadata.get(GGML + f"{name}_token_id", -1) for name in ("unknown", "bos", "eos", "padding")]
    trainer = field(3, 2 if bpe else 1) + b"".join(field(40 + at, token) for at, token in enumerate(ids))
    prefix = metadata.get(GGML + "add_space_prefix", bpe)
    return pieces + field(2, trainer) + field(3, field(1, b"identity") + field(3, int(prefix)) + field(4, 0))


@pytest.mark.parametrize("metadata", [sentencepiece_metadata(), unigram_metadata()], ids=["bpe", "unigram"])
def test_a_sentencepiece_model_alone(metadata: dict[str, Any], texts: list[str], tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(sentencepiece_model(metadata))
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    read, whole = AutoTokenizer.from_pretrained(tmp_path), tokenizer_from_gguf(metadata)
    shared = [text for text in texts[::5] if not re.search(r"(.)\1{19}", text)]
    assert [text for text in shared if read.encode(text) != whole.encode(text)] == []
    assert (read.eos_token_id, read.chat_template) == (whole.eos_token_id, "{{ messages }}")


def test_tiktoken_is_refused_with_a_way_out(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_text("IQ== 0\nIg== 1\n")
    with pytest.raises(TokenizerError, match=r"perhaps a tiktoken file.*save it once with Transformers"):
        AutoTokenizer.from_pretrained(tmp_path)
    (tmp_path / "tokenizer.model").rename(tmp_path / "qwen.tiktoken")
    with pytest.raises(TokenizerError, match=r"qwen.tiktoken, which is not read here"):
        AutoTokenizer.from_pretrained(tmp_path)


SMALL_MODEL = sentencepiece_model({name: value[:40] if isinstance(value, list) else value
                                   for name, value in unigram_metadata().items()})  # fmt: skip


@given(st.data())
def test_damaged_sentencepiece_models_give_one_error(data: st.DataObject) -> None:
    content = bytearray(SMALL_MODEL)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        model = parse_model(bytes(content[: data.draw(st.integers(1, len(content)))]), "m")
    except TokenizerError:
        return
    assert len(model.tokens) == len(model.scores) == len(model.types)


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json", "model.safetensors"])
def test_a_file_of_the_folder_stands_for_it(name: str, byte_level: Tokenizer, tmp_path: Path) -> None:
    published(byte_level, tmp_path)
    (tmp_path / name).touch()
    assert AutoTokenizer.from_pretrained(tmp_path / name).vocab_size == byte_level.vocab_size


PRINT = "{{ messages[0].content }}"


@pytest.mark.parametrize(
    "template",
    [
        [{"name": "default", "template": "d" + PRINT}, {"name": "tool-use", "template": "t" + PRINT}],
        [{"name": "default", "template": "d" + PRINT}, {"name": "tool_use", "template": "t" + PRINT}],
        {"default": "d" + PRINT, "tool-use": "t" + PRINT, "rag 2.0": PRINT},
    ],
)
def test_templates_of_any_name(template: Any, byte_level: Tokenizer, tmp_path: Path) -> None:
    read = AutoTokenizer.from_pretrained(published(byte_level, tmp_path, chat_template=template))
    messages = [{"role": "user", "content": "x"}]
    assert read.apply_chat_template(messages) == "dx"
    assert read.apply_chat_template(messages, tools=[{}]) == "tx"
    again = AutoTokenizer.from_pretrained(published(read, tmp_path / "again"))
    assert again.apply_chat_template(messages, tools=[{}]) == "tx"


def test_files_as_windows_and_python_write_them(byte_level: Tokenizer, tmp_path: Path) -> None:
    folder = published(byte_level, tmp_path, model_max_length=float("inf"), clean_up=float("nan"))
    for name in ("tokenizer_config.json", "tokenizer.json"):
        (folder / name).write_bytes(b"\xef\xbb\xbf" + (folder / name).read_bytes())
    config = (folder / "tokenizer_config.json").read_text("utf-8-sig")
    (folder / "tokenizer_config.json").write_text(config.rstrip()[:-1] + ', "x": 1, "x": 2}')
    assert AutoTokenizer.from_pretrained(folder).config["x"] == 2


class TestEndTokens:
    def ends(self, tokenizer: Tokenizer) -> set[str | None]:
        return {tokenizer.id_to_token(token) for token in tokenizer.end_ids}

    def test_special_tokens_of_a_folder_by_name(self, byte_level: Tokenizer, tmp_path: Path) -> None:
        """The config ends at <|endoftext|>, the template's turns at <|im_end|>."""
        folder = published(byte_level, tmp_path, eos_token="<|endoftext|>")
        assert self.ends(AutoTokenizer.from_pretrained(folder)) == {"<|endoftext|>", "<|im_end|>"}

    @pytest.mark.parametrize("value", [3, [3, 0], [3, 10**9]])
    def test_generation_config(self, value: Any, byte_level: Tokenizer, tmp_path: Path) -> None:
        folder = published(byte_level, tmp_path)
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": value}))
        assert self.ends(AutoTokenizer.from_pretrained(folder)) == {"<|endoftext|>", "<|im_end|>", "<think>"}

    def test_a_plain_token_of_a_folder_is_text(self, byte_level: Tokenizer, tmp_path: Path) -> None:
        folder = published(byte_level, tmp_path)
        spec = json.loads((folder / "tokenizer.json").read_text())
        at = spec["model"]["vocab"].pop("[PAD4]")
        spec["model"]["vocab"]["</s>"] = at
        (folder / "tokenizer.json").write_text(json.dumps(spec))
        assert "</s>" not in self.ends(AutoTokenizer.from_pretrained(folder))

    @pytest.mark.parametrize("key", ["eos_token_id", "eot_token_id", "eom_token_id", "fim_pad_token_id"])
    def test_declared_in_gguf(self, key: str) -> None:
        assert 9 in tokenizer_from_gguf(byte_level_metadata() | {GGML + key: 9}).end_ids

    def test_a_part_of_an_answer_in_the_format_of_gpt_oss(self) -> None:
        metadata = byte_level_metadata()
        metadata[GGML + "tokens"] = [*metadata[GGML + "tokens"], "<|return|>", "<|call|>", "<|end|>"]
        metadata[GGML + "token_type"] = [*metadata[GGML + "token_type"], 3, 3, 3]
        assert "<|end|>" not in self.ends(tokenizer_from_gguf(metadata))
        assert "<|call|>" in self.ends(tokenizer_from_gguf(metadata))


@pytest.mark.parametrize("value", [-1, 2**32 - 1, 605])
@pytest.mark.parametrize("key", ["bos", "eos", "unknown", "padding", "seperator", "mask", "eot"])
def test_special_ids_outside_the_vocabulary_are_none(key: str, value: int) -> None:
    metadata = byte_level_metadata() | {f"{GGML}{key}_token_id": value}
    tokenizer = tokenizer_from_gguf(metadata)
    name = {"bos": "bos_token", "eos": "eos_token", "padding": "pad_token"}.get(key)
    assert name is None or name not in tokenizer.special_tokens


def test_tokens_that_are_no_utf8() -> None:
    metadata = byte_level_metadata()
    metadata[GGML + "tokens"] = [*metadata[GGML + "tokens"], "\udcc3", "\udcc4", "\udcc3\udcc3"]
    metadata[GGML + "token_type"] = [*metadata[GGML + "token_type"], 1, 1, 1]
    metadata[GGML + "merges"] = [*metadata[GGML + "merges"], "\udcc3 \udcc3"]
    tokenizer = tokenizer_from_gguf(metadata)
    assert tokenizer.vocab_size == len(metadata[GGML + "tokens"])
    assert set(tokenizer.decode([tokenizer.vocab_size - 1])) == {"\ufffd"}
    assert tokenizer.encode("the fox") == tokenizer_from_gguf(byte_level_metadata()).encode("the fox")


def test_nothing_else_is_needed(byte_level: Tokenizer, tmp_path: Path) -> None:
    published(byte_level, tmp_path)
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(tmp_path / "tokenizer.json", alone)
    assert AutoTokenizer.from_pretrained(alone).encode("the fox") == byte_level.encode("the fox")


def test_several_texts_at_once() -> None:
    tokenizer = AutoTokenizer.from_pretrained("smollm2")
    assert tokenizer.encode_batch(["one", "two three"]) == [tokenizer.encode("one"), tokenizer.encode("two three")]
    with pytest.raises(TokenizerError, match="encode takes a text, not list; encode_batch takes several"):
        tokenizer.encode(["one"])  # type: ignore[arg-type]
    with pytest.raises(TokenizerError, match=r"not called: encode\(text\)"):
        tokenizer("a text", return_tensors="pt")


FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
MARKED = ["a <|im_end|> b", "<new>the", " the  <tool> x", "the  <|im_end|>  fox"]


@pytest.mark.parametrize(
    "config",
    [
        {"added_tokens_decoder": {"605": {"content": "<tool>", **FLAGS, "special": False}}},
        {"added_tokens_decoder": {"2": {"content": "<|im_end|>", **FLAGS, "lstrip": True, "rstrip": True}}},
        {"extra_special_tokens": ["<new>", "<tool>"]},
        {"extra_special_tokens": {"image_token": "<new>"}},
        {"additional_special_tokens": ["<new>"], "extra_special_tokens": ["<tool>"]},
        {"eos_token": {"__type": "AddedToken", "content": "<|im_end|>", **FLAGS}},
    ],
)
def test_added_tokens_of_the_config_as_in_transformers(
    config: dict[str, Any], byte_level: Tokenizer, tmp_path: Path
) -> None:
    folder = published(byte_level, tmp_path, **config)
    theirs, ours = transformers.AutoTokenizer.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    for text in MARKED:
        assert ours.encode(text) == theirs.encode(text)
        assert ours.encode(text, parse_special=False) == ours.encode_chat(
            [{"role": "user", "content": text}], chat_template="{{ messages[0].content }}"
        )
