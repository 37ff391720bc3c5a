"""Tokenizers of folders without `tokenizer.json`: `vocab.json` with `merges.txt`, and SentencePiece's model file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deepseek.errors import TokenizerError
from deepseek.tokenizer.from_gguf import spec_from_gguf
from deepseek.tokenizer.pre_tokenizers import named
from deepseek.tokenizer.sentencepiece_file import SentencePieceModel, parse_model
from deepseek.tokenizer.special_tokens import special_names
from deepseek.tokenizer.tokenizer_json import MAX_FILE_BYTES, MAX_MERGES, check_id, read_json, read_text

VOCABULARY, MERGES, ADDED = "vocab.json", "merges.txt", "added_tokens.json"
SENTENCEPIECE = ("tokenizer.model", "spiece.model")

_SAVE_ONCE = (
    "save it once with Transformers (AutoTokenizer.from_pretrained(...).save_pretrained(...)) and use that folder"
)
_QWEN = ("Qwen2Tokenizer", "Qwen2TokenizerFast")
_GPT2 = ("GPT2Tokenizer", "GPT2TokenizerFast", "CodeGenTokenizer", "PreTrainedTokenizerFast", "TokenizersBackend")
_FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}


def has_older_files(folder: Path) -> bool:
    pair = (folder / VOCABULARY).is_file() and (folder / MERGES).is_file()
    return pair or any((folder / name).is_file() for name in SENTENCEPIECE)


def read_older_files(folder: Path, config: dict[str, Any], model_type: str) -> dict[str, Any]:
    """The `tokenizer.json` that these files mean. Adds to `config` the special tokens that only they name."""
    if (folder / VOCABULARY).is_file() and (folder / MERGES).is_file():
        return _byte_level(folder, config, model_type)
    path = next((folder / name for name in SENTENCEPIECE if (folder / name).is_file()), None)
    if path is not None:
        return _sentencepiece(path, config)
    tiktoken = next(iter(sorted(folder.glob("*.tiktoken"))), None)
    what = f"{tiktoken.name}, which is not read here" if tiktoken else "neither tokenizer.json nor a .gguf file"
    raise TokenizerError(
        f"{folder}: holds {what}. If the model's tokenizer is of another kind, {_SAVE_ONCE}; if it is in another "
        "folder, copy its files here; a model of your own is saved with it by model.save_pretrained(folder, tokenizer)"
    )


def tokens_beside(path: Path, spec: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What added_tokens.json adds to a `tokenizer.json`, as an `added_tokens_decoder`: some tools write only there."""
    added = spec.get("added_tokens")
    known = {token.get("content") for token in added if isinstance(token, dict)} if isinstance(added, list) else set()
    special = set(special_names(config, str(path)).values())
    return {
        str(check_id(token_id, 1 << 20, f"{path}: {content!r:.60}")): {
            "content": content, **_FLAGS, "normalized": content not in special, "special": content in special,
        }
        for content, token_id in read_json(path, MAX_FILE_BYTES).items() if content not in known
    }  # fmt: skip


def _byte_level(folder: Path, config: Mapping[str, Any], model_type: str) -> dict[str, Any]:
    """Byte-level BPE as GPT-2 and Qwen 1.5 to 2.5 published it."""
    kind = config.get("tokenizer_class")
    if kind is None:
        kind = _QWEN[0] if model_type.startswith("qwen") else _GPT2[0]
    if kind not in (*_QWEN, *_GPT2):
        raise TokenizerError(
            f"{folder}: how tokenizer_class {kind!r:.60} splits text is not known here from {VOCABULARY} and {MERGES}; "
            + _SAVE_ONCE
        )
    vocabulary = read_json(folder / VOCABULARY, MAX_FILE_BYTES)
    pre = named("qwen2" if kind in _QWEN else "gpt-2")
    step = pre.spec()
    if kind in _GPT2 and config.get("add_prefix_space") is True:
        step["add_prefix_space"] = True
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": _added(folder, config, vocabulary),
        "normalizer": {"type": "NFC"} if pre.nfc else None,
        "pre_tokenizer": step, "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
            "vocab": vocabulary, "merges": _merges(folder / MERGES),
        },
    }  # fmt: skip


def _merges(path: Path) -> list[list[str]]:
    lines = read_text(path, MAX_FILE_BYTES).split("\n")
    if lines[0].startswith("#version"):
        lines = lines[1:]
    pairs = [line.rstrip("\r").split(" ") for line in lines if line.strip()]
    if len(pairs) > MAX_MERGES:
        raise TokenizerError(f"{path}: {len(pairs):,} merges are more than the {MAX_MERGES:,} allowed")
    return pairs


def _added(folder: Path, config: Mapping[str, Any], vocabulary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Tokens of added_tokens.json, and those of the vocabulary that the config names as special."""
    given = read_json(folder / ADDED, MAX_FILE_BYTES) if (folder / ADDED).is_file() else {}
    where = f"{folder / ADDED}: "
    ids = {content: check_id(token_id, 1 << 20, f"{where}{content!r:.60}") for content, token_id in given.items()}
    declared = config.get("added_tokens_decoder")
    described = {
        token.get("content"): token
        for token in (declared.values() if isinstance(declared, dict) else ())
        if isinstance(token, dict)
    }
    for content in described:
        if isinstance(content, str) and isinstance(vocabulary.get(content), int):
            ids.setdefault(content, vocabulary[content])
    special_tokens = set(special_names(config, str(folder)).values())
    tokens = []
    for content, token_id in sorted(ids.items(), key=lambda item: item[1]):
        flags = {name: described.get(content, {}).get(name, value) for name, value in _FLAGS.items()}
        special = content in special_tokens or bool(described.get(content, {}).get("special", False))
        tokens.append({"id": token_id, "content": content, **flags, "special": special})
    return tokens


def _sentencepiece(path: Path, config: dict[str, Any]) -> dict[str, Any]:
    """SentencePiece's BPE (Llama 2) or unigram model, by way of the metadata that GGUF has for the same."""
    try:
        data = path.read_bytes() if path.stat().st_size <= MAX_FILE_BYTES else None
    except OSError as error:
        raise TokenizerError(f"{path}: cannot be read: {error.strerror or error}") from error
    if data is None:
        raise TokenizerError(f"{path}: larger than the {MAX_FILE_BYTES:,} bytes allowed here")
    if not data.startswith(b"\n"):
        raise TokenizerError(f"{path}: is not a SentencePiece model (perhaps a tiktoken file): {_SAVE_ONCE}")
    model = parse_model(data, str(path))
    metadata = _as_gguf(model, config)
    spec, found = spec_from_gguf(metadata, where=str(path))
    for name, token in found.items():
        config.setdefault(name, token)
    if model.kind == "bpe" and model.charsmap:
        step = {"type": "Precompiled", "precompiled_charsmap": model.charsmap}
        spec["normalizer"]["normalizers"].insert(0, step)
    if model.kind == "unigram" and 6 in model.types:
        spec["model"]["byte_fallback"] = True
    return spec


def _as_gguf(model: SentencePieceModel, config: Mapping[str, Any]) -> dict[str, Any]:
    at = "tokenizer.ggml."
    ids = {"bos_token_id": model.bos, "eos_token_id": model.eos, "unknown_token_id": model.unk,
           "padding_token_id": model.pad}  # fmt: skip
    metadata: dict[str, Any] = {
        f"{at}model": "llama" if model.kind == "bpe" else "t5",
        f"{at}tokens": model.tokens,
        f"{at}scores": model.scores,
        f"{at}token_type": model.types,
        f"{at}add_space_prefix": model.add_dummy_prefix,
        f"{at}remove_extra_whitespaces": model.remove_extra_whitespaces,
        **{at + name: token_id for name, token_id in ids.items() if token_id >= 0},
    }
    if model.charsmap:
        metadata[f"{at}precompiled_charsmap"] = list(model.charsmap_bytes)
    for name in ("add_bos_token", "add_eos_token"):
        if isinstance(config.get(name), bool):
            metadata[at + name] = config[name]
    return metadata
