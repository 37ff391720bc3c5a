"""tokenizer_config.json: keys that nobody reads and values that say nothing are passed over."""

import json
from pathlib import Path
from typing import Any

import pytest

from deepseek.tokenizer import AutoTokenizer, Tokenizer

TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
PLAIN: dict[str, Any] = {"chat_template": TEMPLATE}
MESSAGES = [{"role": "user", "content": "hello"}]

SAYS_NOTHING: dict[str, dict[str, Any]] = {
    "unknown": {"foo": [1, {"a": None}], "unsloth_version": "1"},
    "not a number": {"x": float("nan"), "y": float("inf")},
    "length": {"model_max_length": 1e30},
    "length of another type": {"model_max_length": "long"},
    "nulls": {"add_bos_token": None, "add_prefix_space": None, "clean_up_tokenization_spaces": None},
    "no tokens": {"bos_token": None, "pad_token": "", "unk_token": False, "mask_token": None},
    "no lists": {"additional_special_tokens": None, "added_tokens_decoder": None, "extra_special_tokens": {}},
    "code": {"auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]}, "tokenizer_class": None},
    "sides": {"padding_side": "middle", "truncation_side": None},
    "SentencePiece": {"sp_model_kwargs": {}, "legacy": False, "use_default_system_prompt": False},
}


def written(folder: Path, tokenizer: Tokenizer, config: bytes) -> Tokenizer:
    (folder / "tokenizer.json").write_text(tokenizer.to_json())
    (folder / "tokenizer_config.json").write_bytes(config)
    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("name", SAYS_NOTHING)
def test_what_says_nothing_changes_nothing(name: str, byte_level: Tokenizer, tmp_path: Path) -> None:
    plain = written(tmp_path, byte_level, json.dumps(PLAIN).encode())
    expected = plain.encode("hello world"), plain.encode_chat(MESSAGES), plain.eos_token_id
    given = written(tmp_path, byte_level, json.dumps({**PLAIN, **SAYS_NOTHING[name]}).encode())
    assert (given.encode("hello world"), given.encode_chat(MESSAGES), given.eos_token_id) == expected


def test_byte_order_marks_and_names_that_occur_twice(byte_level: Tokenizer, tmp_path: Path) -> None:
    config = b'\xef\xbb\xbf{"chat_template": "other", "chat_template": ' + json.dumps(TEMPLATE).encode() + b"}"
    assert written(tmp_path, byte_level, config).chat_template == TEMPLATE


@pytest.mark.parametrize("empty", ["", [], {}, None])
def test_an_empty_template_is_none(empty: Any, byte_level: Tokenizer, tmp_path: Path) -> None:
    """Used as it stands it would drop all that the user says."""
    config = json.dumps({"chat_template": empty}).encode()
    assert written(tmp_path, byte_level, config).chat_template is None
