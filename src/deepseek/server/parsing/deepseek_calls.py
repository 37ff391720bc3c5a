"""Tool calls of DeepSeek V3, R1 and V3.1, as their chat templates print them.

V3 and R1: `<｜tool▁calls▁begin｜>`, calls with a line break between them, `<｜tool▁calls▁end｜>`; a call is

    <｜tool▁call▁begin｜>function<｜tool▁sep｜>NAME
    ```json
    {ARGUMENTS}
    ```<｜tool▁call▁end｜>

V3.1: the same around `<｜tool▁call▁begin｜>NAME<｜tool▁sep｜>{ARGUMENTS}<｜tool▁call▁end｜>`. The templates are among
this project's tests; recorded outputs are in vllm-project/vllm tests/tool_parsers/test_deepseekv3_tool_parser.py and
test_deepseekv31_tool_parser.py. R1 now and then leaves out the first marker, so a call may also begin on its own.
"""

from deepseek.server.parsing.call_format import LONGEST_NAME, NAME
from deepseek.server.parsing.json_text import strict
from deepseek.server.parsing.source import Reading, Source

_CALLS = "<｜tool▁calls▁begin｜>"
_CALL = "<｜tool▁call▁begin｜>"
_SEPARATOR = "<｜tool▁sep｜>"
_CALL_END = "<｜tool▁call▁end｜>"


class DeepseekCalls:
    """fenced: the form of V3 and R1, else that of V3.1."""

    opens = frozenset((_CALLS, _CALL))
    closes = frozenset(("<｜tool▁calls▁end｜>",))

    def __init__(self, *, fenced: bool) -> None:
        self._fenced = fenced

    def read(self, source: Source, opened: str) -> Reading[tuple[str, str]]:
        if opened == _CALLS:
            yield from source.blank()
            yield from source.expect(_CALL)
        if self._fenced:
            yield from source.expect("function")
            yield from source.expect(_SEPARATOR)
        name = yield from source.word(NAME, LONGEST_NAME)
        yield from source.blank()
        yield from source.expect("```json" if self._fenced else _SEPARATOR)
        text, _ = yield from source.json_object()
        yield from source.ending(*(["```", _CALL_END] if self._fenced else [_CALL_END]))
        return name, strict(text.lstrip())
