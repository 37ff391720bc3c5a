"""`/tokenize` and `/detokenize`: vLLM's fields."""

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from deepseek.server.protocol.chat import ChatMessage, Tool
from deepseek.server.protocol.fields import Strict

MOST_TOKENS = 1_000_000


class TokenizeRequest(Strict):
    """A prompt, or the messages of a chat."""

    model: str | None = None
    prompt: str | None = None
    messages: list[ChatMessage] | None = Field(default=None, min_length=1, max_length=10_000)
    tools: list[Tool] | None = None
    add_special_tokens: bool = Field(default=True, description="Of a prompt: what the tokenizer puts around a text.")
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    chat_template_kwargs: dict[str, Any] | None = None
    return_token_strs: bool = False

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give either prompt or messages")
        if self.continue_final_message and "add_generation_prompt" not in self.model_fields_set:
            self.add_generation_prompt = False
        return self


class ApplyTemplateRequest(Strict):
    """The messages of a chat."""

    model: str | None = None
    messages: list[ChatMessage] = Field(min_length=1, max_length=10_000)
    tools: list[Tool] | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    chat_template_kwargs: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _settle(self) -> Self:
        if self.continue_final_message and "add_generation_prompt" not in self.model_fields_set:
            self.add_generation_prompt = False
        return self


class DetokenizeRequest(Strict):
    model: str | None = None
    tokens: list[Annotated[int, Field(ge=0, lt=2**31)]] = Field(max_length=MOST_TOKENS)
    skip_special_tokens: bool = False
