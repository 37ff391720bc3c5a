"""`/tokenize` and `/detokenize`: vLLM's fields."""

from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from deepseek.server.protocol.chat import MAX_MESSAGES, ChatMessage, Tool, adapt_prefix, as_function
from deepseek.server.protocol.completions import Tokens
from deepseek.server.protocol.peer_fields import LABELS
from deepseek.server.protocol.tolerance import Notes, Refused, RequestBody
from deepseek.server.protocol.tools import offered_tools

MOST_TOKENS = 1_000_000


class _Chat(RequestBody):
    """What makes a chat's prompt."""

    ignored: ClassVar = {
        **LABELS,
        **dict.fromkeys(("tool_choice", "parallel_tool_calls", "temperature", "max_tokens", "stream"), "of an answer"),
        "mm_processor_kwargs": "there are no media",
    }  # fmt: skip
    refused: ClassVar = {"chat_template": Refused("start the server with --chat-template FILE")}

    model: str | None = None
    tools: list[Tool] | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    chat_template_kwargs: dict[str, Any] | None = None

    @classmethod
    def adapt(cls, values: dict[str, Any], notes: Notes) -> None:
        if isinstance(values.get("tools"), list):
            values["tools"] = offered_tools(values["tools"], notes, taken=("function", "custom"))
        adapt_prefix(values)

    @model_validator(mode="after")
    def _settle(self) -> Self:
        if self.continue_final_message and "add_generation_prompt" not in self.model_fields_set:
            self.add_generation_prompt = False
        return self

    @property
    def offered(self) -> list[dict[str, Any]]:
        """Tools as `ChatTask.tools`."""
        return [as_function(tool) for tool in self.tools or ()]


class TokenizeRequest(_Chat):
    """A prompt, or the messages of a chat. content, add_special, parse_special and with_pieces are llama.cpp's."""

    aliases: ClassVar = {"content": "prompt", "add_special": "add_special_tokens"}

    prompt: str | None = None
    messages: list[ChatMessage] | None = Field(default=None, min_length=1, max_length=MAX_MESSAGES)
    add_special_tokens: bool = Field(default=True, description="Of a prompt: what the tokenizer puts around a text.")
    parse_special: bool = Field(default=True, description="Of a prompt: whether it may spell special tokens.")
    return_token_strs: bool = False
    with_pieces: bool = Field(
        default=False, description="Each token as id and piece: its text, or its bytes where they are no whole text."
    )

    @classmethod
    def adapt(cls, values: dict[str, Any], notes: Notes) -> None:
        super().adapt(values, notes)
        if isinstance(values.get("content"), str) and values.get("add_special") is None:
            values.setdefault("add_special_tokens", False)  # llama.cpp's default

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give either prompt or messages")
        return self


class ApplyTemplateRequest(_Chat):
    """The messages of a chat."""

    messages: list[ChatMessage] = Field(min_length=1, max_length=MAX_MESSAGES)


class DetokenizeRequest(RequestBody):
    ignored: ClassVar = LABELS

    model: str | None = None
    tokens: Tokens = Field(max_length=MOST_TOKENS)
    skip_special_tokens: bool = False
