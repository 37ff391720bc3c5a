"""An answer as the stream of events of `/v1/responses`, and as the response that they sum up to."""

import itertools
import secrets
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from deepseek.server.chat import Said
from deepseek.server.parsing import Piece, ToolCallPiece
from deepseek.server.protocol import response_events as out
from deepseek.server.protocol.answers import TokenLogprob
from deepseek.server.response_items import CalledTool
from deepseek.server.tool_arguments import custom_input

Made = TypeVar("Made", bound=out.Event)
Logprobs = Callable[[Said], list[TokenLogprob]]


class ResponseStream:
    """Gives the events in order; `response` is their sum at any time. They refer to it: encode each list at once.

    logprobs: of the tokens of content behind a step; without calls, for theirs would be among them.
    """

    def __init__(
        self,
        response: out.ResponseAnswer,
        logprobs: Logprobs = lambda said: [],
        called: Mapping[str, CalledTool] = MappingProxyType({}),
    ) -> None:
        """called: what the names of tools stand for, where not for a function of that name."""
        self.response = response
        self._called = called
        self._logprobs_of = logprobs
        self._numbers = itertools.count()
        self._texts: list[str] = []
        """Of the open item."""
        self._is_open = False
        self._waiting: list[TokenLogprob] = []
        """Log-probabilities of tokens whose text has not come yet."""

    def start(self) -> list[out.Event]:
        return [self._told("created"), self._told("in_progress")]

    def add(self, said: Said) -> list[out.Event]:
        self._waiting += self._logprobs_of(said)
        events: list[out.Event] = []
        for piece in said.pieces:
            events += self._add(piece)
        return events

    def end(self, reason: str, usage: out.ResponseUsage) -> list[out.Event]:
        """Of the items; `finished` follows. reason: of the last step."""
        cut = reason == "length"
        events = self._close("incomplete" if cut else "completed")
        response = self.response
        response.status = "incomplete" if cut else "completed"
        response.incomplete_details = out.IncompleteDetails("max_output_tokens") if cut else None
        response.usage, response.completed_at = usage, None if cut else int(time.time())
        return events

    def finished(self) -> list[out.Event]:
        return [self._told(self.response.status)]

    def fail(self, message: str) -> list[out.Event]:
        self.response.status = "failed"
        self.response.error = out.ResponseFailure("server_error", message)
        return self.finished()

    def _told(self, status: str) -> out.Event:
        return self._event(out.ResponseEvent, status, response=self.response)

    def _event(self, kind: type[Made], name: str, **fields: Any) -> Made:
        return kind(type=f"response.{name}", sequence_number=next(self._numbers), **fields)

    @property
    def _place(self) -> dict[str, Any]:
        output = self.response.output
        return {"item_id": output[-1].id, "output_index": len(output) - 1}

    def _add(self, piece: Piece) -> list[out.Event]:
        if piece.tool_call is not None:
            return self._call(piece.tool_call)
        if piece.reasoning:
            events = self._opened(out.ReasoningItem, "rs", out.ReasoningText())
            self._texts.append(piece.reasoning)
            delta = self._event(out.ReasoningDelta, "reasoning_text.delta", delta=piece.reasoning, **self._place)
            return [*events, delta]
        events = self._opened(out.OutputMessage, "msg", out.OutputText())
        self._texts.append(piece.content)
        logprobs, self._waiting = self._waiting, []
        self._part().logprobs += logprobs
        text = self._event(
            out.TextDelta, "output_text.delta", delta=piece.content, logprobs=logprobs, **self._place
        )  # fmt: skip
        return [*events, text]

    def _call(self, call: ToolCallPiece) -> list[out.Event]:
        events: list[out.Event] = []
        if call.name is not None:
            events = [*self._close("completed"), self._open(self._call_item(call.id or "", call.name))]
        self._texts.append(call.arguments)
        if not call.arguments or isinstance(self.response.output[-1], out.CustomCallItem):
            return events  # a custom tool's input is a text within the arguments: sent when they are complete
        delta = self._event(out.ArgumentsDelta, "function_call_arguments.delta", delta=call.arguments, **self._place)
        return [*events, delta]

    def _call_item(self, call_id: str, name: str) -> out.FunctionCallItem | out.CustomCallItem:
        tool = self._called.get(name) or CalledTool(name)
        kind, prefix = (out.CustomCallItem, "ctc") if tool.custom else (out.FunctionCallItem, "fc")
        item = kind(f"{prefix}_{secrets.token_hex(16)}", call_id, tool.name)
        if tool.namespace is not None:
            item.namespace = tool.namespace
        return item

    def _opened(
        self, kind: type[out.OutputMessage] | type[out.ReasoningItem], prefix: str, part: Any
    ) -> list[out.Event]:
        """Begin an item of this kind with an empty part, unless one is open."""
        if self._is_open and isinstance(self.response.output[-1], kind):
            return []
        events = self._close("completed")
        item = kind(f"{prefix}_{secrets.token_hex(16)}", [])
        events.append(self._open(item))
        item.content.append(part)
        events.append(self._event(out.PartEvent, "content_part.added", part=type(part)(), **self._place))
        return events

    def _open(self, item: out.OutputItem) -> out.Event:
        self._texts, self._is_open = [], True
        self.response.output.append(item)
        return self._item("added")

    def _item(self, name: str) -> out.Event:
        """With the item as it is now."""
        item = _snapshot(self.response.output[-1])
        return self._event(
            out.ItemEvent, f"output_item.{name}", item=item, output_index=len(self.response.output) - 1
        )  # fmt: skip

    def _part(self) -> out.OutputText:
        item = self.response.output[-1]
        assert isinstance(item, out.OutputMessage)
        return item.content[0]

    def _close(self, status: str) -> list[out.Event]:
        """End the open item; the response has its whole text from now on."""
        if not self._is_open:
            return []
        item, text, place = self.response.output[-1], "".join(self._texts), self._place
        self._is_open = False
        item.status = status
        events: list[out.Event]
        if isinstance(item, out.FunctionCallItem):
            item.arguments = text
            done = self._event(
                out.ArgumentsDone, "function_call_arguments.done", arguments=text, **place
            )  # fmt: skip
            return [done, self._item("done")]
        if isinstance(item, out.CustomCallItem):
            item.input = custom_input(text)
            delta = self._event(out.ArgumentsDelta, "custom_tool_call_input.delta", delta=item.input, **place)
            whole = self._event(out.InputDone, "custom_tool_call_input.done", input=item.input, **place)
            return [delta, whole, self._item("done")]
        part: out.OutputText | out.ReasoningText = item.content[0]
        part.text = text
        if isinstance(part, out.OutputText):
            logprobs = part.logprobs
            events = [self._event(out.TextDone, "output_text.done", text=text, logprobs=logprobs, **place)]
        else:
            events = [self._event(out.ReasoningDone, "reasoning_text.done", text=text, **place)]
        return [*events, self._event(out.PartEvent, "content_part.done", part=part, **place), self._item("done")]


def _snapshot(item: out.OutputItem) -> out.OutputItem:
    """A copy, for what is empty now is full when the events of a step are encoded."""
    copied: out.OutputItem = type(item)(**{name: getattr(item, name) for name in item.__struct_fields__})
    if not isinstance(copied, out.FunctionCallItem | out.CustomCallItem):
        copied.content = list(copied.content)  # type: ignore[assignment]
    return copied
