"""What all requests share: strictness, refusals by name, and the fields that say how to sample."""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from deepseek.errors import GenerationError
from deepseek.sampling import SamplingParams, StructuredOutput

REFUSED = {
    "audio": "this server answers with text only",
    "best_of": "ask for n answers and choose among them",
    "function_call": "use tool_choice",
    "dimensions": "vectors are as long as the model's hidden state; leave it out",
    "functions": "use tools",
    "modalities": "this server answers with text only",
    "prediction": "leave it out; prompt look-up guesses without it",
    "prompt_cache_retention": "leave it out; prompts are cached as long as there is room",
    "prompt_logprobs": "use /v1/completions with echo and logprobs",
    "suffix": "use /v1/completions",
    "truncate_prompt_tokens": "send texts that fit into max_model_len",
    "use_beam_search": "beam search is not offered; leave it out",
    "verbosity": "say in the messages how long the answer should be",
    "web_search_options": "this server does not search the web",
}
"""Fields that other servers know and this one refuses, each with what to do instead."""


class Strict(BaseModel):
    """Types are not converted, unknown fields are refused, numbers are finite."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class StreamOptions(Strict):
    include_usage: bool = False
    continuous_usage_stats: bool = False


class JsonSchema(Strict):
    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] | bool | None = Field(default=None, alias="schema")
    strict: bool | None = None


class ResponseFormat(Strict):
    """strict may be true or false: the schema is always held to."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _has_schema(self) -> Self:
        if self.type == "json_schema" and (self.json_schema is None or self.json_schema.schema_ is None):
            raise ValueError("json_schema.schema must be given with type json_schema")
        if self.type != "json_schema" and self.json_schema is not None:
            raise ValueError("json_schema means something with type json_schema only")
        return self


class StructuredOutputs(Strict):
    """vLLM's: exactly one of them."""

    json_: dict[str, Any] | str | None = Field(default=None, alias="json")
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None


class SamplingFields(Strict):
    """The fields of SamplingParams under the names that OpenAI's and vLLM's clients use."""

    model: str | None = None
    n: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = Field(default=None, description="0 or -1: all tokens.")
    min_p: float | None = None
    typical_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    bad_words: list[str] | None = None
    allowed_token_ids: list[int] | None = None
    min_tokens: int | None = None
    ignore_eos: bool | None = None
    include_stop_str_in_output: bool | None = None
    skip_special_tokens: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: dict[str, Any] | str | None = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None
    priority: int = Field(default=0, description="The lower, the earlier.")
    cache_salt: str | None = Field(default=None, description="Cached prompts are shared within a salt only.")
    request_id: str | None = Field(default=None, description="Becomes part of the answer's id.", max_length=128)
    routed_experts: bool | Literal["all"] | None = Field(
        default=None, description="Tell which experts each generated token used; all: each prompt token too."
    )
    user: str | None = Field(default=None, description="A label; changes nothing.")

    @model_validator(mode="after")
    def _check_stream_options(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options must be given with stream: true only")
        return self

    def sampling(self, defaults: dict[str, Any], **more: Any) -> SamplingParams:
        """defaults: of fields that the request leaves out. Raises GenerationError naming the field."""
        given = {name: value for name in _PLAIN if (value := getattr(self, name)) is not None}
        if given.get("top_k") == -1:
            given["top_k"] = 0
        for name in ("stop", "stop_token_ids", "bad_words"):
            if given.get(name) == []:
                del given[name]
        if self.logit_bias:
            given["logit_bias"] = _by_token(self.logit_bias)
        return SamplingParams(**{**defaults, **given, **more})

    def structured(self) -> StructuredOutput | None:
        """What the answer must be; None: anything."""
        wanted: list[dict[str, Any]] = []
        if self.response_format is not None and self.response_format.type == "json_object":
            wanted.append({"json_object": True})
        elif self.response_format is not None and self.response_format.json_schema is not None:
            wanted.append({"json_schema": self.response_format.json_schema.schema_})
        if self.structured_outputs is not None:
            given = self.structured_outputs.model_dump(exclude_none=True)
            wanted.append({"json_schema" if name == "json_" else name: value for name, value in given.items()})
        for name, value in (
            ("json_schema", self.guided_json),
            ("regex", self.guided_regex),
            ("choice", self.guided_choice),
            ("grammar", self.guided_grammar),
        ):
            if value is not None:
                wanted.append({name: value})
        if len(wanted) > 1:
            raise GenerationError(
                "response_format, structured_outputs and the guided fields exclude each other: give one"
            )
        return StructuredOutput(**wanted[0]) if wanted else None


_PLAIN = (
    "n", "temperature", "top_p", "top_k", "min_p", "typical_p", "presence_penalty", "frequency_penalty",
    "repetition_penalty", "seed", "stop", "stop_token_ids", "bad_words", "allowed_token_ids", "min_tokens",
    "ignore_eos", "include_stop_str_in_output", "skip_special_tokens",
)  # fmt: skip


def _by_token(biases: dict[str, float]) -> dict[int, float]:
    """JSON has texts as names; OpenAI's clients write token ids into them."""
    try:
        return {int(token): bias for token, bias in biases.items()}
    except ValueError:
        raise GenerationError('logit_bias must have token ids as names, such as {"42": -100}') from None
