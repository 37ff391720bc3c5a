"""Tool calls of DeepSeek V3.2, in its markup language DSML.

    <｜DSML｜function_calls>
    <｜DSML｜invoke name="NAME">
    <｜DSML｜parameter name="KEY" string="true|false">VALUE</｜DSML｜parameter>
    </｜DSML｜invoke>
    </｜DSML｜function_calls>

A value is a text as it is when string is "true", else JSON. The model has no chat template: the format is defined by
encoding/encoding_dsv32.py beside its weights, and recorded in ai-dynamo/dynamo lib/llm/tests/data/deepseek-v3.2, from
the model's repository. The two line breaks before a block belong to it. A parameter named twice is refused, as there.
"""

from deepseek.server.parsing.call_format import LONGEST_NAME, NAME
from deepseek.server.parsing.json_text import is_json, quoted, strict
from deepseek.server.parsing.pieces import Malformed
from deepseek.server.parsing.source import Reading, Source

_BLOCK = "<｜DSML｜function_calls>"
_INVOKE = "<｜DSML｜invoke"
_PARAMETER = "<｜DSML｜parameter"


class DsmlCalls:
    opens = frozenset((f"\n\n{_BLOCK}", _BLOCK, _INVOKE))
    closes = frozenset(("</｜DSML｜function_calls>",))

    def read(self, source: Source, opened: str) -> Reading[tuple[str, str]]:
        if opened != _INVOKE:
            yield from source.blank()
            yield from source.expect(_INVOKE)
        yield from source.expect(' name="')
        name = yield from source.word(NAME, LONGEST_NAME)
        yield from source.expect('">')
        arguments: dict[str, str] = {}
        while True:
            yield from source.blank()
            if (yield from source.expect(_PARAMETER, "</｜DSML｜invoke>")) != _PARAMETER:
                return name, "{" + ", ".join(f"{quoted(key)}: {value}" for key, value in arguments.items()) + "}"
            key, value = yield from self._parameter(source)
            if key in arguments:
                raise Malformed
            arguments[key] = value

    def _parameter(self, source: Source) -> Reading[tuple[str, str]]:
        yield from source.expect(' name="')
        key = yield from source.word(NAME, LONGEST_NAME)
        yield from source.expect('" string="')
        is_text = (yield from source.expect('true">', 'false">')) == 'true">'
        value = yield from source.text_before("</｜DSML｜parameter>")
        if is_text:
            return key, quoted(value)
        if not is_json(value):
            raise Malformed
        return key, strict(value.strip())
