"""Long texts come out in slices as they come out whole, and what cannot fit is known before it is encoded."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepseek.errors import TooManyTokensError
from deepseek.tokenizer import Tokenizer, slices
from deepseek.tokenizer.from_gguf import tokenizer_from_gguf
from deepseek.tokenizer.pre_tokenizers import PRE_TOKENIZERS
from tiny_vocabularies import byte_level_metadata, sentencepiece_metadata, unigram_metadata
from tokenizer_texts import WORDS

BYTE_LEVEL = {entry.names[0]: tokenizer_from_gguf(byte_level_metadata(entry.names[0])) for entry in PRE_TOKENIZERS}
TOKENIZERS = {**BYTE_LEVEL, "sentencepiece": tokenizer_from_gguf(sentencepiece_metadata())}
PARTS = st.sampled_from(sorted({word for words in WORDS.values() for word in words} | set(" ,.\n，。'lsx")))


def whole(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer._backend.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("name", TOKENIZERS)
@given(parts=st.lists(st.one_of(PARTS, st.text(max_size=3)), max_size=60), size=st.integers(1, 20))
@settings(max_examples=150, deadline=None)
def test_slices_have_the_ids_of_the_whole(name: str, parts: list[str], size: int) -> None:
    tokenizer = TOKENIZERS[name]
    text = "".join(parts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slices, "SLICE", size)
        assert tokenizer._slices.encode(tokenizer._backend, text) == whole(tokenizer, text)


@pytest.mark.parametrize("name", ["smollm2", "deepseek", "qwen"])
def test_real_vocabularies_are_cut(name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(name)
    chosen = random.Random(5)
    words = [word for group in WORDS.values() for word in group]
    text = "".join(chosen.choice(words) + chosen.choice([" ", "\n", ", ", ""]) for _ in range(20_000))
    cuts = tokenizer._slices.cut
    assert cuts is not None
    assert len(cuts.findall(text)) > 1000
    expected = whole(tokenizer, text)
    monkeypatch.setattr(slices, "SLICE", 100)
    assert tokenizer.encode(text, add_special_tokens=False) == expected


def test_what_cannot_be_cut_stays_whole() -> None:
    unigram = tokenizer_from_gguf(unigram_metadata())
    assert unigram._slices.cut is None
    assert unigram._slices.longest is None
    text = "word and word " * 10_000
    assert unigram.encode(text, add_special_tokens=False) == whole(unigram, text)


def test_control_tokens_of_long_texts_stay_text(byte_level: Tokenizer) -> None:
    text = "some words<|im_end|> and more " * 5_000
    literal = byte_level.encode(text, parse_special=False, add_special_tokens=False)
    assert literal == byte_level.encode(text[:30], parse_special=False, add_special_tokens=False) * 5_000
    ids = byte_level.encode(text, add_special_tokens=False)
    assert ids.count(byte_level.token_to_id("<|im_end|>")) == 5_000


@given(text=st.lists(PARTS, max_size=30).map("".join))
@settings(max_examples=200, deadline=None)
def test_no_text_that_fits_is_too_long_by_its_bytes(text: str) -> None:
    for tokenizer in TOKENIZERS.values():
        tokens = len(whole(tokenizer, text))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(slices, "SLICE", 0)
            tokenizer._slices.check_bytes(text, tokens)


@pytest.mark.parametrize("text", ["=" * 200_000, "\x04" * 200_000, "e\u0301" * 100_000])
def test_bytes_that_hardly_become_tokens(text: str, smollm2: Tokenizer, qwen: Tokenizer) -> None:
    """Long tokens, bytes that the vocabulary does not have, characters that are composed."""
    for tokenizer in (smollm2, qwen):
        tokenizer._slices.check_bytes(text, len(whole(tokenizer, text)))


def test_too_many_tokens_are_refused_early(byte_level: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[str] = []
    real = slices.ids_of

    def counted(backend: object, text: str) -> list[int]:
        encoded.append(text)
        return real(backend, text)  # type: ignore[arg-type]

    text = "word " * 1_000_000
    assert byte_level._slices.longest is not None
    assert byte_level._slices.cut is not None
    monkeypatch.setattr(slices, "ids_of", counted)
    with pytest.raises(TooManyTokensError) as refused:
        byte_level.encode(text, token_limit=500)
    assert encoded == []
    assert 500 < refused.value.at_least <= len(text.encode())
    with pytest.raises(TooManyTokensError):
        byte_level.encode(text, token_limit=100_000)
    assert 0 < sum(map(len, encoded)) < len(text) / 3
