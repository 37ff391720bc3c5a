"""What a request for text may ask for, and where stop strings end it. Shared by both executors; plain Python."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

from deepseek.errors import GenerationError
from deepseek.sampling_names import unknown_name

LogitsProcessor = Callable[[list[int], Any], Any]
"""f(ids generated so far, logits: float32 array (vocabulary,)): changes them in place, or returns others."""

MOST_SAMPLES = 128
MAX_SEED = 2**63 - 1
MOST_LOGPROBS = 100
MOST_STOPS = 64
MOST_STOP_CHARACTERS = 1024
MOST_STOP_TOKENS = 1024
MOST_BIASES = 4096
MOST_BAD_WORDS = 1024
MOST_BAD_WORD_CHARACTERS = 256
MOST_PROCESSORS = 16
MOST_SCHEMA_CHARACTERS = 256 * 1024
MOST_SCHEMA_DEPTH = 64
MOST_GRAMMAR_CHARACTERS = 64 * 1024
MOST_COMPOSED_CHARACTERS = 8 * MOST_SCHEMA_CHARACTERS
MOST_REGEX_CHARACTERS = 4096
MOST_CHOICES = 4096
MOST_CHOICE_CHARACTERS = 4096
AS_MANY_AS_FIT = 2**31 - 1
"""max_tokens=None: until the answer ends or the context is full."""


_KINDS = ("json_schema", "json_object", "regex", "choice", "grammar")


@dataclass(frozen=True, kw_only=True, slots=True)
class StructuredOutput:
    """What an answer must be, from its first character to its last; exactly one of:

    json_schema: JSON that is valid under this schema (a mapping, its text, or a class of Pydantic's). Objects whose
    `properties` are declared have no others unless `additionalProperties` allows them.
    json_object: any JSON object. regex: a text that matches as a whole, in Rust's syntax without look-around.
    choice: one of these texts. grammar: a text of a context-free grammar, in GBNF (llama.cpp) or Lark.
    Raises GenerationError naming the field; what only compiling shows, when the request is given to the engine.
    """

    json_schema: Mapping[str, Any] | str | bool | None = None
    json_object: bool = False
    regex: str | None = None
    choice: tuple[str, ...] | None = None
    grammar: str | None = None

    def __post_init__(self) -> None:
        given = [name for name in _KINDS if getattr(self, name) not in (None, False)]
        if self.json_schema is False:
            raise GenerationError("structured.json_schema must allow something; false allows nothing")
        if len(given) != 1:
            kinds = ", ".join(_KINDS)
            raise GenerationError(f"structured must have exactly one of {kinds}, not {' and '.join(given) or 'none'}")
        if self.json_schema is not None:
            object.__setattr__(self, "json_schema", _schema_text(self.json_schema))
        if self.choice is not None:
            choice = _as_tuple(self.choice)
            fits = 0 < len(choice) <= MOST_CHOICES and _texts(choice, MOST_CHOICE_CHARACTERS)
            meaning = f"1 to {MOST_CHOICES} texts of 1 to {MOST_CHOICE_CHARACTERS} characters"
            _require(fits, "structured.choice", meaning, choice)
            object.__setattr__(self, "choice", tuple(dict.fromkeys(choice)))
        _require(isinstance(self.json_object, bool), "structured.json_object", "True or False", self.json_object)
        for name, most in (("regex", MOST_REGEX_CHARACTERS), ("grammar", MOST_GRAMMAR_CHARACTERS)):
            text = getattr(self, name)
            fits = text is None or _texts((text,), most)
            _require(fits, f"structured.{name}", f"a text of 1 to {most:,} characters", text)

    @property
    def kind(self) -> str:
        """The field that is set, as errors name it."""
        return f"structured.{next(name for name in _KINDS if getattr(self, name) not in (None, False))}"

    @classmethod
    def of(cls, value: Any) -> "StructuredOutput":
        """From fields by name ({"regex": ...}; vLLM's {"json": ...} too), a JSON schema, or a class of Pydantic's."""
        if isinstance(value, cls):
            return value
        names = {*_KINDS, "json"}
        if isinstance(value, Mapping) and value and value.keys() <= names:
            return cls(**{"json_schema" if name == "json" else name: field for name, field in value.items()})
        if isinstance(value, Mapping | str) or hasattr(value, "model_json_schema"):
            return cls(json_schema=value)
        raise GenerationError(f"structured must be a StructuredOutput or a JSON schema, not {value!r:.200}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ComposedOutput(StructuredOutput):
    """A Lark grammar made of formats that were asked for: it may be longer than one that a person writes.

    special_tokens: those that are part of the answer where the grammar names them, as `<[id]>`. asked_for: what errors
    name.
    """

    special_tokens: tuple[int, ...] = ()
    asked_for: str = "structured.grammar"

    def __post_init__(self) -> None:
        fits = self.grammar is not None and _texts((self.grammar,), MOST_COMPOSED_CHARACTERS)
        if not fits:
            raise GenerationError(
                f"{self.asked_for} and the tools are more than {MOST_COMPOSED_CHARACTERS:,} characters together: "
                "send fewer tools"
            )

    @property
    def kind(self) -> str:
        return self.asked_for


def _schema_text(schema: Any) -> str:
    """As JSON text, keys in their order (it is that of the answer's)."""
    if hasattr(schema, "model_json_schema"):
        schema = schema.model_json_schema()
    field, bounds = "structured.json_schema", f"up to {MOST_SCHEMA_CHARACTERS:,} characters"
    _require(not isinstance(schema, str) or len(schema) <= MOST_SCHEMA_CHARACTERS, field, bounds, schema)
    try:
        parsed = json.loads(schema) if isinstance(schema, str) else schema
        text = json.dumps(parsed, ensure_ascii=False, allow_nan=False)
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise GenerationError(f"{field} must be a JSON schema: {type(error).__name__}: {error!s:.200}") from None
    _require(isinstance(parsed, Mapping | bool), field, "a JSON object, or its text", schema)
    _require(len(text) <= MOST_SCHEMA_CHARACTERS, field, bounds, schema)
    _require(_depth(text) <= MOST_SCHEMA_DEPTH, field, f"nested up to {MOST_SCHEMA_DEPTH} levels", schema)
    return text


def _depth(text: str) -> int:
    """How deep valid JSON text is nested."""
    deepest = depth = 0
    inside = escaped = False
    for character in text:
        if inside:
            inside, escaped = escaped or character != '"', not escaped and character == "\\"
        elif character == '"':
            inside = True
        elif character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    return deepest


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingParams:
    """How to continue one prompt. Names and meanings as in vLLM; None stands for a field's default.

    n: so many samples, sharing the prompt. max_tokens, min_tokens: at most and at least so many tokens each; before
    the least, end and stop tokens are impossible. A structured output that is complete ends all the same.
    max_tokens=None: as many as the context takes.

    Which token, in this order, all of it on the model's logits:
    logit_bias: added, by token id. repetition_penalty: logits of tokens in the prompt or the answer are divided by it
    (multiplied where negative). frequency_penalty, presence_penalty: subtracted for each time a token is in the answer,
    and once if it is. logits_processors: see LogitsProcessor. Then what is impossible: tokens not in
    allowed_token_ids; the token that would complete one of bad_words; what `structured` does not allow.
    temperature: 0 takes the likeliest token (greedy). top_k: among the k likeliest; 0 or -1: all. top_p: among the
    likeliest whose probabilities reach p. min_p: among those with at least min_p times the likeliest one's probability.
    typical_p: among those whose surprise is nearest to the expected one, until their probabilities reach it. Applied in
    the order temperature, min_p, top_k, top_p, typical_p.
    seed: the same seed gives the same text; None or -1: another each time.

    stop: texts that end the answer, not part of it unless include_stop_str_in_output; one alone or a list is taken
    too. stop_token_ids: tokens that end it, beside the model's own end tokens, which ignore_eos ignores.
    skip_special_tokens: leave special tokens out of the text.
    logprobs: log-probabilities of each token and of so many of the likeliest at its place, from the model's logits
    before everything above; prompt_logprobs: the same for the prompt's tokens. 0: of the token alone; None: none.
    structured: what the whole answer must be: a StructuredOutput, or what `StructuredOutput.of` takes.
    Raises GenerationError naming the field.
    """

    max_tokens: int = 256
    n: int = 1
    min_tokens: int = 0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: Mapping[int, float] | None = field(default=None, hash=False)
    allowed_token_ids: tuple[int, ...] | None = None
    bad_words: tuple[str, ...] = ()
    logits_processors: tuple[LogitsProcessor, ...] = ()
    structured: StructuredOutput | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    skip_special_tokens: bool = True
    logprobs: int | None = None
    prompt_logprobs: int | None = None

    def __new__(cls, *_: Any, **fields: Any) -> Self:
        """Names what is meant where a field is called as elsewhere: the dataclass alone would only say "unexpected"."""
        if unknown := [name for name in fields if name not in cls.__dataclass_fields__]:
            raise GenerationError(unknown_name(unknown[0], cls.__dataclass_fields__))
        return object.__new__(cls)

    def __post_init__(self) -> None:
        self._settle()
        for name in ("stop", "stop_token_ids", "bad_words", "logits_processors"):
            object.__setattr__(self, name, _as_tuple(getattr(self, name)))
        object.__setattr__(self, "stop", tuple(text for text in self.stop if text != ""))
        if self.allowed_token_ids is not None:
            object.__setattr__(self, "allowed_token_ids", _as_tuple(self.allowed_token_ids))
        if isinstance(self.logit_bias, Mapping):
            object.__setattr__(self, "logit_bias", dict(self.logit_bias))
        self._check_lengths()
        self._check_filters()
        self._check_logits()
        self._check_ends()

    def _settle(self) -> None:
        """None and what other servers take for "no limit" become the values that mean it here."""
        for each in fields(self):
            if getattr(self, each.name) is None and each.default is not None:
                neutral = AS_MANY_AS_FIT if each.name == "max_tokens" else each.default
                object.__setattr__(self, each.name, neutral)
        for name, value in (("top_k", 0), ("seed", None)):
            if _whole(getattr(self, name), -1, -1):
                object.__setattr__(self, name, value)
        if self.structured is not None:
            object.__setattr__(self, "structured", StructuredOutput.of(self.structured))

    def _check_lengths(self) -> None:
        self._need("n", _whole(self.n, 1, MOST_SAMPLES), f"a whole number from 1 to {MOST_SAMPLES}")
        self._need("max_tokens", _whole(self.max_tokens, 1), "a whole number above 0")
        fits = _whole(self.min_tokens, 0, self.max_tokens)
        self._need("min_tokens", fits, f"a whole number from 0 to max_tokens, which is {self.max_tokens}")
        seeded = self.seed is None or _whole(self.seed, 0, MAX_SEED)
        self._need("seed", seeded, "a whole number from 0 to 2**63 - 1 or None")
        for name in ("logprobs", "prompt_logprobs"):
            value = getattr(self, name)
            self._need(name, value is None or _whole(value, 0, MOST_LOGPROBS), f"None or from 0 to {MOST_LOGPROBS}")

    def _check_filters(self) -> None:
        self._need("temperature", _within(self.temperature, 0, math.inf), "0 or above")
        self._need("top_k", _whole(self.top_k, 0), "a whole number, 0 for all")
        for name in ("top_p", "typical_p"):
            value = getattr(self, name)
            self._need(name, _within(value, 0, 1) and value > 0, "above 0 and at most 1")
        self._need("min_p", _within(self.min_p, 0, 1), "between 0 and 1")

    def _check_logits(self) -> None:
        value = self.repetition_penalty
        self._need("repetition_penalty", _within(value, 0, 1e6) and value > 0, "above 0 and at most 1e6; 1 for none")
        for name in ("frequency_penalty", "presence_penalty"):
            self._need(name, _within(getattr(self, name), -2, 2), "between -2 and 2")
        biases = self.logit_bias is None or (
            isinstance(self.logit_bias, dict)
            and len(self.logit_bias) <= MOST_BIASES
            and all(_is_id(token) and _within(bias, -100, 100) for token, bias in self.logit_bias.items())
        )
        self._need("logit_bias", biases, f"up to {MOST_BIASES} token ids, each with a number from -100 to 100")
        ids = self.allowed_token_ids
        allowed = ids is None or (len(ids) > 0 and all(map(_is_id, ids)))
        self._need("allowed_token_ids", allowed, "None or at least one token id")
        words = len(self.bad_words) <= MOST_BAD_WORDS and _texts(self.bad_words, MOST_BAD_WORD_CHARACTERS)
        self._need("bad_words", words, f"up to {MOST_BAD_WORDS} texts of 1 to {MOST_BAD_WORD_CHARACTERS} characters")
        hooks = len(self.logits_processors) <= MOST_PROCESSORS and all(map(callable, self.logits_processors))
        self._need("logits_processors", hooks, f"up to {MOST_PROCESSORS} functions of (token ids, logits)")

    def _check_ends(self) -> None:
        stops = len(self.stop) <= MOST_STOPS and _texts(self.stop, MOST_STOP_CHARACTERS)
        self._need(
            "stop", stops, f"up to {MOST_STOPS} texts of at least one and up to {MOST_STOP_CHARACTERS} characters"
        )
        tokens = len(self.stop_token_ids) <= MOST_STOP_TOKENS and all(map(_is_id, self.stop_token_ids))
        self._need("stop_token_ids", tokens, f"up to {MOST_STOP_TOKENS} token ids")
        for name in ("include_stop_str_in_output", "ignore_eos", "skip_special_tokens"):
            self._need(name, isinstance(getattr(self, name), bool), "True or False")
        if self.structured is not None and self.ignore_eos:
            raise GenerationError("ignore_eos must be False with structured: a complete output can only end")

    def _need(self, name: str, holds: bool, meaning: str) -> None:
        _require(holds, name, meaning, getattr(self, name))


class StopScanner:
    """Finds stop strings in text that comes in pieces, also across their borders.

    `push` gives the text that certainly comes before any stop string; what might be the beginning of one is held back.
    """

    def __init__(self, stop: tuple[str, ...], *, include: bool = False) -> None:
        """include: the stop string is the end of the text, otherwise the text ends before it."""
        self.found: str | None = None  # the stop string that ended the text
        self._stop = stop
        self._include = include
        self._held = ""

    def push(self, piece: str) -> str:
        """Text to show now. Once `found` is set, everything further is dropped."""
        if self.found is not None:
            return ""
        text = self._held + piece
        first = min(((text.find(stop), stop) for stop in self._stop if stop in text), default=None)
        if first is not None:
            self.found, self._held = first[1], ""
            return text[: first[0] + (len(first[1]) if self._include else 0)]
        keep = max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """What was held back, when the text has ended without completing a stop string."""
        rest, self._held = self._held, ""
        return rest


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` begin `stop`."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:size])), 0)


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, list | tuple | set | frozenset | range) else (value,)


def _whole(value: object, least: int, most: float = math.inf) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _is_id(value: object) -> bool:
    return _whole(value, 0, 2**31 - 1)


def _texts(values: tuple[Any, ...], most_characters: int) -> bool:
    return all(isinstance(text, str) and 0 < len(text) <= most_characters for text in values)


def _within(value: object, low: float, high: float) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and low <= value <= high  # type: ignore[arg-type, operator]


def _require(holds: bool, field: str, meaning: str, value: object) -> None:
    if not holds:
        raise GenerationError(f"{field} must be {meaning}, not {value!r:.200}")
