"""What a format of tool calls is to the parser."""

import re
from typing import Protocol

from deepseek.server.parsing.source import Reading, Source

NAME = re.compile(r"[^\s<>\"'{}｜\ud800-\udfff]*")
"""Characters of a tool's or parameter's name; none of them occurs in a marker of the other sort."""
LONGEST_NAME = 256


class CallFormat(Protocol):
    """opens: texts that may begin a call, one of them with which also a call right after another begins.

    closes: what may follow a call and says nothing.
    """

    opens: frozenset[str]
    closes: frozenset[str]

    def read(self, source: Source, opened: str) -> Reading[tuple[str, str]]:
        """After `opened`: a call's name and its arguments, a JSON object. Raises Malformed at the first wrong text."""
        ...
