"""A tokenizer from GGUF metadata: the keys `tokenizer.ggml.*` as llama.cpp defines them.

Three kinds: `gpt2` (byte-level BPE), `llama` (SentencePiece BPE with scores and byte fallback) and `t5` (unigram).
Each is turned into a `tokenizer.json`, so everything behind it is one path.

For `llama` and `t5` we follow SentencePiece and llama.cpp: the leading space is added before every stretch of text,
also one that starts with a space or follows a special token. Transformers' own GGUF loading differs in these cases.
"""

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np

from deepseek.errors import TokenizerError
from deepseek.tokenizer.pre_tokenizers import named
from deepseek.tokenizer.tokenizer import Tokenizer
from deepseek.tokenizer.tokenizer_json import MAX_MERGES, check_id, check_merges, check_score, check_tokens

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
SPACE = "▁"
_MOST_CUTTING = 2**28
"""Sum of squared token lengths; real vocabularies stay below a tenth of it."""
_IDS = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "sep_token": "seperator_token_id",  # spelled so in the format
    "pad_token": "padding_token_id",
    "mask_token": "mask_token_id",
}


def tokenizer_from_gguf(metadata: Mapping[str, Any], *, where: str = "GGUF metadata") -> Tokenizer:
    """The tokenizer that this metadata (GGUF key to Python value, arrays as lists or NumPy arrays) describes."""
    vocabulary = _Vocabulary(metadata, where)
    model = metadata.get("tokenizer.ggml.model")
    builder = _BUILDERS.get(model) if isinstance(model, str) else None
    if builder is None or not isinstance(model, str):
        raise TokenizerError(f"{where}: tokenizer.ggml.model {model!r:.60} is not known; known are {sorted(_BUILDERS)}")
    spec = builder(vocabulary)
    spec = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": vocabulary.added_tokens(),
        "post_processor": vocabulary.post_processor(model), **spec,
    }  # fmt: skip
    return Tokenizer(spec, vocabulary.config(), _templates(metadata, where), where=where)


class _Vocabulary:
    """The token lists of the metadata, checked."""

    def __init__(self, metadata: Mapping[str, Any], where: str) -> None:
        self.metadata, self.where = metadata, where
        self.tokens: list[str] = self._list("tokens")
        check_tokens(self.tokens, f"{where}: tokenizer.ggml.tokens")
        self.ids = {token: token_id for token_id, token in enumerate(self.tokens)}
        if len(self.ids) != len(self.tokens):
            twice = next(token for token_id, token in enumerate(self.tokens) if self.ids[token] != token_id)
            raise TokenizerError(f"{where}: tokenizer.ggml.tokens holds {twice!r:.80} twice")
        typed = "tokenizer.ggml.token_type" in metadata
        self.types = self._list("token_type") if typed else [NORMAL] * len(self.tokens)
        if len(self.types) != len(self.tokens):
            raise TokenizerError(f"{where}: tokenizer.ggml.token_type and tokens differ in length")
        for kind in set(map(_hashable, self.types)):
            if isinstance(kind, bool) or not isinstance(kind, int) or not 0 <= kind <= 6:
                raise TokenizerError(f"{where}: tokenizer.ggml.token_type {kind!r:.60} is not 0 to 6")

    def scores(self) -> list[float]:
        scores = self._list("scores")
        if len(scores) != len(self.tokens):
            raise TokenizerError(f"{self.where}: tokenizer.ggml.scores and tokens differ in length")
        return [check_score(score, f"{self.where}: tokenizer.ggml.scores") for score in scores]

    def merges(self) -> list[tuple[str, str]]:
        return check_merges(self._list("merges"), self.ids, f"{self.where}: tokenizer.ggml.merges")

    def flag(self, name: str, default: bool) -> bool:
        value = self.metadata.get(f"tokenizer.ggml.{name}", default)
        if not isinstance(value, bool):
            raise TokenizerError(f"{self.where}: tokenizer.ggml.{name} must be a boolean, not {value!r:.60}")
        return value

    def special(self, name: str) -> str | None:
        key = f"tokenizer.ggml.{_IDS[name]}"
        if key not in self.metadata:
            return None
        return self.tokens[check_id(self.metadata[key], len(self.tokens), f"{self.where}: {key}")]

    def added_tokens(self) -> list[dict[str, Any]]:
        """Tokens matched whole in text: control and unknown as special ones, user-defined as plain ones."""
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        return [
            {"id": token_id, "content": token, **flags, "special": kind != USER_DEFINED}
            for token_id, (token, kind) in enumerate(zip(self.tokens, self.types, strict=True))
            if kind in (CONTROL, USER_DEFINED, UNKNOWN) and token
        ]

    def config(self) -> dict[str, Any]:
        special = {name: token for name in _IDS if (token := self.special(name)) is not None}
        return {**special, "clean_up_tokenization_spaces": False, "tokenizer_class": "PreTrainedTokenizerFast"}

    def post_processor(self, model: str) -> dict[str, Any] | None:
        """What puts bos before and eos after a text; the defaults are llama.cpp's for each kind."""
        llama3 = self.metadata.get("tokenizer.ggml.pre") in ("llama-bpe", "llama3", "llama-v3")
        first = self.special("bos_token") if self.flag("add_bos_token", model == "llama" or llama3) else None
        last = self.special("eos_token") if self.flag("add_eos_token", model == "t5") else None
        if first is None and last is None:
            return None

        def around(sequence: str, type_id: int) -> list[dict[str, Any]]:
            pieces = [("SpecialToken", first), ("Sequence", sequence), ("SpecialToken", last)]
            return [{kind: {"id": name, "type_id": type_id}} for kind, name in pieces if name is not None]

        return {
            "type": "TemplateProcessing", "single": around("A", 0), "pair": around("A", 0) + around("B", 1),
            "special_tokens": {
                token: {"id": token, "ids": [self.ids[token]], "tokens": [token]}
                for token in (first, last) if token is not None
            },
        }  # fmt: skip

    def _list(self, name: str) -> list[Any]:
        value = self.metadata.get(f"tokenizer.ggml.{name}")
        value = value.tolist() if isinstance(value, np.ndarray) else value
        if not isinstance(value, list):
            raise TokenizerError(f"{self.where}: tokenizer.ggml.{name} is missing or no array")
        return value


def _hashable(value: Any) -> Any:
    return value if isinstance(value, int) else repr(value)[:60]


def _byte_level(vocabulary: _Vocabulary) -> dict[str, Any]:
    name = vocabulary.metadata.get("tokenizer.ggml.pre", "default")
    if not isinstance(name, str):
        raise TokenizerError(f"{vocabulary.where}: tokenizer.ggml.pre must be a name, not {name!r:.60}")
    pre = named(name)
    model = {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": pre.ignore_merges,
        "vocab": vocabulary.ids, "merges": vocabulary.merges(),
    }  # fmt: skip
    decoder = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    normalizer = {"type": "NFC"} if pre.nfc else None
    return {"model": model, "normalizer": normalizer, "pre_tokenizer": pre.spec(), "decoder": decoder}


def _sentencepiece(vocabulary: _Vocabulary) -> dict[str, Any]:
    unknown = vocabulary.special("unk_token")
    model = {
        "type": "BPE", "dropout": None, "unk_token": unknown, "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
        "vocab": vocabulary.ids, "merges": _merges_of_scores(vocabulary),
    }  # fmt: skip
    return {"model": model, **_spaces(vocabulary.flag("add_space_prefix", True))}


def _merges_of_scores(vocabulary: _Vocabulary) -> list[tuple[str, str]]:
    """The merges that scores imply: every way to cut a token in two tokens, best score first.

    Ties go to the longer left side, then the longer right, as in Transformers.
    """
    mergeable = {
        token: token_id
        for token_id, (token, kind) in enumerate(zip(vocabulary.tokens, vocabulary.types, strict=True))
        if kind in (NORMAL, 0)
    }
    if sum(len(token) ** 2 for token in mergeable) > _MOST_CUTTING:
        raise TokenizerError(f"{vocabulary.where}: tokenizer.ggml.tokens are too long to cut into all their pairs")
    scores = vocabulary.scores()
    found: list[tuple[float, int, int, str, str]] = []
    for token, token_id in mergeable.items():
        cuts = [(token[:place], token[place:]) for place in range(1, len(token))]
        pairs = [(left, right) for left, right in cuts if left in mergeable and right in mergeable]
        pairs.sort(key=lambda pair: (mergeable[pair[0]], mergeable[pair[1]]))
        found += [(scores[token_id], len(left), len(right), left, right) for left, right in pairs]
        if len(found) > MAX_MERGES:
            raise TokenizerError(f"{vocabulary.where}: the vocabulary implies more than {MAX_MERGES:,} merges")
    found.sort(key=lambda merge: merge[:3], reverse=True)
    return [(left, right) for *_, left, right in found]


def _unigram(vocabulary: _Vocabulary) -> dict[str, Any]:
    where = vocabulary.where
    unknown = vocabulary.metadata.get("tokenizer.ggml.unknown_token_id", 2)
    model = {
        "type": "Unigram",
        "unk_id": check_id(unknown, len(vocabulary.tokens), f"{where}: tokenizer.ggml.unknown_token_id"),
        "vocab": [list(entry) for entry in zip(vocabulary.tokens, vocabulary.scores(), strict=True)],
        "byte_fallback": False,
    }
    charsmap = _charsmap(vocabulary.metadata.get("tokenizer.ggml.precompiled_charsmap"), where)
    steps: list[dict[str, Any]] = [{"type": "Precompiled", "precompiled_charsmap": charsmap}] if charsmap else []
    squeeze = vocabulary.flag("remove_extra_whitespaces", False)
    if squeeze:
        steps.append({"type": "Strip", "strip_left": True, "strip_right": True})
        steps.append({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "})
    spaces = _spaces(vocabulary.flag("add_space_prefix", False) or squeeze)
    spaces["normalizer"]["normalizers"] = [*steps, *spaces["normalizer"]["normalizers"]]
    return {"model": model, **spaces}


def _spaces(prefix: bool) -> dict[str, Any]:
    """SentencePiece's way with spaces: one put before, all written as a mark, both undone when decoding."""
    mark = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    before = [{"type": "Prepend", "prepend": SPACE}] if prefix else []
    back = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
    after = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else []
    return {
        "normalizer": {"type": "Sequence", "normalizers": [*before, mark]},
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": [back, {"type": "ByteFallback"}, {"type": "Fuse"}, *after]},
    }


def _charsmap(value: Any, where: str) -> str:
    """SentencePiece's normalisation table, as `tokenizer.json` holds it."""
    value = value.tolist() if isinstance(value, np.ndarray) else value
    if value is None or value == []:
        return ""
    if not isinstance(value, (list, bytes)) or len(value) > 2 * 1024 * 1024:
        raise TokenizerError(f"{where}: tokenizer.ggml.precompiled_charsmap must be an array of up to 2 MiB")
    try:
        return base64.b64encode(bytes(byte & 0xFF for byte in value)).decode()
    except TypeError as error:
        raise TokenizerError(f"{where}: tokenizer.ggml.precompiled_charsmap must hold bytes") from error


def _templates(metadata: Mapping[str, Any], where: str) -> dict[str, str]:
    """`tokenizer.chat_template`, and `tokenizer.chat_template.NAME` for named ones."""
    prefix = "tokenizer.chat_template"
    found = {}
    for key, value in metadata.items():
        name = "default" if key == prefix else key.removeprefix(prefix + ".")
        if key != prefix and not key.startswith(prefix + "."):
            continue
        if not isinstance(value, str) or not name.isidentifier():
            raise TokenizerError(f"{where}: {key!r:.80} must be a text with a plain name")
        found[name] = value
    return found


_BUILDERS = {"gpt2": _byte_level, "llama": _sentencepiece, "t5": _unigram}
