"""One document made fit to train on: composed, without control characters or runs of blanks, of bounded length."""

import re
import unicodedata
from collections.abc import Iterator

_LINE_ENDS = re.compile("\r\n?|[\u2028\u2029\x85]")
# All of category Cc but tab and newline, and what is invisible or says nothing: soft hyphen, zero-width space, joiners
# outside of the scripts that need them, byte order marks, private use, halves of surrogate pairs, non-characters.
_NOTHING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x84\x86-\x9f\xad\u200b\u2060\ufeff\ue000-\uf8ff\ud800-\udfff\ufffe\uffff]+"
)
_TRAILING = re.compile(r"[ \t\u00a0\u3000]+$", re.MULTILINE)
_BLANK_LINES = re.compile(r"\n{3,}")
_LONG_GAP = re.compile(r"(?<=\S)[ \u00a0]{9,}(?=\S)")
_LONG_RULE = re.compile(r"([-=*_.~#+])\1{11,}")


def cleaned(text: str, drop_lines: tuple[str, ...] = ()) -> str:
    """The text in NFC with lines ended by a newline, at most one blank line in a row, and short rules and gaps.

    Indentation is kept: code needs it. `drop_lines` are regular expressions; a line in which one is found goes.
    """
    text = _NOTHING.sub("", _LINE_ENDS.sub("\n", text).replace("\x0c", "\n"))
    text = unicodedata.normalize("NFC", text)
    if drop_lines:
        dropped = re.compile("|".join(f"(?:{pattern})" for pattern in drop_lines))
        text = "\n".join(line for line in text.split("\n") if not dropped.search(line))
    text = _BLANK_LINES.sub("\n\n", _TRAILING.sub("", text))
    text = _LONG_RULE.sub(lambda match: match[1] * 12, _LONG_GAP.sub(" " * 8, text))
    return text.strip("\n").rstrip()


def pieces(text: str, limit: int) -> Iterator[str]:
    """The text in pieces of at most `limit` characters, cut before a paragraph, else a line, else anywhere.

    The pieces are of about equal length, so that none is a mere rest.
    """
    start = 0
    while (left := len(text) - start) > limit:
        aim = left / -(-left // limit)
        end = _cut(text, start + int(aim / 2), start + min(limit, int(aim * 1.25)))
        yield text[start:end].strip("\n")
        start = end
    yield text[start:].strip("\n")


def _cut(text: str, least: int, most: int) -> int:
    for mark in ("\n\n", "\n", "\u3002", ". "):
        place = text.rfind(mark, least, most)
        if place >= 0:
            return place + len(mark)
    return most


def han_share(text: str) -> float:
    """The share of Chinese characters among the letters: tells a Chinese text whatever its source declares."""
    sample = text[:2000]
    letters = sum(character.isalpha() for character in sample)
    return sum("\u4e00" <= character <= "\u9fff" for character in sample) / letters if letters else 0.0
