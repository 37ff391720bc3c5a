"""What a model wrote, taken apart as it comes: reasoning, content, tool calls.

Lives here: a file a format, over `source` (text that comes in parts) and `json_text` (JSON checked as it comes). Plain
Python. What may not: anything of HTTP, of the engine or of a tokenizer; `eval`; an exception for what a model wrote.
"""

from deepseek.server.parsing.bare_calls import BareCallParser
from deepseek.server.parsing.call_format import NAME
from deepseek.server.parsing.coder_calls import types_of
from deepseek.server.parsing.detect import detect, thinking_open
from deepseek.server.parsing.output import REASONING, TOOLS, OutputParser, make_parser, new_call_id
from deepseek.server.parsing.pieces import Piece, ToolCallPiece

__all__ = [
    "NAME",
    "REASONING",
    "TOOLS",
    "BareCallParser",
    "OutputParser",
    "Piece",
    "ToolCallPiece",
    "detect",
    "make_parser",
    "new_call_id",
    "thinking_open",
    "types_of",
]
