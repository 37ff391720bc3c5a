"""Vocabularies small enough to train in a test, as GGUF metadata, and Qwen's ranks as a `tokenizer.json`."""

import base64
import itertools
import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from deepseek.tokenizer.pre_tokenizers import named
from deepseek.tokenizer.stream import CHARACTER_OF_BYTE
from tokenizer_texts import tokenizer_texts


def sentencepiece_metadata(size: int = 700) -> dict[str, Any]:
    """A SentencePiece-like BPE with scores and byte fallback."""
    backend = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False, limit_alphabet=200)
    backend.train_from_iterator(_training_texts(), trainer)
    merges = json.loads(backend.to_str())["model"]["merges"]
    merged = list(dict.fromkeys(left + right for left, right in merges))
    alphabet = sorted(token for token in backend.get_vocab() if len(token) == 1)
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *merged]
    tokens += [token for token in alphabet if token not in set(tokens)]
    scores = [0.0] * 259 + [-float(rank) for rank in range(len(merged))]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": scores + [-1e4 - rank for rank in range(len(tokens) - len(scores))],
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * (len(tokens) - 259),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }


def unigram_metadata(size: int = 500) -> dict[str, Any]:
    """A T5-like unigram vocabulary."""
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=size, show_progress=False, unk_token="<unk>", special_tokens=["<pad>", "</s>", "<unk>"]
    )
    backend.train_from_iterator([text for text in _training_texts() if text.isascii()], trainer)
    vocabulary = json.loads(backend.to_str())["model"]["vocab"]
    return {
        "tokenizer.ggml.model": "t5",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": [token for token, _ in vocabulary],
        "tokenizer.ggml.scores": [score for _, score in vocabulary],
        "tokenizer.ggml.token_type": [3, 3, 2] + [1] * (len(vocabulary) - 3),
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.unknown_token_id": 2,
        "tokenizer.ggml.add_space_prefix": True,
    }


def byte_level_metadata(pre: str = "smollm", size: int = 600) -> dict[str, Any]:
    """A byte-level BPE with a few special tokens and an unused one."""
    backend = Tokenizer(models.BPE())
    backend = Tokenizer.from_str(json.dumps(json.loads(backend.to_str()) | {"pre_tokenizer": named(pre).spec()}))
    trainer = trainers.BpeTrainer(
        vocab_size=size, show_progress=False, initial_alphabet=sorted(CHARACTER_OF_BYTE.values())
    )
    backend.train_from_iterator(_training_texts(), trainer)
    spec = json.loads(backend.to_str())["model"]
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "[PAD4]", *spec["vocab"]]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3, 3, 3, 4, 5] + [1] * len(spec["vocab"]),
        "tokenizer.ggml.merges": [" ".join(merge) for merge in spec["merges"]],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.add_bos_token": False,
    }


def _training_texts() -> list[str]:
    """Without special tokens: llama.cpp takes a token that looks like one for one."""
    return [text for text in tokenizer_texts(700) if not set(text) & set("|｜\0")]


def qwen_folder(ranks: Path, folder: Path) -> Path:
    """A `tokenizer.json` from tiktoken ranks, with Qwen's pre-tokenizer and its first special tokens."""
    lines = (line.split() for line in ranks.read_bytes().splitlines() if line)
    rank_of = {base64.b64decode(token): int(rank) for token, rank in lines}
    backend = Tokenizer(
        models.BPE(
            vocab={_spell(token): rank for token, rank in rank_of.items()},
            merges=[
                (_spell(left), _spell(right)) for token in rank_of if len(token) > 1
                for left, right in [_halves(token, rank_of)]
            ],
        )
    )  # fmt: skip
    backend.normalizer = normalizers.NFC()
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    backend.add_tokens(["<tool_call>", "</tool_call>", "<think>", "</think>"])
    spec = json.loads(backend.to_str())
    spec["pre_tokenizer"] = named("qwen2").spec()
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps(spec, ensure_ascii=False))
    config = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def _spell(token: bytes) -> str:
    return "".join(CHARACTER_OF_BYTE[byte] for byte in token)


def _halves(token: bytes, rank_of: dict[bytes, int]) -> tuple[bytes, bytes]:
    """The last merge that makes a token: merge its bytes as the ranks say until two pieces are left."""
    parts = [token[place : place + 1] for place in range(len(token))]
    while len(parts) > 2:
        ranks = [rank_of.get(left + right, len(rank_of)) for left, right in itertools.pairwise(parts)]
        best = ranks.index(min(ranks))
        parts[best : best + 2] = [parts[best] + parts[best + 1]]
    return parts[0], parts[1]
