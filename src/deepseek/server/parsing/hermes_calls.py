"""Tool calls of Hermes and Qwen 2.5 and 3: `<tool_call>`, a JSON object with name and arguments, `</tool_call>`.

The line break before `<tool_call>` is the template's own (see qwen2.5.jinja among this project's tests), so it belongs
to the call. Recorded outputs: vllm-project/vllm tests/tool_parsers/test_hermes_tool_parser.py. From there also: a model
may end its turn without `</tool_call>`, and may write the arguments as a text that holds the object.
"""

from deepseek.server.parsing.call_format import LONGEST_NAME, NAME
from deepseek.server.parsing.json_text import JsonScanner, is_json, strict, unquoted
from deepseek.server.parsing.pieces import Malformed
from deepseek.server.parsing.source import Reading, Source


class HermesCalls:
    opens = frozenset(("\n<tool_call>", "<tool_call>"))
    closes: frozenset[str] = frozenset()

    def read(self, source: Source, opened: str) -> Reading[tuple[str, str]]:
        text, scanner = yield from source.json_object()
        call = named_call(text, scanner)
        yield from source.ending("</tool_call>")
        return call


def named_call(text: str, scanner: JsonScanner, also: str = "arguments") -> tuple[str, str]:
    """A call's name and its arguments. also: another word for `arguments`. Raises Malformed."""
    members = {unquoted(text[key]): text[value] for key, value in scanner.members}
    if also in members and "arguments" not in members:
        members["arguments"] = members.pop(also)
    is_call = len(members) == len(scanner.members) and members.keys() <= {"name", "arguments"}
    quoted_name, arguments = members.get("name", ""), members.get("arguments", "{}")
    if not is_call or not quoted_name.startswith('"'):
        raise Malformed
    if arguments.startswith('"'):
        arguments = unquoted(arguments).strip()
        if not is_json(arguments):
            raise Malformed
    name = unquoted(quoted_name)
    if not arguments.startswith("{") or not NAME.fullmatch(name) or not 0 < len(name) <= LONGEST_NAME:
        raise Malformed
    return name, strict(arguments)
