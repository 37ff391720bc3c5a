"""Reading `tokenizer.json`: checked in Python first, then built by the `tokenizers` library.

The library trusts its input (it aborts or takes gigabytes on a bad one), so sizes, ids, merges and scores are checked
before it sees them.
"""

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from deepseek.errors import DeepseekError, TokenizerError

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

_Result = TypeVar("_Result")

MAX_FILE_BYTES = 64 * 1024 * 1024
MAX_CONFIG_BYTES = 4 * 1024 * 1024
MAX_TOKENS = 2**20
MAX_MERGES = 2**21
MAX_TOKEN_CHARACTERS = 1024
MAX_VOCABULARY_CHARACTERS = 32 * 1024 * 1024
MAX_PATTERN_CHARACTERS = 16 * 1024


def read_json(path: Path, limit: int, *, as_python: bool = False) -> dict[str, Any]:
    """A JSON object from a file of at most `limit` bytes, perhaps with a byte order mark.

    Duplicate keys and NaN are refused, except as_python: what Python's json writes and reads, for configurations.
    """
    strict: dict[str, Any] = {"object_pairs_hook": _unique_keys, "parse_constant": _no_constant}
    text = read_text(path, limit)
    return _parse_json(text, str(path), {} if as_python else strict)


def read_text(path: Path, limit: int) -> str:
    """A UTF-8 file of at most `limit` bytes, with or without a byte order mark."""
    try:
        size = os.stat(path).st_size
        if size > limit:
            raise TokenizerError(f"{path}: {size:,} bytes are more than the {limit:,} allowed here")
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise TokenizerError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise TokenizerError(f"{path}: not valid JSON or text: it is not UTF-8 ({error})") from error


def _parse_json(text: str, where: str, hooks: dict[str, Any]) -> dict[str, Any]:
    try:
        value = json.loads(text, **hooks)
    except RecursionError:
        raise TokenizerError(f"{where}: nested too deeply") from None
    except ValueError as error:
        raise TokenizerError(f"{where}: not valid JSON: {error!s:.200}") from error
    if not isinstance(value, dict):
        raise TokenizerError(f"{where}: must be a JSON object, not {type(value).__name__}")
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice!r:.80} is there twice")
    return value


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def build_backend(spec: Mapping[str, Any], where: str) -> "Backend":
    """The library's tokenizer for a `tokenizer.json` that `check` passed, without truncation, padding and dropout.

    Dropout of merges is for training a model: with it the same text has other ids each time.
    """
    spec = {**spec, "model": {**spec["model"], "dropout": None}} if spec["model"].get("dropout") else spec
    backend = load_backend(json.dumps(spec, ensure_ascii=False), where)
    backend.no_truncation()
    backend.no_padding()
    for added in spec.get("added_tokens") or ():
        if backend.token_to_id(added["content"]) != added["id"]:
            got = backend.token_to_id(added["content"])
            raise TokenizerError(
                f"{where}: added token {added['content']!r:.80} says id {added['id']} but gets {got}: ids of added "
                "tokens continue the vocabulary without gaps or repeat a token of it"
            )
    return backend


def load_backend(text: str, where: str) -> "Backend":
    from tokenizers import Tokenizer as Backend

    return guarded(lambda: Backend.from_str(text), where)


def guarded(work: Callable[[], _Result], where: str) -> _Result:
    """Run a call into the library; its errors and its Rust panics become `TokenizerError`."""
    try:
        return work()
    except DeepseekError:
        raise
    except Exception as error:
        raise TokenizerError(f"{where}: {error!s:.300}") from error
    except BaseException as error:
        if type(error).__name__ == "PanicException":
            raise TokenizerError(f"{where}: the tokenizer is inconsistent: {error!s:.300}") from None
        raise


def check(spec: Mapping[str, Any], where: str) -> None:
    """Refuse a `tokenizer.json` that is malformed, contradictory or too large."""
    model = spec.get("model")
    if not isinstance(model, dict):
        raise TokenizerError(f"{where}: model is missing")
    kind = model.get("type") or ("BPE" if "merges" in model else None)
    if kind == "BPE":
        _check_bpe(model, where)
    elif kind == "Unigram":
        _check_unigram(model, where)
    else:
        raise TokenizerError(f"{where}: model type {kind!r:.60} is not supported; known are BPE and Unigram")
    _check_added(spec.get("added_tokens"), where)
    _check_patterns({key: value for key, value in spec.items() if key not in ("model", "added_tokens")}, where)


def check_tokens(tokens: Any, where: str) -> None:
    """Every token a text of bounded length, all of them together bounded."""
    if len(tokens) == 0:
        raise TokenizerError(f"{where}: the vocabulary is empty")
    if len(tokens) > MAX_TOKENS:
        raise TokenizerError(f"{where}: {len(tokens):,} tokens are more than the {MAX_TOKENS:,} allowed")
    total = 0
    for token in tokens:
        if not isinstance(token, str):
            raise TokenizerError(f"{where}: a token is {type(token).__name__}, not a text")
        if len(token) > MAX_TOKEN_CHARACTERS:
            raise TokenizerError(f"{where}: token {token!r:.40}... has more than {MAX_TOKEN_CHARACTERS} characters")
        total += len(token)
    if total > MAX_VOCABULARY_CHARACTERS:
        raise TokenizerError(f"{where}: the vocabulary has more than {MAX_VOCABULARY_CHARACTERS:,} characters")
    try:
        "".join(tokens).encode()
    except UnicodeEncodeError:
        raise TokenizerError(f"{where}: a token holds half a surrogate pair, which is not valid text") from None


def check_id(value: Any, count: int, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < count:
        raise TokenizerError(f"{where}: {value!r:.60} is not a token id: expected 0 to {count - 1}")
    return value


def check_score(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise TokenizerError(f"{where}: the score {value!r:.60} is not a finite number")
    return float(value)


def _check_bpe(model: Mapping[str, Any], where: str) -> None:
    vocabulary, merges = model.get("vocab"), model.get("merges")
    if not isinstance(vocabulary, dict) or not isinstance(merges, list):
        raise TokenizerError(f"{where}: model.vocab must be an object and model.merges a list")
    check_tokens(vocabulary, f"{where}: model.vocab")
    for token, token_id in vocabulary.items():
        check_id(token_id, MAX_TOKENS, f"{where}: model.vocab[{token!r:.60}]")
    if len(set(vocabulary.values())) != len(vocabulary):
        raise TokenizerError(f"{where}: model.vocab gives one id to two tokens")
    check_merges(merges, vocabulary, f"{where}: model.merges", model.get("continuing_subword_prefix") or "")


def check_merges(merges: list[Any], vocabulary: Any, where: str, prefix: str = "") -> list[tuple[str, str]]:
    """Merges as pairs, from "left right" or [left, right]; both sides and the result must be tokens."""
    if len(merges) > MAX_MERGES:
        raise TokenizerError(f"{where}: {len(merges):,} merges are more than the {MAX_MERGES:,} allowed")
    if not isinstance(prefix, str) or prefix:
        raise TokenizerError(f"{where}: continuing_subword_prefix is not supported")
    pairs = []
    for place, merge in enumerate(merges):
        parts = merge.split(" ") if isinstance(merge, str) else merge
        left, right = parts if isinstance(parts, (list, tuple)) and len(parts) == 2 else (None, None)
        if not isinstance(left, str) or not isinstance(right, str):
            raise TokenizerError(f"{where}[{place}]: {merge!r:.60} is not a pair of tokens")
        if not left or not right or left not in vocabulary or right not in vocabulary or left + right not in vocabulary:
            raise TokenizerError(f"{where}[{place}]: {merge!r:.60} names a token that is not in the vocabulary")
        pairs.append((left, right))
    return pairs


def _check_unigram(model: Mapping[str, Any], where: str) -> None:
    vocabulary = model.get("vocab")
    if not isinstance(vocabulary, list):
        raise TokenizerError(f"{where}: model.vocab must be a list of [token, score]")
    for entry in vocabulary:
        if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[0], str):
            raise TokenizerError(f"{where}: model.vocab holds {entry!r:.60}, not [token, score]")
        check_score(entry[1], f"{where}: model.vocab {entry[0]!r:.60}")
    tokens = [token for token, _ in vocabulary]
    check_tokens(tokens, f"{where}: model.vocab")
    if len(set(tokens)) != len(tokens):
        raise TokenizerError(f"{where}: model.vocab holds a token twice")
    if model.get("unk_id") is not None:
        check_id(model["unk_id"], len(tokens), f"{where}: model.unk_id")


def _check_added(added: Any, where: str) -> None:
    if added is None:
        return
    if not isinstance(added, list) or len(added) > MAX_TOKENS:
        raise TokenizerError(f"{where}: added_tokens must be a list of at most {MAX_TOKENS:,}")
    contents, ids = [], []
    for place, token in enumerate(added):
        content = token.get("content") if isinstance(token, dict) else None
        if not isinstance(content, str) or not content:
            raise TokenizerError(f"{where}: added_tokens[{place}] needs an id and a content that is not empty")
        contents.append(content)
        ids.append(check_id(token.get("id"), MAX_TOKENS, f"{where}: added_tokens[{place}].id"))
    if contents:
        check_tokens(contents, f"{where}: added_tokens")
    different = set(zip(contents, ids, strict=True))  # the same token twice says nothing new
    if len(set(contents)) != len(different) or len(set(ids)) != len(different):
        raise TokenizerError(f"{where}: added_tokens gives two ids to a content or two contents to an id")


def _check_patterns(value: Any, where: str) -> None:
    """Patterns and charsmaps of bounded size, wherever they are in the normalizer and the rest."""
    if isinstance(value, str) and len(value) > 4 * 1024 * 1024:
        raise TokenizerError(f"{where}: holds a text of {len(value):,} characters")
    if isinstance(value, dict):
        pattern = value.get("Regex")
        if isinstance(pattern, str) and len(pattern) > MAX_PATTERN_CHARACTERS:
            raise TokenizerError(f"{where}: a pattern has more than {MAX_PATTERN_CHARACTERS:,} characters")
        for item in value.values():
            _check_patterns(item, where)
    elif isinstance(value, list):
        for item in value:
            _check_patterns(item, where)
