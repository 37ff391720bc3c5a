"""Token ids to text, one at a time.

Every token is a run of bytes; a UTF-8 decoder that keeps state turns the runs into characters. So a character whose
bytes lie in several tokens comes out whole and once, work is constant per token, and decoding a list is the same fold.
Where bytes are no valid UTF-8, each maximal broken piece becomes one U+FFFD, as in every byte-level tokenizer.
"""

import codecs
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from deepseek.errors import TokenizerError

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's spelling of bytes: the printable Latin-1 characters are themselves, the other 68 follow from U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}


BYTE_OF_CHARACTER = _byte_alphabet()
CHARACTER_OF_BYTE = {byte: character for character, byte in BYTE_OF_CHARACTER.items()}


@dataclass(kw_only=True)
class PieceRule:
    """How a tokenizer's pieces become bytes; read from the decoder in `tokenizer.json`."""

    byte_level: bool = False
    byte_fallback: bool = False
    replacements: tuple[tuple[str, str], ...] = ()
    strip_left: int = 0
    """Spaces removed at the start of the whole text."""
    metaspace: str = ""
    """Written for a space; dropped altogether in the first piece if `metaspace_drop_first`."""
    metaspace_drop_first: bool = False

    def piece_bytes(self, piece: str, first: bool = False) -> bytes:
        if self.byte_level:
            try:
                return bytes([BYTE_OF_CHARACTER[character] for character in piece])
            except KeyError:
                return piece.encode()
        for old, new in self.replacements:
            piece = piece.replace(old, new)
        if self.metaspace:
            piece = piece.replace(self.metaspace, "" if first and self.metaspace_drop_first else " ")
        if self.byte_fallback and (match := _BYTE_TOKEN.fullmatch(piece)):
            return bytes([int(match[1], 16)])
        return piece.encode()


def read_rule(decoder: Any, where: str = "tokenizer.json") -> PieceRule:
    """The rule for a decoder of `tokenizer.json`; kinds that no language model here uses are refused by name."""
    if decoder is None:
        raise TokenizerError(f"{where}: has no decoder, so pieces cannot be joined to text: add one")
    rule = PieceRule()
    steps = decoder.get("decoders") if isinstance(decoder, dict) and decoder.get("type") == "Sequence" else [decoder]
    for step in steps if isinstance(steps, list) else [steps]:
        kind = step.get("type") if isinstance(step, dict) else step
        reader = _STEPS.get(kind) if isinstance(kind, str) else None
        if reader is None or not isinstance(step, dict):
            raise TokenizerError(f"{where}: decoder {kind!r:.60} is not supported; known are {sorted(_STEPS)}")
        reader(rule, step)
    return rule


def _read_byte_level(rule: PieceRule, step: dict[str, Any]) -> None:
    rule.byte_level = True


def _read_byte_fallback(rule: PieceRule, step: dict[str, Any]) -> None:
    rule.byte_fallback = True


def _read_fuse(rule: PieceRule, step: dict[str, Any]) -> None:
    return


def _read_replace(rule: PieceRule, step: dict[str, Any]) -> None:
    pattern = step.get("pattern")
    old = pattern.get("String") if isinstance(pattern, dict) else None
    if not isinstance(old, str) or not old or not isinstance(step.get("content"), str):
        raise TokenizerError("tokenizer.json: a Replace decoder needs a String pattern and a content")
    rule.replacements += ((old, step["content"]),)


def _read_strip(rule: PieceRule, step: dict[str, Any]) -> None:
    if step.get("content") != " " or step.get("stop", 0) != 0 or not isinstance(step.get("start"), int):
        raise TokenizerError("tokenizer.json: a Strip decoder may only remove spaces at the start")
    rule.strip_left = step["start"]


def _read_metaspace(rule: PieceRule, step: dict[str, Any]) -> None:
    rule.metaspace = str(step.get("replacement", "▁"))
    rule.metaspace_drop_first = step.get("prepend_scheme", "always") != "never"


_STEPS: dict[str, Callable[[PieceRule, dict[str, Any]], None]] = {
    "ByteLevel": _read_byte_level,
    "ByteFallback": _read_byte_fallback,
    "Fuse": _read_fuse,
    "Replace": _read_replace,
    "Strip": _read_strip,
    "Metaspace": _read_metaspace,
}


class StreamDecoder:
    """Turns ids into text as they come. `push` returns what is certain, `flush` the rest; together the full decode."""

    def __init__(
        self, pieces: Callable[[int], str | None], rule: PieceRule, skip: frozenset[int], cache: dict[int, bytes]
    ):
        """`pieces` gives an id's piece or None; `skip` are ids that print nothing; `cache` may be shared."""
        self._pieces = pieces
        self._rule = rule
        self._skip = skip
        self._cache = cache
        self._first = True
        self._strip = rule.strip_left
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_id: int) -> str:
        """The text this token completes: may be empty, never half a character."""
        if token_id in self._skip:
            return ""
        return self._utf8.decode(self._bytes(token_id))

    def flush(self) -> str:
        """End the text: bytes that never became a character come out as U+FFFD. The decoder then starts afresh."""
        rest = self._utf8.decode(b"", final=True)
        self._first, self._strip = True, self._rule.strip_left
        self._utf8.reset()
        return rest

    def push_all(self, token_ids: Iterable[int]) -> str:
        return "".join(map(self.push, token_ids)) + self.flush()

    def _bytes(self, token_id: int) -> bytes:
        first, self._first = self._first, False
        if first and self._rule.metaspace_drop_first:
            return self._rule.piece_bytes(self._pieces(token_id) or "", first=True)
        data = self._cache.get(token_id)
        if data is None:
            data = self._cache[token_id] = self._rule.piece_bytes(self._pieces(token_id) or "")
        while self._strip and data:
            if not data.startswith(b" "):
                self._strip = 0
            else:
                data, self._strip = data[1:], self._strip - 1
        return data
