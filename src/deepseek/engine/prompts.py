"""From what callers give to checked prompts and parameters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import index
from typing import Any, Protocol

from deepseek.engine.answer_text import TextDecoder
from deepseek.errors import ContextLengthError, GenerationError
from deepseek.sampling import SamplingParams
from deepseek.sampling_fields import params_for_each

Prompt = str | Sequence[int] | Mapping[str, Any]
"""Text, token ids, or vLLM's `{"prompt": text}` and `{"prompt_token_ids": ids}`."""
Prompts = Prompt | Sequence[Prompt]


class TextTokenizer(Protocol):
    """What the engine needs of `deepseek.tokenizer.Tokenizer`."""

    @property
    def chat_template(self) -> str | None: ...
    def encode(self, text: str) -> list[int]: ...
    def encode_chat(
        self, messages: Sequence[Mapping[str, Any]], *, tools: Sequence[Mapping[str, Any]] | None = None
    ) -> list[int]: ...
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
    """Whether this is a list of prompts and not one. An empty list has no prompts."""
    if isinstance(prompts, str | bytes | Mapping):
        return False
    return len(prompts) == 0 or not all(_is_token(token) for token in prompts)


def prompt_ids(prompt: Any, tokenizer: TextTokenizer | None) -> list[int]:
    if isinstance(prompt, Mapping):
        prompt = _held(prompt)
    if isinstance(prompt, str):
        if tokenizer is None:
            raise GenerationError("a prompt given as text needs an engine with a tokenizer: give token ids")
        return tokenizer.encode(prompt)
    if isinstance(prompt, bytes | Mapping) or not all(_is_token(token) for token in prompt):
        raise GenerationError(f"a prompt must be a string or a list of token ids, not {type(prompt).__name__}")
    return [index(token) for token in prompt]


def _held(prompt: Mapping[str, Any]) -> Any:
    """The prompt in one of vLLM's dicts; ids win, as there. Iterated, a dict would be a list of its keys."""
    given = {name: value for name, value in prompt.items() if value is not None}
    if "role" in given:
        raise GenerationError("a prompt must be a string or token ids, not a message: use chat for messages")
    if unknown := given.keys() - {"prompt", "prompt_token_ids"}:
        raise GenerationError(f"a prompt as a dict has prompt or prompt_token_ids, not {', '.join(sorted(unknown))}")
    if not given:
        raise GenerationError("a prompt as a dict must have prompt (a string) or prompt_token_ids")
    return given.get("prompt_token_ids", given.get("prompt"))


def chat_ids(messages: Any, tokenizer: TextTokenizer, tools: Any = None) -> list[int]:
    """The ids of a conversation, or of what one user says. Raises GenerationError."""
    if tokenizer.chat_template is None:
        raise GenerationError(
            "this model has no chat template, so it takes plain text only: use generate (`deepseek generate`)"
        )
    said = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
    return tokenizer.encode_chat(said, tools=tools)


def check_prompt(ids: list[int], vocab_size: int, limit: int, *, scores: bool, fix: str) -> None:
    """limit: max_model_len. scores: a prompt that fills it leaves room enough. fix: what to do about a longer one.

    Raises GenerationError for a prompt that is empty, too long or no prompt of this model.
    """
    if not ids:
        raise GenerationError("the prompt is empty: it must have at least one token")
    if len(ids) > limit - (not scores):
        raise context_error(str(len(ids)), limit, fix, scores=scores)
    wrong = next((token for token in ids if not 0 <= token < vocab_size), None)
    if wrong is not None:
        raise GenerationError(
            f"the prompt's token id {wrong} is outside the vocabulary of {vocab_size}: use this model's tokenizer"
        )


def context_error(tokens: str, limit: int, fix: str, *, scores: bool = False) -> ContextLengthError:
    """For a prompt of so many tokens. Clients look for "prompt is too long" and "maximum context length" in it."""
    generated = "" if scores else ", one of them generated"
    return ContextLengthError(
        f"the prompt is too long: {tokens} tokens > {limit - (not scores)} maximum. The maximum context length is "
        f"{limit} tokens (max_model_len){generated}: {fix}"
    )


def settle(params: Any, fields: dict[str, Any], count: int = 1) -> tuple[list[SamplingParams], RequestOptions]:
    """Parameters for each of `count` prompts, given as objects or by name, and the options among the names."""
    names = RequestOptions.__dataclass_fields__.keys()
    options = RequestOptions(**{name: fields[name] for name in names & fields})
    rest = {name: value for name, value in fields.items() if name not in names}
    if params is None:
        params = rest.pop("sampling_params", None)  # vLLM's name
    return params_for_each(params, rest, count, also=names), options


def _is_token(value: object) -> bool:
    return hasattr(value, "__index__") and not isinstance(value, bool)
