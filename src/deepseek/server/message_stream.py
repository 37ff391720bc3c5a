"""An answer as Anthropic's stream of events, and as the message that they sum up to."""

import hashlib
import json
from collections.abc import Iterable

import msgspec

from deepseek.server.chat import Said
from deepseek.server.parsing import Piece, ToolCallPiece
from deepseek.server.protocol import message_events as out


class MessageStream:
    """Gives the events in order; `message` is their sum at any time. hide_thinking: blocks of reasoning stay empty."""

    def __init__(self, message: out.MessageAnswer, *, hide_thinking: bool = False) -> None:
        self.message = message
        self._hide_thinking = hide_thinking
        self._texts: list[str] = []
        """Of the open block: what it says, for a call its arguments."""

    def start(self, usage: out.MessageUsage) -> list[out.Event]:
        """usage: of the prompt; clients take these numbers for the whole answer's, or add the end's to them."""
        message = msgspec.structs.replace(
            self.message, content=[], usage=msgspec.structs.replace(usage, output_tokens=0), stop_reason=None,
            stop_sequence=None,
        )  # fmt: skip
        return [out.MessageStart(message)]

    def add(self, said: Said) -> list[out.Event]:
        events: list[out.Event] = []
        for piece in said.pieces:
            events += self._add(piece)
        return events

    def end(self, stop_reason: str, stop_sequence: str | None, usage: out.MessageUsage) -> list[out.Event]:
        events = self._close()
        message = self.message
        message.stop_reason, message.stop_sequence, message.usage = stop_reason, stop_sequence, usage
        return [*events, out.MessageDelta(out.Stopped(stop_reason, stop_sequence), usage), out.MessageStop()]

    def _add(self, piece: Piece) -> Iterable[out.Event]:
        if piece.tool_call is not None:
            return self._call(piece.tool_call)
        if piece.reasoning:
            events = self._opened(out.ThinkingContent)
            self._texts.append(piece.reasoning)
            return events if self._hide_thinking else [*events, self._delta(out.ThinkingDelta(piece.reasoning))]
        events = self._opened(out.TextContent)
        self._texts.append(piece.content)
        return [*events, self._delta(out.TextDelta(piece.content))]

    def _call(self, call: ToolCallPiece) -> list[out.Event]:
        events: list[out.Event] = []
        if call.name is not None:
            events = [*self._close(), self._open(out.ToolUseContent(call.id or "", call.name, {}))]
        self._texts.append(call.arguments)
        return [*events, self._delta(out.InputJsonDelta(call.arguments))] if call.arguments else events

    def _opened(self, kind: type[out.TextContent] | type[out.ThinkingContent]) -> list[out.Event]:
        """Begin a block of this kind unless one is open."""
        content = self.message.content
        return [] if content and isinstance(content[-1], kind) else [*self._close(), self._open(kind())]

    def _open(self, block: out.Block) -> out.Event:
        self._texts = []
        self.message.content.append(block)
        return out.BlockStart(len(self.message.content) - 1, msgspec.structs.replace(block))

    def _close(self) -> list[out.Event]:
        """End the open block; the message has its whole text from now on."""
        if not self.message.content:
            return []
        events: list[out.Event] = []
        block, text = self.message.content[-1], "".join(self._texts)
        if isinstance(block, out.TextContent):
            block.text = text
        elif isinstance(block, out.ThinkingContent):
            block.thinking = "" if self._hide_thinking else text
            block.signature = checksum(text)
            events = [self._delta(out.SignatureDelta(block.signature))]
        else:
            block.input = arguments(text)
        return [*events, out.BlockStop(len(self.message.content) - 1)]

    def _delta(
        self, delta: out.TextDelta | out.ThinkingDelta | out.SignatureDelta | out.InputJsonDelta
    ) -> out.BlockDelta:
        return out.BlockDelta(len(self.message.content) - 1, delta)


def checksum(text: str) -> str:
    """What stands for a signature of reasoning: clients drop blocks without one. It proves nothing."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def arguments(text: str) -> dict[str, object]:
    """Of a call; empty for those that max_tokens cut off, as stop_reason tells."""
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
