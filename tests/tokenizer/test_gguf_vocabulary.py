"""GGUF metadata to a tokenizer and back."""

import json
from pathlib import Path
from typing import Any

import pytest

from deepseek.errors import TokenizerError
from deepseek.tokenizer import AutoTokenizer, Tokenizer, tokenizer_from_gguf, tokenizer_to_gguf
from deepseek.tokenizer.pre_tokenizers import KNOWN_NAMES, PRE_TOKENIZERS, named
from tiny_vocabularies import byte_level_metadata, sentencepiece_metadata, unigram_metadata

KINDS = {"gpt2": byte_level_metadata, "llama": sentencepiece_metadata, "t5": unigram_metadata}


@pytest.mark.parametrize("kind", KINDS)
def test_round_trip_keeps_ids(kind: str, texts: list[str], tmp_path: Path) -> None:
    metadata = KINDS[kind]()
    first = tokenizer_from_gguf(metadata | {"tokenizer.chat_template": "T", "tokenizer.chat_template.tool_use": "U"})
    first.save_pretrained(tmp_path)
    second = AutoTokenizer.from_pretrained(tmp_path)
    written = tokenizer_to_gguf(second)
    third = tokenizer_from_gguf(written)
    for text in texts:
        assert first.encode(text) == second.encode(text) == third.encode(text)
    assert written["tokenizer.ggml.tokens"] == metadata["tokenizer.ggml.tokens"]
    assert written["tokenizer.ggml.token_type"] == metadata["tokenizer.ggml.token_type"]
    for tokenizer in (second, third):
        assert tokenizer.templates == {"default": "T", "tool_use": "U"}
        assert tokenizer.special_tokens == first.special_tokens
        assert tokenizer.special_ids == first.special_ids


def test_smollm2_goes_there_and_back(smollm2: Tokenizer, texts: list[str]) -> None:
    written = tokenizer_to_gguf(smollm2)
    assert written["tokenizer.ggml.pre"] == "smollm"
    again = tokenizer_from_gguf(written)
    assert [text for text in texts if again.encode(text) != smollm2.encode(text)] == []
    assert tokenizer_to_gguf(again) == written


@pytest.mark.parametrize(("name", "pre"), [("deepseek", "deepseek-v3"), ("qwen", "qwen2")])
def test_folders_become_gguf(name: str, pre: str, request: pytest.FixtureRequest, texts: list[str]) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(name)
    written = tokenizer_to_gguf(tokenizer, vocab_size=tokenizer.vocab_size + 3)
    assert written["tokenizer.ggml.pre"] == pre
    again = tokenizer_from_gguf(written)
    assert [text for text in texts[::4] if again.encode(text) != tokenizer.encode(text)] == []
    assert written["tokenizer.ggml.tokens"][-1] == f"[PAD{tokenizer.vocab_size + 2}]"
    assert written["tokenizer.ggml.token_type"][-3:] == [5, 5, 5]


def test_turn_markers_are_control_tokens_even_where_the_file_forgot(deepseek: Tokenizer) -> None:
    """llama.cpp reads user-defined tokens out of any user's text."""
    types = tokenizer_to_gguf(deepseek)["tokenizer.ggml.token_type"]
    assert deepseek.token_to_id("<｜User｜>") not in deepseek.special_ids
    assert types[deepseek.token_to_id("<｜User｜>")] == 3
    assert types[deepseek.token_to_id("<think>")] == 4


def test_every_pre_tokenizer_is_recognised() -> None:
    for entry in PRE_TOKENIZERS:
        metadata = byte_level_metadata(entry.names[0], size=300)
        written = tokenizer_to_gguf(tokenizer_from_gguf(metadata))["tokenizer.ggml.pre"]
        assert named(written).spec() == entry.spec()  # the same under another name is the same
    assert {"smollm", "gpt-2", "default", "llama-bpe", "llama3", "llama-v3", "qwen2"} <= set(KNOWN_NAMES)
    assert {"deepseek-llm", "deepseek-coder", "deepseek-v3", "deepseek-r1-qwen"} <= set(KNOWN_NAMES)


def test_unknown_pre_tokenizers_are_refused_by_name(byte_level: Tokenizer) -> None:
    with pytest.raises(TokenizerError, match=r"'klingon' is not known; known are .*deepseek-v3.*qwen2"):
        tokenizer_from_gguf(byte_level_metadata() | {"tokenizer.ggml.pre": "klingon"})
    spec = json.loads(byte_level.to_json())
    spec["pre_tokenizer"] = {"type": "Whitespace"}
    odd = Tokenizer(spec, byte_level.config)
    with pytest.raises(TokenizerError, match="pass pre="):
        tokenizer_to_gguf(odd)
    assert tokenizer_to_gguf(odd, pre="klingon")["tokenizer.ggml.pre"] == "klingon"


def test_llama3_takes_whole_words_first() -> None:
    metadata = byte_level_metadata("llama-bpe")
    metadata["tokenizer.ggml.tokens"] += ["zqzqzq"]
    metadata["tokenizer.ggml.token_type"] += [1]
    whole = len(metadata["tokenizer.ggml.tokens"]) - 1
    metadata["tokenizer.ggml.add_bos_token"] = False
    assert tokenizer_from_gguf(metadata).encode("zqzqzq") == [whole]
    assert tokenizer_from_gguf(metadata | {"tokenizer.ggml.pre": "dbrx"}).encode("zqzqzq") != [whole]


@pytest.mark.parametrize(
    ("kind", "flags", "before", "after"),
    [
        ("gpt2", {}, [], []),
        ("gpt2", {"add_bos_token": True, "add_eos_token": True}, [1], [2]),
        ("llama", {}, [1], []),
        ("llama", {"add_bos_token": False}, [], []),
        ("t5", {}, [], [1]),
    ],
)
def test_bos_and_eos_defaults_are_llama_cpps(kind: str, flags: dict[str, bool], before: Any, after: Any) -> None:
    metadata = KINDS[kind]() | {f"tokenizer.ggml.{name}": value for name, value in flags.items()}
    tokenizer = tokenizer_from_gguf(metadata)
    inner = tokenizer.encode("the fox", add_special_tokens=False)
    assert tokenizer.encode("the fox") == [*before, *inner, *after]
    written = tokenizer_to_gguf(tokenizer)
    assert written["tokenizer.ggml.add_bos_token"] is bool(before)
    assert written["tokenizer.ggml.add_eos_token"] is bool(after)


def test_spaces_of_sentencepiece() -> None:
    metadata = sentencepiece_metadata()
    with_prefix = tokenizer_from_gguf(metadata)
    without = tokenizer_from_gguf(metadata | {"tokenizer.ggml.add_space_prefix": False})
    assert with_prefix.encode("the") == [1, *without.encode(" the", add_special_tokens=False)]
    assert without.decode(without.encode(" the", add_special_tokens=False)) == " the"
    assert with_prefix.decode(with_prefix.encode(" the", add_special_tokens=False)) == " the"


def test_deepseeks_first_letters_are_cased_letters() -> None:
    """The long list of ranges in the pattern, checked against Unicode: nothing in it but cased letters."""
    import unicodedata

    pattern = named("deepseek-llm").steps[1]["pattern"]["Regex"]
    inside = pattern[pattern.index("[") + 1 : pattern.index("]")]
    assert len(inside) > 200
    letters = [character for character in inside if character != "-"]
    assert {unicodedata.category(letter) for letter in letters} <= {"Lu", "Ll", "Lt"}


def test_a_vocabulary_size_below_the_tokens_is_refused(byte_level: Tokenizer) -> None:
    with pytest.raises(TokenizerError, match="vocab_size 10 is less"):
        tokenizer_to_gguf(byte_level, vocab_size=10)
