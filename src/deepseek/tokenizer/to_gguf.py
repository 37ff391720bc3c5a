"""GGUF metadata from a tokenizer: the keys `tokenizer.ggml.*` that llama.cpp needs."""

import base64
import json
import re
from typing import Any

from deepseek.errors import TokenizerError
from deepseek.tokenizer.from_gguf import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED
from deepseek.tokenizer.pre_tokenizers import recognise
from deepseek.tokenizer.tokenizer import Tokenizer

_BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")
_LOWEST_SCORE = -1e6


def tokenizer_to_gguf(tokenizer: Tokenizer, *, pre: str | None = None, vocab_size: int | None = None) -> dict[str, Any]:
    """GGUF key to Python value, arrays as lists; `tokenizer_from_gguf` of it gives the same ids.

    `pre` names the pre-tokenizer where it cannot be recognised. `vocab_size` is the model's number of embedding rows:
    llama.cpp wants as many tokens, so rows without a token become unused tokens `[PAD123]`.
    """
    spec = json.loads(tokenizer.to_json())
    kind = _kind(spec)
    tokens, types = _tokens(tokenizer, spec, kind, vocab_size)
    metadata: dict[str, Any] = {"tokenizer.ggml.model": kind, "tokenizer.ggml.pre": "default"}
    metadata |= {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": types}
    if kind == "gpt2":
        metadata["tokenizer.ggml.pre"] = pre or _recognised(spec)
        metadata["tokenizer.ggml.merges"] = [" ".join(pair) for pair in _merges(spec)]
    else:
        ranks = _scores_of_merges(spec) if kind == "llama" else dict(spec["model"]["vocab"])
        metadata["tokenizer.ggml.scores"] = [float(ranks.get(token, _LOWEST_SCORE)) for token in tokens]
        metadata |= _spaces(spec, kind)
    return metadata | _special(tokenizer, tokens, spec) | _templates(tokenizer)


def _kind(spec: dict[str, Any]) -> str:
    steps = _flat(spec.get("decoder"), "decoders")
    if spec["model"]["type"] == "Unigram":
        return "t5"
    if any(step["type"] == "ByteLevel" for step in steps):
        return "gpt2"
    if spec["model"].get("byte_fallback") and any(step["type"] == "ByteFallback" for step in steps):
        return "llama"
    raise TokenizerError("GGUF holds byte-level, SentencePiece BPE and unigram tokenizers; this one is none of them")


def _flat(step: dict[str, Any] | None, inner: str) -> list[dict[str, Any]]:
    if step is None:
        return []
    return list(step.get(inner, ())) if step["type"] == "Sequence" else [step]


def _recognised(spec: dict[str, Any]) -> str:
    others = [step["type"] for step in _flat(spec.get("normalizer"), "normalizers") if step["type"] != "NFC"]
    if others:
        raise TokenizerError(
            f"GGUF byte-level tokenizers have no normalizer, but here is {others}: pass pre= to accept"
        )
    return recognise(spec.get("pre_tokenizer"), bool(spec["model"].get("ignore_merges")))


def _merges(spec: dict[str, Any]) -> list[tuple[str, str]]:
    merges = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in spec["model"]["merges"]]
    if any(" " in side for merge in merges for side in merge):
        raise TokenizerError("a merge holds a space, which GGUF cannot write")
    return [(left, right) for left, right in merges]


def _scores_of_merges(spec: dict[str, Any]) -> dict[str, float]:
    """SentencePiece takes the pair whose result scores best: the first merge gets 0, the next -1 and so on."""
    scores: dict[str, float] = {}
    for left, right in _merges(spec):
        scores.setdefault(left + right, -float(len(scores)))
    return scores


def _tokens(
    tokenizer: Tokenizer, spec: dict[str, Any], kind: str, vocab_size: int | None
) -> tuple[list[str], list[int]]:
    rows = vocab_size if vocab_size is not None else tokenizer.vocab_size
    if rows < tokenizer.vocab_size:
        raise TokenizerError(f"vocab_size {rows} is less than the tokenizer's {tokenizer.vocab_size} tokens")
    added = {token["id"]: token for token in spec["added_tokens"]}
    unknown = tokenizer.unk_token_id if kind != "gpt2" else None
    tokens, types = [], []
    for token_id in range(rows):
        token = tokenizer.id_to_token(token_id)
        tokens.append(f"[PAD{token_id}]" if token is None else token)
        types.append(_type(token_id, tokens[-1], added.get(token_id), kind, unknown))
    if len(set(tokens)) != len(tokens):
        raise TokenizerError("two rows of the vocabulary have the same token, which GGUF cannot hold")
    return tokens, types


def _type(token_id: int, token: str, added: dict[str, Any] | None, kind: str, unknown: int | None) -> int:
    if token_id == unknown:
        return UNKNOWN
    if added is not None:
        return CONTROL if added["special"] or _looks_special(token) else USER_DEFINED
    if token == f"[PAD{token_id}]":
        return UNUSED
    return BYTE if kind == "llama" and _BYTE_TOKEN.fullmatch(token) else NORMAL


def _looks_special(token: str) -> bool:
    """llama.cpp parses user-defined tokens in any text, so turn markers that a file forgot to mark must be control."""
    return token.startswith(("<|", "<｜")) and token.endswith(("|>", "｜>"))


def _spaces(spec: dict[str, Any], kind: str) -> dict[str, Any]:
    normalizers = _flat(spec.get("normalizer"), "normalizers")
    metaspaces = [step for step in _flat(spec.get("pre_tokenizer"), "pretokenizers") if step["type"] == "Metaspace"]
    prepend = any(step["type"] == "Prepend" for step in normalizers)
    prefix = prepend or any(step.get("prepend_scheme", "always") != "never" for step in metaspaces)
    values: dict[str, Any] = {"tokenizer.ggml.add_space_prefix": prefix}
    if kind == "t5":
        squeezed = [step for step in normalizers if step["type"] == "Replace" and " {2,}" in str(step["pattern"])]
        values["tokenizer.ggml.remove_extra_whitespaces"] = bool(squeezed)
        for step in normalizers:
            if step["type"] == "Precompiled" and step["precompiled_charsmap"]:
                charsmap = base64.b64decode(step["precompiled_charsmap"])
                values["tokenizer.ggml.precompiled_charsmap"] = list(charsmap)
    return values


def _special(tokenizer: Tokenizer, tokens: list[str], spec: dict[str, Any]) -> dict[str, Any]:
    before, after = tokenizer.added_around
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    if before not in ([], [bos]) or after not in ([], [eos]):
        raise TokenizerError(f"GGUF can add bos and eos only; this tokenizer adds {before} and {after} around a text")
    ids = {
        "bos_token_id": bos,
        "eos_token_id": eos,
        "unknown_token_id": tokenizer.unk_token_id,
        "padding_token_id": tokenizer.pad_token_id,
    }
    if spec["model"]["type"] == "Unigram" and ids["unknown_token_id"] is None:
        ids["unknown_token_id"] = spec["model"].get("unk_id")
    values: dict[str, Any] = {f"tokenizer.ggml.{name}": value for name, value in ids.items() if value is not None}
    return values | {"tokenizer.ggml.add_bos_token": bool(before), "tokenizer.ggml.add_eos_token": bool(after)}


def _templates(tokenizer: Tokenizer) -> dict[str, Any]:
    prefix = "tokenizer.chat_template"
    named = {name: text for name, text in tokenizer.templates.items() if name != "default"}
    values: dict[str, Any] = {f"{prefix}.{name}": text for name, text in named.items()}
    if tokenizer.chat_template is not None:
        values[prefix] = tokenizer.chat_template
    return values | ({"tokenizer.chat_templates": sorted(named)} if named else {})
