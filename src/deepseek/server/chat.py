"""A chat, whatever API it came by: from messages to a prompt, from an answer's text to reasoning, content and calls."""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from deepseek.errors import GenerationError
from deepseek.sampling import SamplingParams, StructuredOutput
from deepseek.server.generation import Answer, Delta, Wish, begin
from deepseek.server.plain_parsing import OutputParser, Piece, ToolCallPiece, make_parser

if TYPE_CHECKING:
    from deepseek.server.service import Service
    from deepseek.tokenizer.tokenizer import Tokenizer

_INTERNAL = frozenset((
    "messages", "tools", "add_generation_prompt", "continue_final_message", "chat_template", "limits", "trust_content",
    "bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token",
    "raise_exception", "strftime_now", "dict", "namespace", "range", "cycler", "joiner",
))  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ChatTask:
    """What to say next in a chat. sampling: without what structured says. tools: JSON schemas, as templates take them.

    template_values: what the chat template may read besides, such as enable_thinking.
    """

    messages: list[dict[str, Any]]
    sampling: SamplingParams
    wish: Wish
    structured: StructuredOutput | None = None
    tools: list[dict[str, Any]] | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    template_values: Mapping[str, Any] = field(default_factory=dict)
    max_tokens: int | None = None


@dataclass(slots=True)
class Said:
    """What one sample said in one step. delta: the tokens behind it."""

    delta: Delta
    content: str = ""
    reasoning: str = ""
    tool_calls: list[ToolCallPiece] = field(default_factory=list)
    finish_reason: str | None = None


class ChatAnswer:
    """The samples of a chat's answer as they come."""

    def __init__(self, answer: Answer, parsers: list[OutputParser]) -> None:
        self.answer = answer
        self._parsers = parsers

    async def steps(self) -> AsyncGenerator[list[Said], None]:
        """As `Answer.steps`."""
        async for deltas in self.answer.steps():
            yield [self._said(delta) for delta in deltas]

    def _said(self, delta: Delta) -> Said:
        parser = self._parsers[delta.sample]
        pieces = parser.feed(delta.text)
        if delta.finish_reason is not None:
            pieces += parser.finish()
        said = Said(delta, finish_reason=delta.finish_reason)
        for piece in pieces:
            _add(said, piece)
        return said


def _add(said: Said, piece: Piece) -> None:
    said.content += piece.content
    said.reasoning += piece.reasoning
    if piece.tool_call is not None:
        said.tool_calls.append(piece.tool_call)


def chat_prompt(service: "Service", task: ChatTask) -> list[int]:
    """The prompt's ids. Raises TokenizerError or GenerationError for what the template does not take."""
    forbidden = sorted(_INTERNAL & task.template_values.keys())
    if forbidden:
        raise GenerationError(f"chat_template_kwargs cannot set {forbidden[0]!r}, which belongs to the server")
    tokenizer: Tokenizer = service.tokenizer
    return tokenizer.encode_chat(
        task.messages,
        tools=task.tools,
        add_generation_prompt=task.add_generation_prompt,
        continue_final_message=task.continue_final_message,
        chat_template=service.chat_template,
        **task.template_values,
    )


async def begin_chat(service: "Service", task: ChatTask) -> ChatAnswer:
    """Queue a chat. Raises what is wrong with it."""

    def make() -> tuple[list[int], SamplingParams]:
        ids = chat_prompt(service, task)
        return ids, task.sampling

    answer = await begin(service, make, task.wish, slow=task.structured is not None)
    return ChatAnswer(answer, [make_parser(None, None) for _ in range(task.sampling.n)])
