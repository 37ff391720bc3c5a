"""`/v1/completions`: what may be asked."""

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from deepseek.server.protocol.fields import SamplingFields

MOST_PROMPTS = 1024
Token = Annotated[int, Field(ge=0, lt=2**31)]


class CompletionRequest(SamplingFields):
    """OpenAI's fields, with vLLM's extensions. What is not listed here is refused by name."""

    prompt: (
        str
        | list[Token]
        | Annotated[list[str], Field(min_length=1, max_length=MOST_PROMPTS)]
        | Annotated[list[list[Token]], Field(min_length=1, max_length=MOST_PROMPTS)]
    )
    suffix: str | None = Field(default=None, description="What follows the gap, for models that fill in the middle.")
    max_tokens: int = Field(default=16, ge=0, description="0: with echo, to score the prompt alone.")
    echo: bool = False
    logprobs: int | None = Field(default=None, ge=0, description="So many of the likeliest, and the token's own.")
    best_of: int | None = Field(default=None, description="Refused unless it equals n.")
    add_special_tokens: bool = Field(default=True, description="What the tokenizer puts around a text.")

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.best_of not in (None, self.n or 1):
            raise ValueError("best_of must be left out, or equal n: ask for n answers and choose among them")
        if self.max_tokens == 0 and not self.echo:
            raise ValueError("max_tokens must be above 0, unless echo is true")
        if self.suffix is not None and self.echo:
            raise ValueError("echo cannot be used with suffix")
        if self.suffix is not None and not isinstance(self.prompt, str):
            raise ValueError("suffix must be given with a prompt that is one text")
        return self

    @property
    def prompts(self) -> list[str] | list[list[int]]:
        """A list, also of one."""
        given: Any = self.prompt
        is_one = isinstance(given, str) or not given or isinstance(given[0], int)
        prompts: list[str] | list[list[int]] = [given] if is_one else given
        return prompts
