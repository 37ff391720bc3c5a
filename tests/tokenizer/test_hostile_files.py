"""Damaged and hostile tokenizers: one TokenizerError, bounded memory, whatever is in the file."""

import contextlib
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deepseek.errors import TokenizerError
from deepseek.tokenizer import AutoTokenizer, Tokenizer, tokenizer_from_gguf
from tiny_vocabularies import byte_level_metadata, sentencepiece_metadata, unigram_metadata

RELAXED = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
GGML = "tokenizer.ggml."
MISSING = object()


def changed(metadata: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    kept = {name: item for name, item in metadata.items() if name != GGML + key}
    return kept if value is MISSING else {**kept, GGML + key: value}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model", "bert", "model 'bert' is not known; known are"),
        ("model", MISSING, "model None is not known"),
        ("model", ["gpt2"], "is not known"),
        ("tokens", MISSING, "tokens is missing"),
        ("tokens", [], "vocabulary is empty"),
        ("tokens", [5] * 600, "a token is int"),
        ("tokens", ["x"] * 600, "holds 'x' twice"),
        ("tokens", ["x" * 5000], "more than 1024 characters"),
        ("tokens", ["\ud800", "a"], "half a surrogate"),
        ("token_type", [1], "differ in length"),
        ("token_type", ["a"], "differ in length"),
        ("merges", MISSING, "merges is missing"),
        ("merges", ["a"], r"merges\[0\]: 'a' is not a pair"),
        ("merges", ["a b c"], r"merges\[0\]: 'a b c' is not a pair"),
        ("merges", [7], "is not a pair"),
        ("merges", ["qqq zzz"], "names a token that is not in the vocabulary"),
        ("merges", [" a"], "names a token that is not in the vocabulary"),
        ("bos_token_id", 1.5, "bos_token_id: 1.5 is not a token id"),
        ("eos_token_id", "2", "eos_token_id: '2' is not a token id"),
        ("add_bos_token", 1, "add_bos_token must be a boolean"),
        ("pre", "unheard-of", "pre 'unheard-of' is not known"),
        ("pre", 5, "pre must be a name"),
    ],
)
def test_hostile_metadata_is_named(key: str, value: Any, message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        tokenizer_from_gguf(changed(byte_level_metadata(), key, value))


@pytest.mark.parametrize(
    ("scores", "message"),
    [([0.0], "differ in length"), ([float("nan")], "not a finite number"), (["x"], "not a finite number")],
)
@pytest.mark.parametrize("metadata", [sentencepiece_metadata(), unigram_metadata()], ids=["llama", "t5"])
def test_hostile_scores_are_named(metadata: dict[str, Any], scores: list[Any], message: str) -> None:
    count = len(metadata[GGML + "tokens"]) if "finite" in message else 1
    with pytest.raises(TokenizerError, match=message):
        tokenizer_from_gguf(changed(metadata, "scores", scores * count))


def test_types_and_templates_are_checked() -> None:
    metadata = byte_level_metadata()
    for kind in (9, -1, True, "x", [1], 2.5):
        types = [kind, *metadata[GGML + "token_type"][1:]]
        with pytest.raises(TokenizerError, match="is not 0 to 6"):
            tokenizer_from_gguf(changed(metadata, "token_type", types))
    for bad in ({"tokenizer.chat_template": 5}, {"tokenizer.chat_template.../x": "t"}):
        with pytest.raises(TokenizerError, match="plain name"):
            tokenizer_from_gguf(metadata | bad)


def test_a_charsmap_that_is_none_is_refused() -> None:
    for charsmap in (["a"], [1] * 3_000_000, "text", [255] * 64):
        with pytest.raises(TokenizerError):
            tokenizer_from_gguf(unigram_metadata() | {GGML + "precompiled_charsmap": charsmap})


def test_a_vocabulary_that_implies_endless_merges_is_refused() -> None:
    """A thousand long tokens of one letter have a million cuts; memory must not follow."""
    tokens = ["<unk>", *("a" * length for length in range(1, 1024)), *("b" + "a" * length for length in range(1, 1020))]
    tokens += [letter + "a" * length for letter in "cdefg" for length in range(1000)]
    metadata = {
        GGML + "model": "llama", GGML + "tokens": tokens, GGML + "scores": [0.0] * len(tokens),
        GGML + "token_type": [2] + [1] * (len(tokens) - 1), GGML + "unknown_token_id": 0,
    }  # fmt: skip
    with pytest.raises(TokenizerError, match="too long to cut"):
        tokenizer_from_gguf(metadata)


SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-5, 2**33), st.floats(), st.text(max_size=5), st.just([]))
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
)
KEYS = st.sampled_from(
    "model pre tokens scores token_type merges bos_token_id eos_token_id unknown_token_id padding_token_id "
    "add_bos_token add_eos_token add_space_prefix remove_extra_whitespaces precompiled_charsmap".split()
)


@RELAXED
@given(st.sampled_from([byte_level_metadata(), sentencepiece_metadata(), unigram_metadata()]), st.data())
def test_fuzzed_metadata_gives_only_one_error(metadata: dict[str, Any], data: st.DataObject) -> None:
    broken = dict(metadata)
    for _ in range(data.draw(st.integers(1, 3))):
        key = GGML + data.draw(KEYS)
        value = broken.get(key)
        if isinstance(value, list) and value and data.draw(st.booleans()):
            broken[key] = list(value)
            broken[key][data.draw(st.integers(0, len(value) - 1))] = data.draw(JSON)
        else:
            broken[key] = data.draw(JSON)
    with contextlib.suppress(TokenizerError):
        tokenizer = tokenizer_from_gguf(broken)
        tokenizer.decode(tokenizer.encode("the quick 世界 <|im_end|>"))
        tokenizer.encode("a <s>", parse_special=False)


@RELAXED
@given(name=st.sampled_from(["byte_level", "sentencepiece", "unigram"]), data=st.data())
def test_fuzzed_json_gives_only_one_error(
    name: str, data: st.DataObject, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    spec = json.loads(request.getfixturevalue(name).to_json())
    for _ in range(data.draw(st.integers(1, 3))):
        _spoil(spec, data)
    with contextlib.suppress(TokenizerError):
        tokenizer = Tokenizer(spec, {"bos_token": data.draw(JSON), "eos_token": "<|im_end|>"})
        tokenizer.decode(tokenizer.encode("the quick 世界 <|im_end|>"))
        tokenizer.encode("a <s>", parse_special=False)


def _spoil(node: Any, data: st.DataObject) -> None:
    """Replace, remove or add something somewhere in a JSON tree."""
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            return
        key = data.draw(st.sampled_from(keys[:12]))
        if isinstance(node[key], (dict, list)) and node[key] and data.draw(st.integers(0, 3)):
            node = node[key]
            continue
        if data.draw(st.booleans()):
            node[key] = data.draw(JSON)
        else:
            del node[key]
        return


def folder(tmp_path: Path, tokenizer: Any, **files: str) -> Path:
    text = tokenizer if isinstance(tokenizer, str) else json.dumps(tokenizer)
    (tmp_path / "tokenizer.json").write_text(text)
    for name, content in files.items():
        (tmp_path / f"{name}.json").write_text(content)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not valid JSON"),
        ("[]", "must be a JSON object"),
        ("{}", "model is missing"),
        ('{"model": {"type": "WordPiece"}}', "'WordPiece' is not supported; known are BPE and Unigram"),
        ('{"model": {"vocab": {"a": 0, "a": 1}}}', "the key 'a' is there twice"),
        ('{"model": NaN}', "NaN is not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ('{"model": ' + "9" * 5000 + "}", "not valid JSON"),
        ('{"model": {"type": "BPE", "vocab": {"a": 0, "b": 0}, "merges": []}}', "gives one id to two tokens"),
        ('{"model": {"type": "BPE", "vocab": {"a": 4000000000}, "merges": []}}', "is not a token id"),
        ('{"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}}', "is not a token id"),
        ('{"model": {"type": "Unigram", "vocab": [["a", 1e999]]}}', "not a finite number"),
        ('{"model": {"type": "Unigram", "vocab": [["a", 0], ["a", 0]]}}', "holds a token twice"),
        ('{"model": {"type": "Unigram", "vocab": [["a", 0]], "unk_id": 7}}', "unk_id: 7 is not a token id"),
    ],
)
def test_hostile_json_is_named(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=message) as caught:
        AutoTokenizer.from_pretrained(folder(tmp_path, text))
    assert str(tmp_path / "tokenizer.json") in str(caught.value)


def test_added_tokens_and_decoders_are_checked(byte_level: Tokenizer, tmp_path: Path) -> None:
    spec = json.loads(byte_level.to_json())
    added = {"id": 3, "content": "<new>", "special": True, "normalized": False}
    flags = {"single_word": False, "lstrip": False, "rstrip": False}
    for bad, message in (
        ([{**added, **flags, "id": 10**7}], "is not a token id"),
        ([{**added, **flags, "id": 5000}], "says id 5000 but gets"),
        ([{**added, **flags}, {**added, **flags, "content": "other"}], "two contents to an id"),
        ([{**added, **flags, "content": ""}], "not empty"),
        ("x", "must be a list"),
    ):
        with pytest.raises(TokenizerError, match=message):
            AutoTokenizer.from_pretrained(folder(tmp_path, {**spec, "added_tokens": bad}))
    with pytest.raises(TokenizerError, match="decoder 'WordPiece' is not supported"):
        AutoTokenizer.from_pretrained(folder(tmp_path, {**spec, "decoder": {"type": "WordPiece"}}))
    step = {"type": "Split", "pattern": {"Regex": "a" * 20_000}, "behavior": "Isolated", "invert": False}
    with pytest.raises(TokenizerError, match="a pattern has more than"):
        AutoTokenizer.from_pretrained(folder(tmp_path, {**spec, "pre_tokenizer": step}))


def test_configs_are_checked(byte_level: Tokenizer, tmp_path: Path) -> None:
    good = byte_level.to_json()
    for config, message in (
        ('{"bos_token": 5}', "bos_token must be a token"),
        ('{"chat_template": 5}', "chat_template must be a text"),
        ('{"chat_template": [{"name": "../x", "template": "t"}]}', "chat_template must be a text"),
        ('{"chat_template": [{"name": "x", "template": 5}]}', "chat_template must be a text"),
        ('{"additional_special_tokens": "x"}', "must be a list"),
        ('{"added_tokens_decoder": {"x": {"content": "y"}}}', "must map ids to tokens"),
        ("{", "not valid JSON"),
    ):
        with pytest.raises(TokenizerError, match=message):
            AutoTokenizer.from_pretrained(folder(tmp_path, good, tokenizer_config=config))


def test_large_files_are_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "tokenizer.json").open("wb") as file:
        file.truncate(10**9)
    tracemalloc.start()
    with pytest.raises(TokenizerError, match="bytes are more than"):
        AutoTokenizer.from_pretrained(tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_missing_files_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"holds neither tokenizer.json nor a .gguf file"):
        AutoTokenizer.from_pretrained(tmp_path)
    (tmp_path / "a.gguf").touch()
    (tmp_path / "b.gguf").touch()
    with pytest.raises(TokenizerError, match=r"2 GGUF models; give the path of one: a.gguf"):
        AutoTokenizer.from_pretrained(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "x.txt").touch()
    with pytest.raises(TokenizerError, match=r"holds neither tokenizer.json nor a .gguf file"):
        AutoTokenizer.from_pretrained(tmp_path / "sub" / "x.txt")


def test_a_failed_save_leaves_the_old_files(
    byte_level: Tokenizer, sentencepiece: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sentencepiece.save_pretrained(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        byte_level.save_pretrained(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_texts_are_checked(byte_level: Tokenizer) -> None:
    with pytest.raises(TokenizerError, match="half a surrogate"):
        byte_level.encode("\ud83d")
    with pytest.raises(TokenizerError, match="takes a text, not bytes"):
        byte_level.encode(b"x")  # type: ignore[arg-type]


def test_the_package_is_cheap_to_import() -> None:
    import subprocess
    import sys

    heavy = ("tokenizers", "jinja2", "torch", "transformers")
    code = f"import sys, deepseek.tokenizer; print([name for name in {heavy} if name in sys.modules])"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"
