"""Encoding of long texts in slices, with the ids that the whole text has.

The library encodes a text in one call. For megabytes that call takes seconds and keeps a string and offsets for each
token, hundreds of bytes for one id. Slices bound the memory, and a caller that takes only so many tokens learns after
a few of them that there are more.

A slice may end between a letter and a separator that a letter follows (`word| word`) where three things hold:

- no token of the vocabulary has a letter and this separator next to each other, so no merge crosses the cut;
- the steps before the merges (normalizer, pre-tokenizer) are of kinds that look at neighboring characters only;
- a few hundred short texts come out alike, cut and uncut (this also covers what is done to the start of a text).

Where one of them does not hold (Unigram vocabularies, patterns with look-behind ...), the text stays whole.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from deepseek.errors import TooManyTokensError
from deepseek.tokenizer.stream import CHARACTER_OF_BYTE, PieceRule

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

SLICE = 64 * 1024
"""Characters; the library encodes so many in about 20 ms."""
_SHORT = 4 * 1024  # encoded with the interpreter's lock held: giving it up costs more than it brings
_LETTERS = "A-Za-zА-Яа-я\u3041-\u3096\u30a1-\u30fa\u4e00-\u9fa5\uac00-\ud7a3"
_SEPARATORS = (" ", "\n", ",", ".", "\uff0c", "\u3002")
_CUT_BYTES = frozenset(b" \n,.\xd0\xd1\xef").union(*map(range, (0x41, 0x61, 0x80, 0xE3), (0x5B, 0x7B, 0xC0, 0xEE)))
"""Of letters and separators in UTF-8."""
_LETTER_BYTES = (
    b"(?:[A-Za-z]|[\xd0\xd1][\x80-\xbf]|\xe3[\x81-\x83][\x80-\xbf]|[\xe4-\xed][\x80-\xbf]{2}|^[\x80-\xbf]{1,2})"
)
"""A letter of `_LETTERS` in a token's bytes, and the end of one at their start."""
_LEFT_PROBES = (
    "a", "the", "Hello wor", "x = 3.5 a", "It's", "don't", "I'l", "  \n  b", "1234 a", "....a", "ab\n\n\ncd", "naïve z",
    "HTTPServer", "x\u0301y", "你好", "カタカナ", "привет", "한국어", "👍 ok",
)  # fmt: skip
_RIGHT_PROBES = (
    "b",
    "The end",
    "s",
    "ll",
    "re you",
    "com/x",
    "I'm  here",
    "a1b2",
    "\u4f60好 x",
    "и так",
    "x\n\n y  z ",
)
_COMPOSED = {"NFC": 4, "NFD": 4, "NFKC": 8, "NFKD": 8}
"""How much shorter a text may become, in bytes; by Unicode's tables at most 3 and 4, and some room."""


def ids_of(backend: "Backend", text: str, *, add_special_tokens: bool = False) -> list[int]:
    """Ids of a text in one call, which lets other threads run meanwhile."""
    if len(text) <= _SHORT:
        encoding = backend.encode(text, add_special_tokens=add_special_tokens)
    else:
        (encoding,) = backend.encode_batch_fast([text], add_special_tokens=add_special_tokens)
    ids: list[int] = encoding.ids
    return ids


@dataclass(frozen=True)
class Slices:
    """How texts of one tokenizer may be cut. Made from its `tokenizer.json` and the backend built of it."""

    spec: Mapping[str, Any]
    """Its `normalizer`, `pre_tokenizer` and the plain values of its `model`."""
    backend: "Backend"
    rule: PieceRule

    @classmethod
    def of(cls, spec: Mapping[str, Any], backend: "Backend", rule: PieceRule) -> "Slices":
        model = {key: value for key, value in spec["model"].items() if key not in ("vocab", "merges")}
        model.setdefault("type", "BPE" if "merges" in spec["model"] else None)
        kept = {"normalizer": spec.get("normalizer"), "pre_tokenizer": spec.get("pre_tokenizer"), "model": model}
        return cls(kept, backend, rule)

    def encode(self, backend: "Backend", text: str, limit: int | None = None) -> list[int]:
        """Ids, nothing added around them. backend: this tokenizer's, or one that spells its control tokens otherwise.

        Raises TooManyTokensError where there are more than `limit`.
        """
        ids: list[int] = []
        try:
            for piece in self._pieces(backend, text):
                ids += piece
                if limit is not None and len(ids) > limit:
                    raise TooManyTokensError(len(ids))
        except _Joined:
            ids = ids_of(backend, text)
        if limit is not None and len(ids) > limit:
            raise TooManyTokensError(len(ids))
        return ids

    def check_bytes(self, text: str, limit: int | None) -> None:
        """Raises TooManyTokensError for what cannot fit, however it is cut into tokens."""
        if limit is not None and len(text) > SLICE and self.longest is not None:
            least = -(-len(text.encode().translate(None, self._unknown_bytes or b"")) // self.longest)
            if least > limit:
                raise TooManyTokensError(least)

    def _pieces(self, backend: "Backend", text: str) -> Iterator[list[int]]:
        start, cut = 0, self.cut if len(text) > SLICE else None
        while cut is not None and (found := cut.search(text, start + SLICE)) is not None:
            yield self._piece(backend, text, start, found.end())
            start = found.end()
        yield self._piece(backend, text, start, len(text))

    def _piece(self, backend: "Backend", text: str, start: int, end: int) -> list[int]:
        if start == 0:
            return ids_of(backend, text[:end])
        return after(lambda piece: ids_of(backend, piece), text[start - 1 : end])

    @cached_property
    def cut(self) -> re.Pattern[str] | None:
        """Matches the last character before a cut; None where texts stay whole."""
        unknown = self._unknown_bytes
        if unknown is None or not self._is_local or any(byte in unknown for byte in _CUT_BYTES):
            return None
        tokens = {self.rule.piece_bytes(piece) for piece in self.backend.get_vocab(with_added_tokens=True)}
        safe = [separator for separator in _SEPARATORS if self._may_cut(separator, tokens)]
        return re.compile(f"[{_LETTERS}](?=[{re.escape(''.join(safe))}][{_LETTERS}])") if safe else None

    @cached_property
    def longest(self) -> int | None:
        """Bytes of a text that one token stands for at most; None where there is no such bound."""
        shrinks = _shrinks_by(self.spec["normalizer"])
        strips = any(token.lstrip or token.rstrip for token in self.backend.get_added_tokens_decoder().values())
        if shrinks is None or strips or self._unknown_bytes is None or not _keeps_all(self.spec["pre_tokenizer"]):
            return None
        own = self.backend.get_vocab(with_added_tokens=False)
        size = self.rule.piece_bytes if self.rule.byte_level else str.encode
        added = [token.content.encode() for token in self.backend.get_added_tokens_decoder().values()]
        return shrinks * max(map(len, (*map(size, own), *added)))

    @property
    def _is_local(self) -> bool:
        model = self.spec["model"]
        plain = not any(model.get(name) for name in ("dropout", "end_of_word_suffix", "continuing_subword_prefix"))
        local = _shrinks_by(self.spec["normalizer"]) is not None and _looks_at_neighbors(self.spec["pre_tokenizer"])
        return model["type"] == "BPE" and plain and local

    @cached_property
    def _unknown_bytes(self) -> bytes | None:
        """Bytes that no token has: they vanish. None where the vocabulary is not made of bytes in the end."""
        token_id = self.backend.token_to_id
        if self.rule.byte_level:
            if all(step.get("type") != "ByteLevel" for step in _steps(self.spec["pre_tokenizer"])):
                return None
            return bytes(byte for byte, letter in CHARACTER_OF_BYTE.items() if token_id(letter) is None)
        falls_back = bool(self.spec["model"].get("byte_fallback"))
        return b"" if falls_back and all(token_id(f"<0x{byte:02X}>") is not None for byte in range(256)) else None

    def _may_cut(self, separator: str, tokens: set[bytes]) -> bool:
        encoded = separator.encode()
        beginnings = b"|".join(re.escape(encoded[:length]) + b"$" for length in range(1, len(encoded)))
        crossing = re.compile(_LETTER_BYTES + b"(?:" + b"|".join(filter(None, (re.escape(encoded), beginnings))) + b")")
        if any(crossing.search(token) for token in tokens):
            return False
        added = self.backend.get_added_tokens_decoder().values()
        if any(_meets(token.content, separator, strict=token.single_word or token.lstrip or token.rstrip)
               for token in added):  # fmt: skip
            return False
        return all(self._comes_out_alike(left, separator + right) for left in _LEFT_PROBES for right in _RIGHT_PROBES)

    def _comes_out_alike(self, left: str, right: str) -> bool:
        def ids(text: str) -> list[int]:
            return ids_of(self.backend, text)

        try:
            return ids(left + right) == ids(left) + after(ids, left[-1] + right)
        except _Joined:
            return False


class _Joined(Exception):
    """The tokens of a text do not begin with those of its first character."""


def after(ids: Callable[[str], list[int]], text: str) -> list[int]:
    """Ids of what follows the first character: with it in front, nothing happens there as at the start of a text."""
    first, both = ids(text[0]), ids(text)
    if both[: len(first)] != first:
        raise _Joined
    return both[len(first) :]


def _meets(content: str, separator: str, *, strict: bool) -> bool:
    """Whether an added token may lie across a cut at this separator, or takes blanks or words beside it."""
    if re.search(f"[{_LETTERS}]{re.escape(separator)}", content):
        return True
    return strict and re.fullmatch(rf"[{_LETTERS}\s].*|.*[{_LETTERS}\s]", content, re.DOTALL) is not None


def _shrinks_by(step: Any) -> int | None:
    """How many times shorter a normalizer may make a text, in bytes; None for kinds that may do anything to it."""
    kind = None if step is None else step.get("type")
    if step is None or kind == "Prepend":
        return 1
    if kind in _COMPOSED:
        return _COMPOSED[kind]
    if kind == "Replace":
        old, new = (step.get("pattern") or {}).get("String"), step.get("content")
        if isinstance(old, str) and len(old) == 1 and new:
            return max(1, -(-len(old.encode()) // len(new.encode())))
    if kind == "Sequence":
        product = 1
        for factor in map(_shrinks_by, step.get("normalizers", ())):
            if factor is None:
                return None
            product *= factor
        return product
    return None


def _steps(step: Any) -> Iterator[Mapping[str, Any]]:
    if step is not None and step.get("type") == "Sequence":
        for inner in step.get("pretokenizers", ()):
            yield from _steps(inner)
    elif step is not None:
        yield step


def _keeps_all(pre_tokenizer: Any) -> bool:
    """Whether every character of a text reaches the vocabulary."""
    for step in _steps(pre_tokenizer):
        if step.get("type") not in ("ByteLevel", "Digits", "Metaspace", "Split") or step.get("behavior") == "Removed":
            return False
    return True


def _looks_at_neighbors(pre_tokenizer: Any) -> bool:
    """Whether words are cut by what stands at their ends, not by what stands far away or at the ends of the text."""
    for step in _steps(pre_tokenizer):
        kind = step.get("type")
        pattern = (step.get("pattern") or {}).get("Regex") if kind == "Split" else None
        if kind not in ("ByteLevel", "Digits", "Metaspace", "Split") or (pattern and _has_anchors(pattern)):
            return False
    return True


def _has_anchors(pattern: str) -> bool:
    if re.search(r"\(\?<|\\[AbBGKZz]", pattern):
        return True
    bare = re.sub(r"\[\^?\]?(?:\\.|[^\]\\])*\]|\\.", "", pattern.replace(r"\s+$", ""))  # blanks: slices end in letters
    return "^" in bare or "$" in bare
