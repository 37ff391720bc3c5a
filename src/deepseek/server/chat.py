"""A chat, whatever API it came by: from messages to a prompt, from an answer's text to reasoning, content and calls."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

from deepseek.errors import GenerationError
from deepseek.sampling import SamplingParams, StructuredOutput
from deepseek.server import answer_grammars, forced_calls, reasoning, tool_prompt
from deepseek.server.call_grammars import special_marks
from deepseek.server.chat_messages import for_template
from deepseek.server.generation import Answer, Delta, Wish, begin
from deepseek.server.parsing import BareCallParser, Piece, ToolCallPiece, make_parser, new_call_id, thinking_open
from deepseek.server.protocol.ignored_fields import ignore
from deepseek.server.protocol.tools import FunctionName

if TYPE_CHECKING:
    from deepseek.server.service import Service

_INTERNAL = frozenset((
    "messages", "tools", "add_generation_prompt", "continue_final_message", "chat_template", "limits", "trust_content",
    "token_limit",
    "bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token",
    "raise_exception", "strftime_now", "dict", "namespace", "range", "cycler", "joiner",
))  # fmt: skip
_TAIL = 100  # tokens at a prompt's end that show whether reasoning has begun


class Parser(Protocol):
    """`deepseek.server.parsing.OutputParser`, or one for calls that must come."""

    @property
    def in_reasoning(self) -> bool: ...

    def feed(self, text: str) -> list[Piece]: ...
    def finish(self) -> list[Piece]: ...


@dataclass(frozen=True, kw_only=True)
class ChatTask:
    """What to say next in a chat.

    sampling: without what structured, tools and thinking_budget add. structured: what the answer must be, unless it
    must be a call; structured_field: the request's name for it. tools: `{"type": "function", "function": {name,
    description, parameters}}` each. tool_choice: one of these words, or a function by its name. template_values: what
    the chat template may read besides, such as enable_thinking. thinking_budget: tokens of reasoning at most.
    prompt_only: the prompt is computed, and kept for the next request, but nothing is said.
    """

    messages: Sequence[Mapping[str, Any]]
    sampling: SamplingParams
    wish: Wish
    structured: StructuredOutput | None = None
    structured_field: str = "response_format"
    tools: Sequence[Mapping[str, Any]] = ()
    tool_choice: Literal["auto", "none", "required"] | FunctionName = "auto"
    parallel_tool_calls: bool = True
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    template_values: Mapping[str, Any] = field(default_factory=dict)
    thinking_budget: int | None = None
    prompt_only: bool = False

    @property
    def offered(self) -> Sequence[Mapping[str, Any]]:
        """The tools that the model is told of."""
        return () if self.tool_choice == "none" else self.tools

    def forced(self, *, arguments_alone: bool) -> StructuredOutput | None:
        """The form of the calls that must come. arguments_alone: of a named function."""
        functions = [tool["function"] for tool in self.offered]
        if not functions or self.tool_choice == "auto":
            return None
        if not isinstance(self.tool_choice, FunctionName):
            return forced_calls.schema_of_calls(functions, several=self.parallel_tool_calls)
        name = self.tool_choice.name
        named = next((one for one in functions if one["name"] == name), None)
        if named is None:
            raise GenerationError(f"tool_choice names the function {name!r:.200}, which is not in tools")
        if arguments_alone:
            return forced_calls.schema_of_arguments(named)
        return forced_calls.schema_of_calls([named], several=False)


@dataclass(slots=True)
class Said:
    """What one sample said in one step. delta: the tokens behind it; pieces: the same in order, content and all.
    n_before: so many of the tokens came before the content, as reasoning and its marks.

    finish_reason: "stop", "length" or "tool_calls", on the last of a sample.
    """

    delta: Delta
    content: str = ""
    reasoning: str = ""
    tool_calls: list[ToolCallPiece] = field(default_factory=list)
    finish_reason: str | None = None
    pieces: list[Piece] = field(default_factory=list)
    n_before: int = 0


class ChatAnswer:
    """The samples of a chat's answer as they come. reasoning_tokens: until now; None where no reasoning is looked for.

    A function of calls is complete when the answer is; a sample's pieces of calls come in order.
    """

    def __init__(
        self, answer: Answer, parsers: Sequence[Parser], *, reasons: bool, one_call: bool, silent: bool = False
    ) -> None:
        """silent: nothing of it is sent to the client."""
        self.answer = answer
        self._silent = silent
        self.reasoning_tokens = 0 if reasons else None
        self._parsers = parsers
        self._one_call = one_call
        self._called = [False] * len(parsers)
        self._unassigned: list[int | None] = [0] * len(parsers)
        """Of each sample, tokens that may yet turn out to be reasoning; None when its reasoning is over."""

    async def steps(self) -> AsyncGenerator[list[Said], None]:
        """As `Answer.steps`."""
        async with aclosing(self.answer.steps()) as steps:
            async for deltas in steps:
                yield [self._said(delta) for delta in deltas]

    def _said(self, delta: Delta) -> Said:
        if self._silent:
            self.answer.generated_tokens = 0
            delta.logprobs.clear()
            return Said(delta, finish_reason="length" if delta.finish_reason else None)
        parser = self._parsers[delta.sample]
        said = Said(delta, finish_reason=delta.finish_reason)
        pieces: list[Piece] = []
        for text in delta.texts:  # token by token, for the count must not depend on what a step happens to hold
            was_in_reasoning = parser.in_reasoning
            found = parser.feed(text)
            self._count_reasoning(delta.sample, found)
            said.n_before += (was_in_reasoning or parser.in_reasoning) and not any(map(_is_answer, found))
            pieces += found
        if delta.finish_reason is not None:
            found = parser.finish()
            self._count_reasoning(delta.sample, found, more=0)
            pieces += found
        for piece in _joined(pieces):
            if piece.tool_call is not None and self._one_call and piece.tool_call.index > 0:
                continue
            said.pieces.append(piece)
            said.content += piece.content
            said.reasoning += piece.reasoning
            if piece.tool_call is not None:
                said.tool_calls.append(piece.tool_call)
        if said.tool_calls:
            self._called[delta.sample] = True
        if said.finish_reason == "stop" and self._called[delta.sample]:
            said.finish_reason = "tool_calls"
        return said

    def _count_reasoning(self, sample: int, pieces: Sequence[Piece], *, more: int = 1) -> None:
        """Of one token more. Those that say nothing yet, such as half a marker, belong to what comes next."""
        waiting = self._unassigned[sample]
        if self.reasoning_tokens is None or waiting is None:
            return
        waiting += more
        if any(piece.reasoning for piece in pieces):
            self.reasoning_tokens += waiting
            waiting = 0
        self._unassigned[sample] = None if any(map(_is_answer, pieces)) else waiting


def _is_answer(piece: Piece) -> bool:
    return bool(piece.content or piece.tool_call)


def _joined(pieces: Sequence[Piece]) -> list[Piece]:
    """Neighbors of the same kind as one: text, reasoning, parts of one call."""
    joined: list[Piece] = []
    for piece in pieces:
        last = joined[-1] if joined else Piece()
        if (last.content and piece.content) or (last.reasoning and piece.reasoning):
            joined[-1] = Piece(content=last.content + piece.content, reasoning=last.reasoning + piece.reasoning)
        elif last.tool_call and piece.tool_call and last.tool_call.index == piece.tool_call.index:
            arguments = last.tool_call.arguments + piece.tool_call.arguments
            joined[-1] = Piece(tool_call=replace(last.tool_call, arguments=arguments))
        else:
            joined.append(piece)
    return joined


async def begin_chat(service: "Service", task: ChatTask) -> ChatAnswer:
    """Queue a chat. Raises what is wrong with it."""
    names = service.parsers
    forced = task.forced(arguments_alone=_writes_arguments_alone(service))
    if forced is not None and task.structured is not None:
        ignore(task.structured_field)
    is_open = False

    def make() -> tuple[list[int], SamplingParams]:
        nonlocal is_open
        ids = service.within_context(chat_prompt, service, task)
        is_open = names.reasoning is not None and _is_thinking(service, task, ids)
        structured = forced or _format_or_calls(service, task)  # where a call must come, the format says nothing
        return ids, _sampling(service, task, structured, is_open=is_open)

    slow = forced is not None or task.structured is not None
    answer = await begin(service, make, task.wish, slow=slow)
    parsers = [_parser(service, task, is_open=is_open) for _ in range(task.sampling.n)]
    return ChatAnswer(
        answer, parsers, reasons=names.reasoning is not None, one_call=not task.parallel_tool_calls,
        silent=task.prompt_only,
    )  # fmt: skip


def chat_prompt(service: "Service", task: ChatTask, *, token_limit: int | None = None) -> list[int]:
    """The prompt's ids. Raises TokenizerError or GenerationError for what the template does not take.

    token_limit: as of `Tokenizer.encode_chat`; None where tokens are counted only.
    """
    forbidden = sorted(_INTERNAL & task.template_values.keys())
    if forbidden:
        raise GenerationError(f"chat_template_kwargs cannot set {forbidden[0]!r}, which belongs to the server")
    template = service.template_text
    messages, tools = for_template(task.messages, task.offered, chat_template=template)
    if not tool_prompt.knows_tools(template):
        messages = tool_prompt.with_tools(messages, tools) if tools else tool_prompt.without_calls(messages)
        tools = None
    return service.tokenizer.encode_chat(
        messages,
        tools=tools,
        add_generation_prompt=task.add_generation_prompt,
        continue_final_message=task.continue_final_message,
        chat_template=service.chat_template,
        token_limit=token_limit,
        **task.template_values,
    )


def _is_thinking(service: "Service", task: ChatTask, ids: list[int]) -> bool:
    continued = ""
    if task.continue_final_message:
        content = task.messages[-1].get("content")
        continued = content if isinstance(content, str) else ""
    return thinking_open(service.tokenizer.decode(ids[-_TAIL:]), continued)


def _sampling(
    service: "Service", task: ChatTask, structured: StructuredOutput | None, *, is_open: bool
) -> SamplingParams:
    changes: dict[str, Any] = {}
    if structured is not None:
        changes["structured"] = answer_grammars.after_reasoning(structured) if is_open else structured
    if task.thinking_budget is not None:
        changes["logits_processors"] = (
            reasoning.budget_processor(service.tokenizer, task.thinking_budget, is_open=is_open),
        )
    return replace(task.sampling, **changes) if changes else task.sampling


def _parser(service: "Service", task: ChatTask, *, is_open: bool) -> Parser:
    names = service.parsers
    if not task.offered:
        return make_parser(names.reasoning, None, thinking_open=is_open)
    if task.tool_choice == "auto":
        parser = make_parser(names.reasoning, names.tools, thinking_open=is_open, declared=task.offered)
        return BareCallParser(parser, task.offered, new_call_id) if _reads_bare_calls(service, task) else parser
    calls = forced_calls.CallsParser(new_call_id)
    if isinstance(task.tool_choice, FunctionName) and _writes_arguments_alone(service):
        calls = forced_calls.parser_of_arguments(task.tool_choice.name, new_call_id)
    return _AfterReasoning(make_parser(names.reasoning, None, thinking_open=True), calls) if is_open else calls


def _format_or_calls(service: "Service", task: ChatTask) -> StructuredOutput | None:
    """The format, beside which tools may be called where some are offered and a call could be read."""
    names, structured = service.parsers, task.structured
    if structured is None or not task.offered or not (names.tools or names.bare_calls):
        return structured
    return answer_grammars.format_or_calls(
        structured, [tool["function"] for tool in task.offered], names.tools, special_marks(service.tokenizer),
        several=task.parallel_tool_calls, bare=_reads_bare_calls(service, task),
    )  # fmt: skip


def _reads_bare_calls(service: "Service", task: ChatTask) -> bool:
    """Where another syntax is known, JSON that the format also allows is no call."""
    names, structured = service.parsers, task.structured
    is_told_apart = structured is None or names.tools is None or answer_grammars.leaves_bare_calls(structured)
    return names.bare_calls and is_told_apart


def _writes_arguments_alone(service: "Service") -> bool:
    return not tool_prompt.knows_tools(service.template_text)


class _AfterReasoning:
    """Reasoning by one parser, what follows it by another."""

    def __init__(self, first: Parser, then: Parser) -> None:
        self._first = first
        self._then = then

    @property
    def in_reasoning(self) -> bool:
        return self._first.in_reasoning

    def feed(self, text: str) -> list[Piece]:
        return self._passed_on(self._first.feed(text))

    def finish(self) -> list[Piece]:
        return [*self._passed_on(self._first.finish()), *self._then.finish()]

    def _passed_on(self, pieces: list[Piece]) -> list[Piece]:
        told = []
        for piece in pieces:
            told += self._then.feed(piece.content.lstrip("\n")) if piece.content else [piece]
        return told
