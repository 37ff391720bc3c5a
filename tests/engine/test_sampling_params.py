"""What a request may ask for: every field's bounds, and what they are turned into."""

import copy
import json
import math
import re
from dataclasses import replace
from typing import Any

import pytest

from deepseek import sampling
from deepseek.errors import GenerationError
from deepseek.sampling import AS_MANY_AS_FIT, SamplingParams, StopScanner, StructuredOutput
from deepseek.sampling_fields import sampling_params


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("n", value) for value in (0, -1, 1.0, True, sampling.MOST_SAMPLES + 1, 10**30)],
        *[("min_tokens", value) for value in (-1, 257, 1.0)],
        *[("typical_p", value) for value in (0, -0.1, 1.1, math.nan, "1")],
        *[("repetition_penalty", value) for value in (0, -1, math.inf, math.nan, True, "1")],
        *[(name, value) for name in ("frequency_penalty", "presence_penalty") for value in (-2.1, 2.1, math.nan, "0")],
        *[("logit_bias", value) for value in ([1], {"1": 1}, {1: 101}, {1: math.nan}, {-1: 0}, {True: 1}, {2**31: 0})],
        ("logit_bias", dict.fromkeys(range(sampling.MOST_BIASES + 1), 1)),
        *[("allowed_token_ids", value) for value in ([], [-1], ["a"], [1.0])],
        *[("bad_words", value) for value in ("", [""], [3], ["a"] * 2000, ["a" * 1000])],
        *[("logits_processors", value) for value in ("f", [1], [print] * 17)],
        *[("structured", value) for value in (5, {1, 2})],
        *[("stop", value) for value in (["a"] * 100, "a" * 5000, b"a")],
        *[("stop_token_ids", value) for value in ([-1], [2**31], list(range(2000)))],
        *[(name, value) for name in ("logprobs", "prompt_logprobs") for value in (-1, 101, True, 1.0, "5")],
        *[(name, 1) for name in ("ignore_eos", "skip_special_tokens", "include_stop_str_in_output")],
    ],
)
def test_a_bad_setting_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(GenerationError, match=f"^{field} must be") as caught:
        SamplingParams(**{field: value})  # type: ignore[arg-type]
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("max_new_tokens", "unknown setting 'max_new_tokens'; did you mean max_tokens?"),
        ("max_completion_tokens", "did you mean max_tokens?"),
        ("repeat_penalty", "did you mean repetition_penalty?"),
        ("temprature", "did you mean temperature?"),
        ("num_return_sequences", "did you mean n?"),
        ("qqq", "known are max_tokens, n, "),
    ],
)
def test_a_name_from_elsewhere_says_what_is_meant(name: str, message: str) -> None:
    with pytest.raises(GenerationError, match=re.escape(message)):
        SamplingParams(**{name: 1})


def test_params_are_copied() -> None:
    params = SamplingParams(max_tokens=3, stop="a")
    assert copy.deepcopy(params) == copy.copy(params) == params
    assert replace(params, n=2) == SamplingParams(max_tokens=3, stop="a", n=2)


def test_requests_and_python_share_their_other_names() -> None:
    fields = dict.fromkeys(("rep_pen", "freq_pen", "n_cmpl", "max_gen_len", "min_new_tokens"), 1)
    params = sampling_params(None, fields)
    assert (params.repetition_penalty, params.frequency_penalty, params.n) == (1, 1, 1)
    assert (params.max_tokens, params.min_tokens) == (1, 1)


def test_one_value_stands_for_a_list_of_it() -> None:
    params = SamplingParams(
        stop="a", bad_words="b", stop_token_ids=3, allowed_token_ids=range(2), logits_processors=print
    )  # type: ignore[arg-type]
    assert (params.stop, params.bad_words, params.stop_token_ids) == (("a",), ("b",), (3,))
    assert (params.allowed_token_ids, params.logits_processors) == ((0, 1), (print,))


def test_params_are_values() -> None:
    bias = {4: 1.5}
    one = SamplingParams(logit_bias=bias, structured=StructuredOutput(json_schema={"type": "null"}))
    bias[4] = 9
    assert one.logit_bias == {4: 1.5}
    assert one == SamplingParams(logit_bias={4: 1.5}, structured=StructuredOutput(json_schema='{"type":"null"}'))
    assert len({one, SamplingParams(), SamplingParams()}) == 2


def test_structured_and_ignore_eos_contradict() -> None:
    with pytest.raises(GenerationError, match="ignore_eos must be False with structured"):
        SamplingParams(ignore_eos=True, structured=StructuredOutput(json_object=True))


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {"not": schema}
    return schema


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({}, r"structured must have exactly one of json_schema, json_object, .*, not none"),
        ({"regex": "a", "choice": ["b"]}, "not regex and choice"),
        ({"json_schema": False}, r"structured\.json_schema must allow something"),
        ({"json_schema": "{"}, r"structured\.json_schema must be a JSON schema: JSONDecodeError"),
        ({"json_schema": "[1]"}, r"structured\.json_schema must be a JSON object"),
        ({"json_schema": 5}, r"structured\.json_schema must be a JSON object"),
        ({"json_schema": {"a": object()}}, r"structured\.json_schema must be a JSON schema: TypeError"),
        ({"json_schema": {"minimum": math.nan}}, r"structured\.json_schema must be a JSON schema: ValueError"),
        ({"json_schema": {"const": "\ud800"}}, r"structured\.json_schema must be a JSON schema: UnicodeEncodeError"),
        ({"json_schema": deep(65)}, r"structured\.json_schema must be nested up to 64 levels"),
        ({"json_schema": deep(100_000)}, r"structured\.json_schema must be a JSON schema: RecursionError"),
        ({"json_schema": "[" * 100_000}, r"structured\.json_schema must be a JSON schema: RecursionError"),
        ({"json_schema": {"const": "a" * 300_000}}, r"structured\.json_schema must be up to 262,144 characters"),
        ({"json_schema": '{"a":"' + "a" * 300_000 + '"}'}, r"structured\.json_schema must be up to 262,144 char"),
        ({"json_object": 1}, r"structured\.json_object must be True or False"),
        ({"regex": "a" * 5000}, r"structured\.regex must be a text of 1 to 4,096 characters"),
        ({"regex": 3}, r"structured\.regex must be a text"),
        ({"regex": ""}, r"structured\.regex must be a text"),
        ({"grammar": "a" * 70_000}, r"structured\.grammar must be a text of 1 to 65,536"),
        ({"choice": []}, r"structured\.choice must be 1 to 4096 texts"),
        ({"choice": ["a", ""]}, r"structured\.choice must be 1 to 4096 texts"),
        ({"choice": [["a"]]}, r"structured\.choice must be 1 to 4096 texts"),
        ({"choice": [str(number) for number in range(5000)]}, r"structured\.choice must be 1 to 4096 texts"),
    ],
)  # fmt: skip
def test_structured_output_is_checked(wanted: dict[str, Any], message: str) -> None:
    with pytest.raises(GenerationError, match=message) as caught:
        StructuredOutput(**wanted)
    assert len(str(caught.value)) < 500


def test_structured_output_is_kept_in_one_form() -> None:
    assert StructuredOutput(choice=["b", "a", "b"]).choice == ("b", "a")  # type: ignore[arg-type]
    schema = {"properties": {"z": {}, "a": {"const": '"[{\\"'}}}
    text = StructuredOutput(json_schema=schema).json_schema
    assert isinstance(text, str)
    assert json.dumps(json.loads(text)) == json.dumps(schema)
    assert StructuredOutput(json_schema=deep(63)) == StructuredOutput(json_schema=json.dumps(deep(63)))
    brackets = {"enum": ["[" * 100, '"{' * 100, "\\" * 99 + "[" * 99]}
    assert StructuredOutput(json_schema=brackets).json_schema == json.dumps(brackets)
    assert StructuredOutput(json_schema=True).json_schema == "true"


def test_a_stop_string_can_stay() -> None:
    scanner = StopScanner(("END", "x"), include=True)
    assert [scanner.push(piece) for piece in ("a E", "N", "D b")] == ["a ", "", "END"]
    assert scanner.found == "END"
    assert scanner.push("more") == scanner.flush() == ""


class PydanticLike:
    @staticmethod
    def model_json_schema() -> dict[str, Any]:
        return {"type": "integer"}


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ({"json": {"type": "integer"}}, StructuredOutput(json_schema={"type": "integer"})),
        ({"json_schema": PydanticLike}, StructuredOutput(json_schema={"type": "integer"})),
        ({"regex": "a+"}, StructuredOutput(regex="a+")),
        ({"type": "integer"}, StructuredOutput(json_schema={"type": "integer"})),
        ('{"type": "integer"}', StructuredOutput(json_schema={"type": "integer"})),
        (PydanticLike, StructuredOutput(json_schema={"type": "integer"})),
    ],
)
def test_structured_output_is_taken_in_many_forms(given: Any, meant: StructuredOutput) -> None:
    assert SamplingParams(structured=given).structured == meant
    assert sampling_params(None, {"structured": given}).structured == meant


def test_guided_fields_are_structured_output() -> None:
    assert sampling_params(None, {"guided_choice": ["a", "b"]}).structured == StructuredOutput(choice=("a", "b"))
    with pytest.raises(GenerationError, match="structured must be a StructuredOutput or a JSON schema"):
        SamplingParams(structured=5)  # type: ignore[arg-type]


def test_none_and_minus_one_mean_what_they_mean_elsewhere() -> None:
    nothing: dict[str, Any] = dict.fromkeys(SamplingParams.__dataclass_fields__)
    assert SamplingParams(**nothing) == SamplingParams(max_tokens=AS_MANY_AS_FIT)
    assert SamplingParams(top_k=-1, seed=-1, stop=["", "a"]) == SamplingParams(stop=("a",))
