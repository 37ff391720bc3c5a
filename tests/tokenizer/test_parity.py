"""Token ids equal Transformers' on two thousand strings."""

import json
import re
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import transformers

from deepseek.tokenizer import AutoTokenizer, Tokenizer


def _differences(ours: Tokenizer, theirs: Any, texts: list[str]) -> list[str]:
    return [text for text in texts if ours.encode(text) != theirs.encode(text)]


def test_the_texts_are_what_the_issue_asks_for(texts: list[str]) -> None:
    together = "".join(texts)
    assert len(texts) == 2000
    for needed in ("你好", "السلام", "\u200d", "def f", " " * 17, "\x00", "<|im_end|>", "a" * 300, "\n\n", "\t"):
        assert needed in together


@pytest.mark.parametrize("name", ["deepseek", "qwen"])
def test_folder_equals_transformers(name: str, request: pytest.FixtureRequest, texts: list[str]) -> None:
    folder = request.getfixturevalue({"deepseek": "deepseek_folder", "qwen": "qwen_path"}[name])
    ours, theirs = request.getfixturevalue(name), transformers.AutoTokenizer.from_pretrained(folder)
    assert _differences(ours, theirs, texts) == []
    for text in texts[::7]:
        ids = ours.encode(text)
        assert ours.decode(ids) == theirs.decode(ids)
        assert ours.decode(ids, skip_special_tokens=True) == theirs.decode(ids, skip_special_tokens=True)


def test_smollm2_from_gguf_equals_transformers(smollm2: Tokenizer, smollm2_gguf: Path, texts: list[str]) -> None:
    """Transformers 5.23 does not know the pre-tokenizer `smollm`: it does not cut digits off first.

    The original tokenizer.json does, and llama.cpp (see test_llama_cpp.py). In this vocabulary it shows after two
    blanks and for numbers that are no ASCII digits. So: equal as it is on the other texts, and equal on all texts once
    Transformers is given the original's pre-tokenizer.
    """
    from tokenizers import pre_tokenizers

    theirs = transformers.AutoTokenizer.from_pretrained(smollm2_gguf.parent, gguf_file=smollm2_gguf.name)
    plain = [text for text in texts if not re.search(r"\s\s\d", text) and "".join(filter(_is_number, text)).isascii()]
    assert len(plain) > 1500
    assert _differences(smollm2, theirs, plain) == []
    theirs.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    assert _differences(smollm2, theirs, texts) == []


def _is_number(character: str) -> bool:
    return unicodedata.category(character).startswith("N")


def test_bos_follows_the_post_processor_and_not_the_config(byte_level: Tokenizer, tmp_path: Path) -> None:
    spec = json.loads(byte_level.to_json())
    bos, eos = "<|im_start|>", "<|im_end|>"
    config = {"bos_token": bos, "eos_token": eos, "add_eos_token": True, "tokenizer_class": "PreTrainedTokenizerFast"}
    spec["post_processor"] = {
        "type": "TemplateProcessing", "pair": [{"Sequence": {"id": "A", "type_id": 0}}],
        "single": [{"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "special_tokens": {bos: {"id": bos, "ids": [1], "tokens": [bos]}},
    }  # fmt: skip
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    ours, theirs = AutoTokenizer.from_pretrained(tmp_path), transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert ours.encode("hi") == theirs.encode("hi") == [1, *ours.encode("hi", add_special_tokens=False)]
    literal = ours.encode("<think>", parse_special=False)
    assert literal[0] == 1
    assert len(literal) > 3
    assert (ours.bos_token_id, ours.eos_token_id, ours.pad_token_id) == (1, 2, None)


@pytest.mark.parametrize("name", ["sentencepiece", "unigram", "byte_level"])
def test_saved_tiny_folder_loads_in_transformers(
    name: str, request: pytest.FixtureRequest, texts: list[str], tmp_path: Path
) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(name)
    tokenizer.save_pretrained(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert _differences(tokenizer, theirs, texts) == []
    for text in texts:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == theirs.decode(ids)


def test_saved_folder_loads_in_transformers(smollm2: Tokenizer, texts: list[str], tmp_path: Path) -> None:
    smollm2.save_pretrained(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert _differences(smollm2, theirs, texts) == []
    assert _differences(smollm2, AutoTokenizer.from_pretrained(tmp_path), texts) == []
    assert theirs.chat_template == smollm2.chat_template
    assert (theirs.bos_token_id, theirs.eos_token_id) == (smollm2.bos_token_id, smollm2.eos_token_id)
