"""Documentation written in HTML, reStructuredText and Perl's POD, as the text a person would read."""

import html as entities
import re
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from typing import TYPE_CHECKING

from deepseek.training.data.members import Member
from deepseek.training.data.readers.plain import decoded

if TYPE_CHECKING:
    from deepseek.training.data.recipe import SourceConfig

_PARAGRAPH = frozenset(
    "p div section article main h1 h2 h3 h4 h5 h6 ul ol dl dt pre blockquote table form hr figure header".split()
)
_LINE = frozenset("br li tr dd caption option".split())
_SKIPPED = frozenset("script style nav footer head svg math button select noscript template iframe object".split())
_VOID = frozenset("area base br col embed hr img input link meta source track wbr".split())
_FURNITURE = re.compile(r"\b(nav\w*|sphinxsidebar\w*|related|toc\w*|breadcrumbs?|headerlink|sidebar|pager|footer)\b")


def html(members: Iterable[Member], source: "SourceConfig") -> Iterator[tuple[str, str]]:
    """A page is a document, without what leads about the site: navigation, contents, links to headings."""
    for member in members:
        page = _Page()
        page.feed(decoded(member, source.encoding))
        page.close()
        yield member.name, page.text()


class _Page(HTMLParser):
    """Collects visible text; blocks become paragraphs, and what is preformatted keeps its lines."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._parts: list[str] = []
        self._open: list[str] = []
        self._skipped_from: int | None = None  # how many elements were open where skipping began
        self._preformatted = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._break(tag)
        if tag in _VOID:
            return
        given = dict(attrs)
        names = f"{given.get('class') or ''} {given.get('id') or ''} {given.get('role') or ''}"
        if self._skipped_from is None and (tag in _SKIPPED or (tag != "body" and _FURNITURE.search(names))):
            self._skipped_from = len(self._open)
        self._open.append(tag)
        self._preformatted += tag == "pre"

    def handle_endtag(self, tag: str) -> None:
        if tag not in self._open:
            return
        while True:  # what was left open within ends here too
            closed = self._open.pop()
            self._preformatted -= closed == "pre"
            if closed == tag:
                break
        if self._skipped_from is not None and len(self._open) <= self._skipped_from:
            self._skipped_from = None
        self._break(tag)

    def handle_data(self, data: str) -> None:
        if self._skipped_from is None:
            self._parts.append(data if self._preformatted else re.sub(r"[ \t\r\n\f]+", " ", data))

    def _break(self, tag: str) -> None:
        if self._skipped_from is None and (tag in _PARAGRAPH or tag in _LINE):
            self._parts.append("\n\n" if tag in _PARAGRAPH else "\n")
        elif self._skipped_from is None and tag in ("td", "th"):
            self._parts.append(" ")

    def text(self) -> str:
        return re.sub(r"(?m)^ (?! )| +$", "", "".join(self._parts))


_RST_SILENT = re.compile(
    r"^\.\. (index|_|\||highlight|currentmodule|sectionauthor|moduleauthor|toctree|include|raw|only|image|figure|SPDX|"
    r"\[|default-role|tabularcolumns|contents|kernel-doc)"
)
_RST_COMMENT = re.compile(r"^\.\.( (?![\w:.+-]+::)|$)")
_RST_DIRECTIVE = re.compile(r"^(\s*)\.\. ([\w:.+-]+):: ?(.*)$")
_RST_OPTION = re.compile(r"^\s+:[\w-]+:( |$)")
_RST_ROLE = re.compile(r":[a-zA-Z][\w:+-]*:`([^`]*)`")
_RST_TARGET = re.compile(r"^([^<]*?)\s*<[^<>]*>$")
_NAMED = {
    "note": "Note: ",
    "warning": "Warning: ",
    "tip": "Tip: ",
    "seealso": "See also: ",
    "deprecated": "Deprecated: ",
}
_NAMED |= {"versionadded": "New in version ", "versionchanged": "Changed in version ", "caution": "Caution: "}


def restructured(members: Iterable[Member], source: "SourceConfig") -> Iterator[tuple[str, str]]:
    """A file is a document; marks of the markup go, code and its indentation stay."""
    for member in members:
        yield member.name, "\n".join(_rst_lines(decoded(member, source.encoding).splitlines()))


def _rst_lines(lines: list[str]) -> Iterator[str]:
    silent_within: int | None = None  # the indentation of a directive whose body goes with it
    after_directive = False
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if silent_within is not None and line.strip() and indent <= silent_within:
            silent_within = None
        if silent_within is not None:
            continue
        if _RST_SILENT.match(line.lstrip()) or _RST_COMMENT.match(line.lstrip()):
            silent_within = indent
            continue
        if after_directive and _RST_OPTION.match(line):
            continue
        if (directive := _RST_DIRECTIVE.match(line)) is not None:
            after_directive = True
            name, rest = directive[2], _inline(directive[3])
            if name in _NAMED or rest:
                yield f"{directive[1]}{_NAMED.get(name, '')}{rest}"
            continue
        after_directive = after_directive and not line.strip()
        yield _inline(line)


def _inline(line: str) -> str:
    line = _RST_ROLE.sub(lambda match: _RST_TARGET.sub(r"\1", match[1]).lstrip("~!"), line)
    line = re.sub(r"`([^`<>]+?)\s*<[^`<>]+>`_{1,2}", r"\1", line).replace("``", "`")
    return line.removesuffix("::") + ":" if line.rstrip().endswith("::") and line.strip() != "::" else line


_POD_CODE = re.compile(r"([A-Z])<([^<>]*)>")
_POD_WIDE = re.compile(r"([A-Z])(<{2,})\s+(.*?)\s+>{2,}", re.DOTALL)
_POD_ESCAPES = {"lt": "<", "gt": ">", "verbar": "|", "sol": "/"}


def pod(members: Iterable[Member], source: "SourceConfig") -> Iterator[tuple[str, str]]:
    """A file is a document: the POD of it, without the Perl around."""
    for member in members:
        yield member.name, "\n\n".join(_pod_blocks(decoded(member, source.encoding)))


def _pod_blocks(text: str) -> Iterator[str]:
    within = formatted = False
    for block in re.split(r"\n\s*\n", text.replace("\r\n", "\n")):
        block = block.strip("\n")
        if block.startswith("="):
            command, _, rest = block.partition(" ")
            within = command.strip() != "=cut"
            if command == "=begin":
                formatted = True
            elif command == "=end":
                formatted = False
            elif command.startswith(("=head", "=item")) and not formatted and rest:
                yield _pod_inline(rest).replace("\n", " ")
        elif within and not formatted and block:
            yield block if block[0] in " \t" else _pod_inline(block)


def _pod_inline(text: str) -> str:
    text = _POD_WIDE.sub(lambda match: _pod_part(match[1], match[3]), text)
    for _ in range(4):  # from the inside out
        changed = _POD_CODE.sub(lambda match: _pod_part(match[1], match[2]), text)
        if changed == text:
            break
        text = changed
    return text.replace("\ue000", "<").replace("\ue001", ">")


def _pod_part(code: str, inside: str) -> str:
    if code == "E":
        shown = _POD_ESCAPES.get(inside) or entities.unescape(f"&{inside};")
        return shown.replace("<", "\ue000").replace(">", "\ue001")  # not to be read as marks again
    if code in "XZ":
        return ""
    if code == "L":
        shown, bar, target = inside.partition("|")
        return shown if bar else target or shown
    return inside.replace("<", "\ue000").replace(">", "\ue001")
