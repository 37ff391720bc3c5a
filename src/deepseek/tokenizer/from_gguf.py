"""A tokenizer from GGUF metadata: the keys `tokenizer.ggml.*` as llama.cpp defines them.

Three kinds: `gpt2` (byte-level BPE), `llama` (SentencePiece BPE with scores and byte fallback) and `t5` (unigram).
Each is turned into a `tokenizer.json`, so everything behind it is one path.

For `llama` and `t5` we follow SentencePiece and llama.cpp: the leading space is added before every stretch of text,
also one that starts with a space or follows a special token. Transformers' own GGUF loading differs in these cases.
"""

import base64
import logging
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from deepseek.errors import TokenizerError
from deepseek.tokenizer.end_tokens import FILL_IN_THE_MIDDLE_KEYS, named_ends, without_exceptions
from deepseek.tokenizer.pre_tokenizers import PreTokenizer, named
from deepseek.tokenizer.template_names import is_template_name
from deepseek.tokenizer.tokenizer import Tokenizer
from deepseek.tokenizer.tokenizer_json import MAX_MERGES, check_merges, check_score, check_tokens

logger = logging.getLogger(__name__)

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
SPACE = "▁"
_END_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")
_SURROGATE = re.compile("[\ud800-\udfff]")
_ESCAPED_BYTE = re.compile("[\udc80-\udcff]")  # as the parser leaves a byte that is no UTF-8
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
    templates = _templates(metadata, where)
    return Tokenizer(_spec(vocabulary), vocabulary.config(), templates, end_ids=vocabulary.ends, where=where)


def spec_from_gguf(metadata: Mapping[str, Any], *, where: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The `tokenizer.json` and the special tokens that this metadata describes."""
    vocabulary = _Vocabulary(metadata, where)
    return _spec(vocabulary), vocabulary.config()


def _spec(vocabulary: "_Vocabulary") -> dict[str, Any]:
    metadata, where = vocabulary.metadata, vocabulary.where
    model = metadata.get("tokenizer.ggml.model")
    builder = _BUILDERS.get(model) if isinstance(model, str) else None
    if builder is None or not isinstance(model, str):
        raise TokenizerError(f"{where}: tokenizer.ggml.model {model!r:.60} is not known; known are {sorted(_BUILDERS)}")
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": vocabulary.added_tokens(),
        "post_processor": vocabulary.post_processor(model), **builder(vocabulary),
    }  # fmt: skip


class _Vocabulary:
    """The token lists of the metadata, checked."""

    def __init__(self, metadata: Mapping[str, Any], where: str) -> None:
        self.metadata, self.where = metadata, where
        self.tokens: list[str] = _readable(self._list("tokens"))
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
        self.ends = self._ends()
        self.types = [CONTROL if token_id in self.ends else kind for token_id, kind in enumerate(self.types)]

    def _ends(self) -> set[int]:
        """What ends an answer: the declared tokens, and those whose names say so whatever their type.

        Not so a normal token that merges make out of text, such as Qwen's `</s>`: there it is HTML (llama.cpp stops).
        """
        merges = self.metadata.get("tokenizer.ggml.merges")
        merged = (
            {merge.replace(" ", "") for merge in merges if isinstance(merge, str) and len(merge) < 40}
            if isinstance(merges, list)
            else set()
        )

        def named_id(name: str) -> int | None:
            token_id = self.ids.get(name)
            text = token_id is not None and self.types[token_id] == NORMAL and name in merged
            return None if text else token_id

        declared = {key: token for key in FILL_IN_THE_MIDDLE_KEYS if (token := self.special_id(key)) is not None}
        ends = named_ends(named_id, declared)
        ends.update(token for key in _END_KEYS if (token := self.special_id(key)) is not None)
        return without_exceptions(ends, self.ids.get)

    def scores(self) -> list[float]:
        scores = self._list("scores")
        if len(scores) != len(self.tokens):
            raise TokenizerError(f"{self.where}: tokenizer.ggml.scores and tokens differ in length")
        return [check_score(score, f"{self.where}: tokenizer.ggml.scores") for score in scores]

    def merges(self) -> list[tuple[str, str]]:
        merges = self._list("merges")
        # A merge of bytes that are no UTF-8 never applies to text.
        merges = [merge for merge in merges if not (isinstance(merge, str) and _ESCAPED_BYTE.search(merge))]
        return check_merges(merges, self.ids, f"{self.where}: tokenizer.ggml.merges")

    def flag(self, name: str, default: bool) -> bool:
        value = self.metadata.get(f"tokenizer.ggml.{name}", default)
        if not isinstance(value, bool):
            raise TokenizerError(f"{self.where}: tokenizer.ggml.{name} must be a boolean, not {value!r:.60}")
        return value

    def special(self, name: str) -> str | None:
        token_id = self.special_id(_IDS[name])
        return None if token_id is None else self.tokens[token_id]

    def special_id(self, name: str) -> int | None:
        """None also for an id outside the vocabulary: writers use -1, 2**32 - 1 and leftovers for none."""
        key = f"tokenizer.ggml.{name}"
        value = self.metadata.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            raise TokenizerError(f"{self.where}: {key}: {value!r:.60} is not a token id: expected a whole number")
        if 0 <= value < len(self.tokens):
            return value
        logger.warning("%s: %s is %d, outside the %d tokens; taken as none", self.where, key, value, len(self.tokens))
        return None

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
        adds = model == "llama" or (model == "gpt2" and self.pre_tokenizer().add_bos)
        first = self.special("bos_token") if self.flag("add_bos_token", adds) else None
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

    def pre_tokenizer(self) -> PreTokenizer:
        name = self.metadata.get("tokenizer.ggml.pre", "default")
        if not isinstance(name, str):
            raise TokenizerError(f"{self.where}: tokenizer.ggml.pre must be a name, not {name!r:.60}")
        return named(name or "default")

    def _list(self, name: str) -> list[Any]:
        value = self.metadata.get(f"tokenizer.ggml.{name}")
        value = value.tolist() if isinstance(value, np.ndarray) else value
        if not isinstance(value, list):
            raise TokenizerError(f"{self.where}: tokenizer.ggml.{name} is missing or no array")
        return value


def _hashable(value: Any) -> Any:
    return value if isinstance(value, int) else repr(value)[:60]


def _byte_level(vocabulary: _Vocabulary) -> dict[str, Any]:
    pre = vocabulary.pre_tokenizer()
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
    unknown = vocabulary.special_id("unknown_token_id")
    if unknown is None and len(vocabulary.tokens) > 2:
        unknown = 2
    model = {
        "type": "Unigram",
        "unk_id": unknown,
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
        if not isinstance(value, str) or not is_template_name(name):
            raise TokenizerError(f"{where}: {key!r:.80} must be a text with a plain name")
        if _SURROGATE.search(value):
            raise TokenizerError(f"{where}: {key!r:.80} is not valid UTF-8; convert the model again")
        if value:
            found[name] = value
    return found


def _readable(tokens: list[Any]) -> list[Any]:
    """Tokens whose bytes are no UTF-8 (lone surrogates here) show as U+FFFD, each as another string; none is text."""
    if not any(isinstance(token, str) and _SURROGATE.search(token) for token in tokens):
        return tokens
    taken = {token for token in tokens if isinstance(token, str)}
    readable: list[Any] = []
    for token in tokens:
        if isinstance(token, str) and _ESCAPED_BYTE.search(token):
            shown = _ESCAPED_BYTE.sub("\ufffd", token)
            while shown in taken:
                shown += "\ufffd"
            taken.add(shown)
            token = shown
        readable.append(token)
    return readable


_BUILDERS = {"gpt2": _byte_level, "llama": _sentencepiece, "t5": _unigram}
