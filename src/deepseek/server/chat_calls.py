"""Calls as `/v1/chat/completions` answers them: of functions, of custom tools, and as OpenAI's older function_call."""

from collections.abc import Collection
from dataclasses import dataclass, field

from deepseek.server.chat import Said
from deepseek.server.parsing import ToolCallPiece
from deepseek.server.protocol import answers as out
from deepseek.server.tool_arguments import custom_input


@dataclass
class _CustomCall:
    """One whose arguments are coming: the tool's input is a text within them, sent when they are complete."""

    index: int
    id: str | None
    name: str
    arguments: list[str] = field(default_factory=list)

    def delta(self) -> out.ToolCallDelta:
        custom = out.CalledCustom(custom_input("".join(self.arguments)), self.name)
        return out.ToolCallDelta(self.index, id=self.id, type="custom", custom=custom)


class ChatCalls:
    """Of one sample. custom: names of custom tools. older: a call is answered as function_call."""

    def __init__(self, custom: Collection[str], *, older: bool) -> None:
        self._custom = custom
        self._older = older
        self._open: _CustomCall | None = None

    def add_to_delta(self, said: Said, delta: out.ChatDelta) -> str | None:
        """Add the calls of a step to its delta. The step's finish_reason, in the words of this request."""
        calls = [call for piece in said.tool_calls for call in self._piece(piece)]
        if said.finish_reason is not None:
            calls += self._ended()
        if calls and self._older:
            delta.function_call = _joined(calls)
        elif calls:
            delta.tool_calls = calls
        return "function_call" if self._older and said.finish_reason == "tool_calls" else said.finish_reason

    def _piece(self, piece: ToolCallPiece) -> list[out.ToolCallDelta]:
        calls = [] if piece.name is None else self._ended()
        if piece.name is not None and piece.name in self._custom:
            self._open = _CustomCall(piece.index, piece.id, piece.name)
        if self._open is not None:
            self._open.arguments.append(piece.arguments)
            return calls
        kind = None if piece.name is None else "function"
        return [
            *calls, out.ToolCallDelta(piece.index, out.CalledFunction(piece.arguments, piece.name), piece.id, kind)
        ]  # fmt: skip

    def _ended(self) -> list[out.ToolCallDelta]:
        ended, self._open = self._open, None
        return [] if ended is None else [ended.delta()]


def _joined(calls: list[out.ToolCallDelta]) -> out.CalledFunction:
    functions = [call.function for call in calls if call.function is not None]
    name = next((one.name for one in functions if one.name is not None), None)
    return out.CalledFunction("".join(one.arguments for one in functions), name)
