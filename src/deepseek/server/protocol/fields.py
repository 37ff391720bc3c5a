"""What requests for text share: the fields that say how to sample, and the form that an answer must have."""

import json
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from deepseek.errors import GenerationError
from deepseek.sampling import MAX_SEED, MOST_LOGPROBS, SamplingParams, StructuredOutput
from deepseek.server.protocol.ignored_fields import ignore
from deepseek.server.protocol.peer_fields import PROMPT_REFUSED, REQUEST_ALIASES, SAMPLING_IGNORED, SAMPLING_REFUSED
from deepseek.server.protocol.tolerance import CONTRADICTION, Notes, RequestBody, RequestModel

PRIORITY = "The lower, the earlier."
CACHE_SALT = "Cached prompts are shared within a salt only."


class StreamOptions(RequestModel):
    ignored: ClassVar = {"include_obfuscation": "nothing is padded"}

    include_usage: bool = False
    continuous_usage_stats: bool = False


class JsonSchema(RequestModel):
    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] | bool | None = Field(default=None, alias="schema")
    strict: bool | None = None


class ResponseFormat(RequestModel):
    """strict may be true or false: the schema is always held to."""

    adapted: ClassVar = {
        "schema": "json_schema.schema",
        "value": "json_schema.schema, with type json",
    }
    refused: ClassVar = {"grammar": SAMPLING_REFUSED["structural_tag"], "pattern": SAMPLING_REFUSED["structural_tag"]}

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @classmethod
    def adapt(cls, values: dict[str, Any], notes: Notes) -> None:
        schema = values.pop("schema", None)
        inner = values.get("json_schema")
        if schema and isinstance(inner, dict) and inner.get("schema") not in (None, schema):
            notes.refuse("schema", "and json_schema.schema differ: give one", CONTRADICTION)
        if values.get("type") in ("json", "json_object"):
            schema = schema or values.pop("value", None)
            values["type"] = "json_object"
        if values.get("type") == "text":
            values.pop("json_schema", None)
        elif values.get("json_schema"):
            values["type"] = "json_schema"
        elif schema:
            values |= {"type": "json_schema", "json_schema": {"schema": schema}}

    @model_validator(mode="after")
    def _has_schema(self) -> Self:
        if self.type == "json_schema" and (self.json_schema is None or self.json_schema.schema_ is None):
            raise ValueError("json_schema.schema must be given with type json_schema")
        if self.type != "json_schema" and self.json_schema is not None:
            raise ValueError("json_schema applies only with type json_schema")
        return self


class StructuredOutputs(RequestModel):
    """vLLM's: exactly one of them."""

    refused: ClassVar = {"structural_tag": SAMPLING_REFUSED["structural_tag"]}
    ignored: ClassVar = dict.fromkeys(
        ("disable_fallback", "disable_any_whitespace", "disable_additional_properties", "whitespace_pattern"),
        "the server decides how JSON is written",
    )

    json_: dict[str, Any] | str | None = Field(default=None, alias="json")
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None

    def asked(self) -> dict[str, Any]:
        """As fields of StructuredOutput."""
        return {
            "json_schema" if name == "json_" else name: value
            for name, value in self.model_dump(exclude_none=True).items()
            if value not in ("", [], False)
        }


class SamplingFields(RequestBody):
    """The fields of SamplingParams under the names that OpenAI's and vLLM's clients use."""

    aliases: ClassVar = REQUEST_ALIASES
    ignored: ClassVar = SAMPLING_IGNORED
    refused: ClassVar = {**PROMPT_REFUSED, **SAMPLING_REFUSED}
    adapted: ClassVar = {
        "do_sample": "false: temperature 0",
        "extra_body": "its fields, beside the others",
        "repeat_last_n": "0: no penalties; else penalties look at the whole prompt and answer",
    }
    bounds: ClassVar = frozenset({"max_tokens"})

    model: str | None = None
    n: int | None = None
    temperature: float | None = None
    top_p: float | None = Field(default=None, description="0: the likeliest token.")
    top_k: int | None = Field(default=None, description="0 or less: all tokens.")
    min_p: float | None = None
    typical_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: dict[str, float] | None = Field(default=None, description="Ids that the model does not have: ignored.")
    seed: int | None = Field(default=None, description="-1: any.")
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
    priority: int = Field(default=0, description=PRIORITY)
    cache_salt: str | None = Field(default=None, description=CACHE_SALT)
    request_id: str | None = Field(default=None, description="Becomes part of the answer's id.", max_length=128)
    routed_experts: bool | Literal["all"] | None = Field(
        default=None, description="Tell which experts each generated token used; all: each prompt token too."
    )

    @classmethod
    def adapt(cls, values: dict[str, Any], notes: Notes) -> None:
        _adapt_extra_body(values, notes)
        if values.pop("do_sample", None) in _NO:
            values["temperature"] = 0
        if values.get("repeat_last_n") == 0:
            for name in ("repeat_last_n", *_PENALTIES):
                values.pop(name, None)
        if isinstance(values.get("structured_outputs"), bool):  # OpenRouter's flag beside response_format
            values.pop("structured_outputs")
            notes.ignore("structured_outputs")
        for name in ("stop", "stop_token_ids", "bad_words"):
            if isinstance(values.get(name), list):
                values[name] = [one for one in values[name] if one is not None]
        if isinstance(values.get("logit_bias"), list):
            values["logit_bias"] = _bias_pairs(values["logit_bias"], notes)

    def sampling(self, defaults: dict[str, Any], vocab_size: int, **more: Any) -> SamplingParams:
        """defaults: of fields that the request leaves out. Raises GenerationError naming the field."""
        given = {name: value for name in _PLAIN if (value := getattr(self, name)) is not None}
        if self.logit_bias:
            given["logit_bias"] = _by_token(self.logit_bias, vocab_size)
        for name in ("stop_token_ids", "allowed_token_ids"):
            if (ids := given.get(name)) and (own := [token for token in ids if token < vocab_size]) and own != ids:
                ignore(f"{name}[]")
                given[name] = own
        return sampling_params({**defaults, **given, **more})

    def structured(self) -> StructuredOutput | None:
        """What the answer must be; None: anything."""
        wanted: list[dict[str, Any]] = []
        if self.response_format is not None and self.response_format.type == "json_object":
            wanted.append({"json_object": True})
        elif self.response_format is not None and self.response_format.json_schema is not None:
            wanted.append({"json_schema": self.response_format.json_schema.schema_})
        if self.structured_outputs is not None:
            asked = self.structured_outputs.asked()
            wanted += [asked] if asked else []
        for name, value in (
            ("json_schema", self.guided_json),
            ("regex", self.guided_regex),
            ("choice", self.guided_choice),
            ("grammar", self.guided_grammar),
        ):
            if value is not None and value not in ("", []) and {name: value} not in wanted:
                wanted.append({name: value})
        if any("json_schema" in one for one in wanted):  # which says more than that JSON is wanted
            wanted = [one for one in wanted if one != {"json_object": True}]
        if len(wanted) > 1:
            raise GenerationError(
                "response_format, structured_outputs and the guided fields exclude each other: give one"
            )
        return StructuredOutput(**wanted[0]) if wanted else None


_NO = (False, "false", "False", "0")
_PENALTIES = tuple(
    name
    for field in ("repetition_penalty", "presence_penalty", "frequency_penalty")
    for name in (field, *(alias for alias, meant in REQUEST_ALIASES.items() if meant == field))
)
_PLAIN = (
    "n", "temperature", "top_p", "top_k", "min_p", "typical_p", "presence_penalty", "frequency_penalty",
    "repetition_penalty", "seed", "stop", "stop_token_ids", "bad_words", "allowed_token_ids", "min_tokens",
    "ignore_eos", "include_stop_str_in_output", "skip_special_tokens",
)  # fmt: skip


def sampling_params(given: dict[str, Any]) -> SamplingParams:
    """With the edges of other servers: values that mean "none", "any" or "as much as there is".

    top_p 0 is the likeliest token, top_k below 0 all of them; a seed below 0 any seed (-1) or one as good as another;
    empty stop texts stop nothing; more log-probabilities than there are to have are as many as there are.
    """
    values = dict(given)
    if values.get("top_p") == 0:
        del values["top_p"]
        values["top_k"] = 1
    if values.get("top_k", 0) < 0:
        values["top_k"] = 0
    seed = values.get("seed")
    if seed == -1:
        del values["seed"]
    elif seed is not None:
        values["seed"] = seed % (MAX_SEED + 1)
    if (stop := values.get("stop")) is not None:
        values["stop"] = tuple(text for text in ([stop] if isinstance(stop, str) else stop) if text)
    for name in ("logprobs", "prompt_logprobs"):
        if values.get(name) is not None:
            values[name] = min(values[name], MOST_LOGPROBS) if values[name] >= 0 else MOST_LOGPROBS
    return SamplingParams(**values)


def length_limit(max_model_len: int, *limits: int | None) -> int:
    """The lowest of several upper bounds; None and what is below 0 bounds nothing."""
    given = [limit for limit in limits if limit is not None and limit >= 0]
    return min([max_model_len, *given])


def _by_token(biases: dict[str, float], vocab_size: int) -> dict[int, float]:
    """JSON has texts as names; OpenAI's clients write token ids into them, perhaps of another model's."""
    try:
        by_token = {int(token): max(-100.0, min(100.0, bias)) for token, bias in biases.items()}
    except ValueError:
        raise GenerationError('logit_bias must have token ids as names, such as {"42": -100}') from None
    if len(by_token) < len(biases):
        twice = next(token for token in by_token if sum(int(other) == token for other in biases) > 1)
        raise GenerationError(f"logit_bias names token {twice} twice")
    own = {token: bias for token, bias in by_token.items() if 0 <= token < vocab_size}
    if len(own) < len(by_token):
        ignore("logit_bias[]")
    return own


def _bias_pairs(pairs: list[Any], notes: Notes) -> Any:
    """llama.cpp's `[[id, bias], ...]`; false for a bias: never."""
    if not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        return pairs
    biases: dict[str, Any] = {}
    for token, given in pairs:
        name = token if isinstance(token, str) else json.dumps(token)
        bias = -100.0 if given is False else given
        if biases.setdefault(name, bias) != bias:
            notes.refuse("logit_bias", f"has biases for token {name:.40} that differ: give one", CONTRADICTION)
    return biases


def _adapt_extra_body(values: dict[str, Any], notes: Notes) -> None:
    """What OpenAI's Python client spreads into the body, written by those who do not use that client."""
    extra = values.pop("extra_body", None)
    if not isinstance(extra, dict):
        if extra is not None:
            notes.ignore("extra_body")
        return
    for name, value in extra.items():
        if values.get(name) is None:
            values[name] = value
        elif value is not None and values[name] != value:
            notes.refuse(f"extra_body.{name}", f"and {name} differ: give one", CONTRADICTION)
