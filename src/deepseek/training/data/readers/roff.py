"""Manual pages: the text of man(7), without running a formatter."""

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from deepseek.training.data.members import Member
from deepseek.training.data.readers.plain import decoded

if TYPE_CHECKING:
    from deepseek.training.data.recipe import SourceConfig

_ESCAPES = re.compile(r"\\f(\[\w*\]|\(..|.)|\\s[+-]?\d|\\[&|^/%:,c]|\\\{|\\\}|\\[mMFvhwkZ]('[^']*'|\[[^\]]*\])")
_STRINGS = re.compile(r"\\\*?(\(..|\[[^\]]*\])|\\\*.")
_NAMED = {"(lq": "“", "(rq": "”", "(oq": "‘", "(cq": "’", "(em": "—", "(en": "–", "(bu": "•", "(co": "©", "(aq": "'"}
_NAMED |= {"(dq": '"', "(ha": "^", "(ti": "~", "(rs": "\\", "(ga": "`", "(>=": "≥", "(<=": "≤", "(+-": "±", "(mu": "×"}
_TITLED = (".SH", ".SS")
_PARAGRAPHS = (".PP", ".P", ".LP", ".IP", ".TP", ".HP", ".sp", ".RS", ".RE", ".Pp", ".It", ".TQ")
_FONTS = (".B", ".I", ".BR", ".RB", ".BI", ".IB", ".IR", ".RI", ".SM", ".SB")
_DEFINITIONS = (".de", ".ig", ".am", ".TS")


def manual(members: Iterable[Member], source: "SourceConfig") -> Iterator[tuple[str, str]]:
    """A page is a document. Pages that only name another one come out empty, and are then too short to keep."""
    for member in members:
        yield member.name, "".join(_pieces(decoded(member, source.encoding).splitlines()))


def _pieces(lines: list[str]) -> Iterator[str]:
    until: str | None = None  # what ends a definition, of which nothing is text
    verbatim = False
    for line in lines:
        request, _, rest = line.partition(" ")
        if until is not None:
            until = None if line.strip() == until else until
        elif request in _DEFINITIONS:
            until = ".TE" if request == ".TS" else ".."
        elif request in (".nf", ".EX", ".Bd"):
            verbatim = True
            yield "\n"
        elif request in (".fi", ".EE", ".Ed"):
            verbatim = False
            yield "\n"
        elif request in _TITLED or request == ".Sh":
            yield f"\n\n{_plain(rest)}\n"
        elif request in _PARAGRAPHS:
            yield "\n\n" + (f"{_plain(rest.split(' ')[0])} " if request == ".IP" and rest else "")
        elif request in _FONTS:
            joined = (
                rest if request in (".B", ".I", ".SM", ".SB") else re.sub(r' +(?=(?:[^"]*"[^"]*")*[^"]*$)', "", rest)
            )
            yield _plain(joined) + ("\n" if verbatim else " ")
        elif not line.startswith((".", "'")):
            yield _plain(line, quotes=True) + ("\n" if verbatim or not line else _space_after(line))


def _space_after(line: str) -> str:
    """Chinese lines are joined without a space."""
    return "" if line[-1] > "\u2e7f" else " "


def _plain(text: str, *, quotes: bool = False) -> str:
    text = text.split('\\"')[0]
    text = _STRINGS.sub(lambda match: _NAMED.get((match[1] or "")[:3], ""), _ESCAPES.sub("", text))
    text = text.replace("\\-", "-").replace("\\ ", " ").replace("\\e", "\\").replace("\\(", "(").replace("\\'", "'")
    return text if quotes else text.replace('"', "")
