"""From what callers give to checked prompts and parameters."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import index
from typing import Any, Protocol

from deepseek.engine.answer_text import TextDecoder
from deepseek.errors import GenerationError
from deepseek.sampling import SamplingParams

Prompt = str | Sequence[int]
Prompts = Prompt | Sequence[Prompt]


class TextTokenizer(Protocol):
    """What the engine needs of `deepseek.tokenizer.Tokenizer`."""

    def encode(self, text: str) -> list[int]: ...
    def stream(self, *, skip_special_tokens: bool = False) -> TextDecoder: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestOptions:
    """What a request may ask for beside its text. Raises GenerationError naming the field.

    priority: the lower, the earlier. request_id: the name to abort it by; None: one is made up. cache_salt: cached KV
    is shared with requests of the same salt only. record_routing: tell which experts each token used, see
    SampleRouting; such prompts are computed whole, whatever is cached.
    """

    priority: int = 0
    request_id: str | None = None
    cache_salt: str = ""
    record_routing: bool = False

    def __post_init__(self) -> None:
        for name, kind, meaning in (
            ("priority", int, "a whole number"),
            ("request_id", str | None, "a text or None"),
            ("cache_salt", str, "a text"),
            ("record_routing", bool, "True or False"),
        ):
            value = getattr(self, name)
            if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
                raise GenerationError(f"{name} must be {meaning}, not {value!r:.200}")


def is_many(prompts: Prompts) -> bool:
    """Whether this is a list of prompts and not one."""
    return not isinstance(prompts, str) and not all(_is_token(token) for token in prompts)


def prompt_ids(prompt: Any, tokenizer: TextTokenizer | None) -> list[int]:
    if isinstance(prompt, str):
        if tokenizer is None:
            raise GenerationError("a prompt given as text needs an engine with a tokenizer: give token ids")
        return tokenizer.encode(prompt)
    if not all(_is_token(token) for token in prompt):
        raise GenerationError("a prompt must be a text or a list of token ids")
    return [index(token) for token in prompt]


def check_prompt(ids: list[int], vocab_size: int, max_model_len: int) -> None:
    """Raises GenerationError for a prompt that is empty, too long or no prompt of this model."""
    if not ids:
        raise GenerationError("the prompt is empty: it must have at least one token")
    if len(ids) >= max_model_len:
        raise GenerationError(
            f"the prompt has {len(ids)} tokens, but this engine takes {max_model_len} in all (max_model_len), one of "
            "them generated: shorten the prompt or raise max_model_len"
        )
    wrong = next((token for token in ids if not 0 <= token < vocab_size), None)
    if wrong is not None:
        raise GenerationError(
            f"the prompt's token id {wrong} is outside the vocabulary of {vocab_size}: use this model's tokenizer"
        )


def settle(params: SamplingParams | None, fields: dict[str, Any]) -> tuple[SamplingParams, RequestOptions]:
    """Parameters given as one object or by name, and the options among the names."""
    options = RequestOptions(**{name: fields.pop(name) for name in RequestOptions.__dataclass_fields__.keys() & fields})
    if params is not None and fields:
        raise GenerationError(f"give params or single fields, not both: {', '.join(sorted(fields))}")
    unknown = sorted(fields.keys() - SamplingParams.__dataclass_fields__.keys())
    if unknown:
        known = ", ".join([*SamplingParams.__dataclass_fields__, *RequestOptions.__dataclass_fields__])
        raise GenerationError(f"unknown setting {unknown[0]!r}; known are {known}")
    return params or SamplingParams(**fields), options


def _is_token(value: object) -> bool:
    return hasattr(value, "__index__") and not isinstance(value, bool)
