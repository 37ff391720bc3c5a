"""Generating: batches, streaming, ends of all kinds, refusals."""

from dataclasses import replace

import pytest
import torch

from deepseek.errors import ConfigError, GenerationError
from deepseek.models.auto import AutoModel
from deepseek.models.decoder import Model
from deepseek.models.device import choose_dtype
from deepseek.sampling import SamplingParams
from model_cases import CASES
from model_reference import randomise


class Letters:
    """A tokenizer of 67 letters, whose token 60 is special; 61 prints nothing until the next token comes."""

    end_ids = frozenset[int]()

    def encode(self, text: str) -> list[int]:
        return [ord(letter) - ord("0") for letter in text]

    def stream(self, *, skip_special_tokens: bool = False) -> "LetterStream":
        assert skip_special_tokens
        return LetterStream()


class LetterStream:
    def __init__(self) -> None:
        self.held = ""

    def push(self, token: int) -> str:
        if token == 61:
            self.held = "?"
            return ""
        text, self.held = self.held + ("" if token == 60 else chr(ord("0") + token)), ""
        return text

    def flush(self) -> str:
        return self.held


@pytest.fixture(scope="module")
def model() -> Model:
    model = Model(replace(CASES["v3"], eos_token_ids=())).eval()
    randomise(model, 2)
    return model


PROMPTS = [[1, 2, 3, 4, 5, 6], [7], [8, 9, 10]]


@torch.no_grad()
def greedy_without_cache(model: Model, prompt: list[int], count: int) -> list[int]:
    ids = list(prompt)
    for _ in range(count):
        ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize("name", ["llama", "qwen2-window", "v2-lite", "v3", "v32"])
def test_greedy_equals_running_everything_again(name: str) -> None:
    model = Model(CASES[name]).eval()
    randomise(model, 4)
    results = model.generate(PROMPTS, max_tokens=16, temperature=0, ignore_eos=True)
    for prompt, result in zip(PROMPTS, results, strict=True):
        assert result.token_ids == greedy_without_cache(model, prompt, 16)
        assert result.prompt_tokens == len(prompt)


def test_a_prompt_may_be_a_list_a_tensor_or_a_text(model: Model) -> None:
    expected = model.generate([1, 2, 3], max_tokens=5, temperature=0)
    assert model.generate(torch.tensor([1, 2, 3]), max_tokens=5, temperature=0) == expected
    assert model.generate(torch.tensor([[1, 2, 3]]), max_tokens=5, temperature=0) == [expected]
    text = model.generate("123", max_tokens=5, temperature=0, tokenizer=Letters())
    assert text.token_ids == expected.token_ids
    assert model.generate(["123"], max_tokens=5, temperature=0, tokenizer=Letters()) == [text]


def test_a_seed_gives_the_same_text_alone_and_in_a_batch(model: Model) -> None:
    params = SamplingParams(max_tokens=12, temperature=1.5, seed=9)
    batch = model.generate(PROMPTS, params)
    assert [model.generate(prompt, params) for prompt in PROMPTS] == batch
    assert model.generate(PROMPTS[0], replace(params, seed=10)) != batch[0]


def test_requests_end_each_on_its_own(model: Model) -> None:
    free = model.generate(PROMPTS, max_tokens=12, temperature=0)
    stop = free[1].token_ids[4]
    stopped = model.generate(PROMPTS, max_tokens=12, temperature=0, stop_token_ids=[stop])
    for before, after in zip(free, stopped, strict=True):
        if stop in before.token_ids:
            assert after.token_ids == before.token_ids[: before.token_ids.index(stop) + 1]
            assert after.finish_reason == "stop"
        else:
            assert after == before
            assert after.finish_reason == "length"


def test_end_tokens_end_unless_ignored() -> None:
    model = Model(CASES["llama"]).eval()
    randomise(model, 0)
    free = model.generate([1, 2], max_tokens=20, temperature=0, ignore_eos=True)
    model.config = replace(model.config, eos_token_ids=(free.token_ids[3], 66))
    ended = model.generate([1, 2], max_tokens=20, temperature=0)
    assert ended.token_ids == free.token_ids[: free.token_ids.index(free.token_ids[3]) + 1]
    assert ended.finish_reason == "stop"
    assert model.generate([1, 2], max_tokens=20, temperature=0, ignore_eos=True) == free


def test_streaming_folds_to_the_result(model: Model) -> None:
    tokenizer = Letters()
    settings = {"max_tokens": 10, "temperature": 1.0, "seed": 1, "tokenizer": tokenizer}
    events = list(model.stream([1, 2, 3], **settings))
    result = model.generate([1, 2, 3], **settings)
    assert [event.token_id for event in events] == result.token_ids
    assert "".join(event.text for event in events) == result.text
    assert [event.finish_reason for event in events] == [None] * 9 + ["length"]


def test_stop_strings_span_tokens(model: Model) -> None:
    tokenizer = Letters()
    free = model.generate("12", max_tokens=20, temperature=0, tokenizer=tokenizer)
    stop = free.text[5:8]
    start = free.text.index(stop)
    stopped = model.generate("12", max_tokens=20, temperature=0, tokenizer=tokenizer, stop=stop)
    assert stopped.text == free.text[:start]
    assert stopped.finish_reason == "stop"
    assert len(stopped.token_ids) < len(free.token_ids)
    events = list(model.stream("12", max_tokens=20, temperature=0, tokenizer=tokenizer, stop=[stop, "zzz"]))
    assert "".join(event.text for event in events) == free.text[:start]


def test_what_a_stop_string_held_back_comes_at_the_end(model: Model) -> None:
    free = model.generate("12", max_tokens=6, temperature=0, tokenizer=Letters())
    held = model.generate("12", max_tokens=6, temperature=0, tokenizer=Letters(), stop=free.text[-2:] + "~")
    assert held == free


def test_the_context_is_a_limit(model: Model) -> None:
    limit = model.config.max_position_embeddings
    result = model.generate([1] * (limit - 3), max_tokens=10, temperature=0)
    assert len(result.token_ids) == 3
    assert result.finish_reason == "length"


@pytest.mark.parametrize(
    ("prompt", "settings", "message"),
    [
        ([[]], {}, "prompt is empty"),
        ("", {"tokenizer": Letters()}, "prompt is empty"),
        ([1] * 96, {}, "96 tokens, but this model takes 96"),
        ([1, 67], {}, "token id 67 is outside the vocabulary of 67"),
        ([-1], {}, "token id -1"),
        ("12", {}, "needs tokenizer"),
        ([1], {"stop": "x"}, "stop strings need tokenizer"),
        ([1], {"max_token": 4}, r"unknown setting 'max_token'; did you mean max_tokens\?"),
        ([1], {"params": SamplingParams(), "seed": 4}, "not both: seed"),
    ],
)
def test_refusals_come_at_once(model: Model, prompt: object, settings: dict, message: str) -> None:
    for call in (model.generate, model.stream):
        with pytest.raises(GenerationError, match=message):
            call(prompt, **settings)


@pytest.mark.parametrize(
    ("ids", "mask", "message"),
    [
        (torch.zeros(3, dtype=torch.long), None, "input_ids must be"),
        (torch.zeros(1, 0, dtype=torch.long), None, "at least one token"),
        (torch.zeros(1, 3, dtype=torch.long), torch.ones(1, 2), r"attention_mask must be .* \(1, 3\), not \(1, 2\)"),
    ],
)
def test_shapes_are_checked(model: Model, ids: torch.Tensor, mask: torch.Tensor | None, message: str) -> None:
    with pytest.raises(GenerationError, match=message):
        model(ids, mask)


def test_a_missing_device_or_type_is_named() -> None:
    with pytest.raises(ConfigError, match=r"device 'cuda:7' cannot be used here .* use 'cpu' or 'auto'"):
        AutoModel.from_config(CASES["llama"], device="cuda:7")
    with pytest.raises(ConfigError, match="device 'gpu'"):
        AutoModel.from_config(CASES["llama"], device="gpu")
    with pytest.raises(ConfigError, match="dtype must be auto, float32"):
        choose_dtype("int4", torch.device("cpu"))


@pytest.mark.parametrize(("has_bfloat16", "chosen"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_takes_the_faster_type(has_bfloat16: bool, chosen: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deepseek.models.device._cpu_has_bfloat16", lambda: has_bfloat16)
    assert choose_dtype("auto", torch.device("cpu")) == chosen
    assert choose_dtype("auto", torch.device("cuda")) == torch.bfloat16


def test_a_cache_grows_and_forgets(model: Model) -> None:
    cache = model.new_cache(capacity=4)
    ids = torch.arange(12)[None]
    with torch.no_grad():
        expected = model(ids).logits[:, 8:]
        for part in (slice(0, 3), slice(3, 8)):
            model(ids[:, part], cache=cache)
        model(ids[:, :2] + 20, cache=cache)
        assert cache.length == 10
        cache.truncate(8)
        torch.testing.assert_close(model(ids[:, 8:], cache=cache).logits, expected, rtol=1e-4, atol=1e-4)
    assert cache.nbytes == 3 * 16 * (16 + 8) * 4  # layers, room, latent and rotated key, float32
