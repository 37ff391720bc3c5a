"""SentencePiece's `tokenizer.model`: the few fields of its protocol buffer that say how text is split.

The format is sentencepiece_model.proto of google/sentencepiece. Every length is checked against the file.
"""

import base64
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from deepseek.errors import TokenizerError
from deepseek.tokenizer.tokenizer_json import MAX_TOKENS

_KINDS: dict[int, Literal["unigram", "bpe"]] = {1: "unigram", 2: "bpe"}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_CHARSMAP = 2 * 1024 * 1024


@dataclass
class SentencePieceModel:
    """types: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte, as in GGUF. Special ids: -1 is none."""

    kind: Literal["unigram", "bpe"] = "unigram"
    tokens: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    types: list[int] = field(default_factory=list)
    unk: int = 0
    bos: int = 1
    eos: int = 2
    pad: int = -1
    add_dummy_prefix: bool = True
    remove_extra_whitespaces: bool = True
    charsmap_bytes: bytes = b""

    @property
    def charsmap(self) -> str:
        return base64.b64encode(self.charsmap_bytes).decode()


def parse_model(data: bytes, where: str) -> SentencePieceModel:
    """Raises TokenizerError, beginning with `where`, for anything damaged or of a kind that is not read here."""
    model = SentencePieceModel()
    try:
        for number, value in _fields(data):
            if number == 1 and isinstance(value, bytes):
                _piece(model, value)
            elif number == 2 and isinstance(value, bytes):
                _trainer(model, value)
            elif number == 3 and isinstance(value, bytes):
                _normalizer(model, value)
    except (ValueError, struct.error, KeyError) as error:
        raise TokenizerError(f"{where}: a damaged or unknown SentencePiece model ({error}); fetch it again") from None
    if len(model.tokens) > MAX_TOKENS or not model.tokens:
        raise TokenizerError(f"{where}: {len(model.tokens):,} tokens; 1 to {MAX_TOKENS:,} are read")
    return model


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes | float]]:
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, at = _varint(data, at)
            yield number, value
        elif wire == _BYTES:
            length, at = _varint(data, at)
            if length > len(data) - at:
                raise ValueError("a field reaches beyond the file")
            yield number, data[at : at + length]
            at += length
        elif wire == _FIXED32:
            yield number, struct.unpack_from("<f", data, at)[0]
            at += 4
        elif wire == _FIXED64:
            yield number, struct.unpack_from("<d", data, at)[0]
            at += 8
        else:
            raise ValueError(f"wire type {wire}")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ValueError("it ends within a number")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number of more than ten bytes")


def _signed(value: int) -> int:
    """An int32 as protocol buffers store it: negative ones as 64 bits."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >= 1 << 63 else value


def _piece(model: SentencePieceModel, data: bytes) -> None:
    token, score, kind = "", 0.0, 1
    for number, value in _fields(data):
        if number == 1 and isinstance(value, bytes):
            token = value.decode()
        elif number == 2 and isinstance(value, float):
            score = value
        elif number == 3 and isinstance(value, int):
            kind = value
    if len(model.tokens) > MAX_TOKENS:
        raise ValueError("too many tokens")
    model.tokens.append(token)
    model.scores.append(score)
    model.types.append(kind)


def _trainer(model: SentencePieceModel, data: bytes) -> None:
    for number, value in _fields(data):
        if not isinstance(value, int):
            continue
        if number == 3:
            if value not in _KINDS:
                raise ValueError(f"model type {value}; unigram (1) and BPE (2) are read")
            model.kind = _KINDS[value]
        elif number == 40:
            model.unk = _signed(value)
        elif number == 41:
            model.bos = _signed(value)
        elif number == 42:
            model.eos = _signed(value)
        elif number == 43:
            model.pad = _signed(value)


def _normalizer(model: SentencePieceModel, data: bytes) -> None:
    for number, value in _fields(data):
        if number == 2 and isinstance(value, bytes):
            if len(value) > _MAX_CHARSMAP:
                raise ValueError("its normalization table has more than 2 MiB")
            model.charsmap_bytes = value
        elif number == 3 and isinstance(value, int):
            model.add_dummy_prefix = bool(value)
        elif number == 4 and isinstance(value, int):
            model.remove_extra_whitespaces = bool(value)
