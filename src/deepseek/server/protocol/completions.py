"""`/v1/completions`: what may be asked."""

from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from deepseek.sampling_names import LENGTH_ALIASES
from deepseek.server.protocol.fields import SamplingFields
from deepseek.server.protocol.ignored_fields import ignore
from deepseek.server.protocol.tolerance import Notes

MOST_PROMPTS = 1024
_TOKEN_PROMPTS = ("prompt_token_ids", "input_ids")
"""Other servers' fields for a prompt that is token ids."""
Token = Annotated[int, Field(ge=0, lt=2**31)]
Tokens = Annotated[list[Token], Field(fail_fast=True)]
"""One wrong item tells all: an error for each of millions would take seconds."""


class CompletionRequest(SamplingFields):
    """OpenAI's fields, with vLLM's extensions and other servers' names for them. Others are ignored and listed."""

    aliases: ClassVar = {
        **LENGTH_ALIASES,
        "max_completion_tokens": "max_tokens",
        "n_probs": "logprobs",
        "return_full_text": "echo",
        "add_bos_token": "add_special_tokens",
    }
    adapted: ClassVar = {
        "best_of": "refused above n",
        **dict.fromkeys(_TOKEN_PROMPTS, "prompt, where that is missing or empty"),
    }

    prompt: (
        str
        | Tokens
        | Annotated[list[str], Field(fail_fast=True, min_length=1, max_length=MOST_PROMPTS)]
        | Annotated[list[Tokens], Field(fail_fast=True, min_length=1, max_length=MOST_PROMPTS)]
    )
    suffix: str | None = Field(default=None, description="What follows the gap, for models that fill in the middle.")
    max_tokens: int = Field(
        default=16,
        description="0: nothing, or with echo the prompt; below 0: as many as the context holds.",
    )
    echo: bool = False
    logprobs: int | None = Field(default=None, ge=-1, description="So many of the likeliest, and the token's own.")
    best_of: int | None = Field(default=None, description="Refused above n.")
    add_special_tokens: bool = Field(default=True, description="What the tokenizer puts around a text.")
    return_token_ids: bool = Field(default=False, description="Tell the ids of the prompt's and the answer's tokens.")
    return_tokens_as_token_ids: bool = Field(default=False, description="Log-probabilities name tokens token_id:ID.")

    @classmethod
    def adapt(cls, values: dict[str, Any], notes: Notes) -> None:
        super().adapt(values, notes)
        for name in _TOKEN_PROMPTS:
            if values.get(name) and not values.get("prompt"):
                values["prompt"] = values.pop(name)
        if isinstance(values.get("logprobs"), bool):  # as in /v1/chat/completions
            values["logprobs"] = 1 if values["logprobs"] else None

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.best_of is not None and self.best_of > (self.n or 1):
            raise ValueError("best_of must be left out, or equal n: ask for n answers and choose among them")
        self.suffix = self.suffix or None
        if self.suffix is not None and self.echo:
            raise ValueError("echo cannot be used with suffix")
        if self.suffix is not None and not isinstance(self.prompt, str):
            raise ValueError("suffix must be given with a prompt that is one text")
        if self.stream_options is not None and not self.stream:
            ignore("stream_options")
            self.stream_options = None
        return self

    @property
    def prompts(self) -> list[str] | list[list[int]]:
        """A list, also of one."""
        given: Any = self.prompt
        is_one = isinstance(given, str) or not given or isinstance(given[0], int)
        prompts: list[str] | list[list[int]] = [given] if is_one else given
        return prompts
