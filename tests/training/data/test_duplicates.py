"""Duplicates and the held-out split: what is alike is found, what is not is kept, and nothing held out leaks."""

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepseek.training.data import duplicates
from deepseek.training.data.documents import DocumentStore, DocumentWriter
from deepseek.training.data.duplicates import bands, digest, shingles, similarity
from deepseek.training.data.selection import Fate, Selection, select

WORDS = 5


def document(seed: int, words: int = 200) -> str:
    """Random words: two seeds have next to nothing in common."""
    generator = random.Random(seed)
    return " ".join("".join(generator.choices("abcdefghij", k=5)) for _ in range(words))


def changed(text: str, places: int, seed: int) -> str:
    generator = random.Random(seed)
    words = text.split()
    for place in generator.sample(range(len(words)), places):
        words[place] = f"new{seed}x{place}"
    return " ".join(words)


def stored(folder: Path, *sources: list[str]) -> list[DocumentStore]:
    stores = []
    for number, texts in enumerate(sources):
        with DocumentWriter(folder / str(number), WORDS) as writer:
            for text in texts:
                writer.add(text)
            writer.finish({"key": ""})
        stores.append(DocumentStore(folder / str(number)))
    return stores


def selected(folder: Path, *sources: list[str], held_out: float = 0.0, least: float = 0.8) -> Selection:
    stores = stored(folder, *sources)
    return select(stores, [held_out] * len(stores), similarity=least, shingle_words=WORDS)


def reference_shingles(text: str, words: int) -> set[tuple[str, ...]]:
    """The slow twin: words by Python's own means, an ideograph a word."""
    found: list[str] = []
    inside = False
    for character in text.casefold():
        ideograph = "\u4e00" <= character <= "\u9fff"
        if character.isalnum() and inside and not ideograph:
            found[-1] += character
        elif character.isalnum():
            found.append(character)
        inside = character.isalnum() and not ideograph
    words = min(words, len(found))
    return {tuple(found[at : at + words]) for at in range(len(found) - words + 1)} if found else set()


@settings(deadline=None)
@given(st.text("ab 1.,\n深度學", max_size=120), st.integers(1, 6))
def test_shingles_are_those_of_the_slow_twin(text: str, words: int) -> None:
    assert shingles(text, words).size == len(reference_shingles(text, words))


@settings(deadline=None)
@given(st.text("ab 深度", max_size=80), st.text("ab 深度", max_size=80))
def test_similarity_is_jaccard(left: str, right: str) -> None:
    a, b = reference_shingles(left, 2), reference_shingles(right, 2)
    # A text of one word is a shingle of one: it can equal no longer one, in either count.
    expected = len(a & b) / len(a | b) if a and b else 0.0
    assert similarity(shingles(left, 2), shingles(right, 2)) == pytest.approx(expected)


def test_a_digest_ignores_case_and_blanks_only() -> None:
    assert digest("Hello  World\n") == digest("hello world")
    assert digest("hello world") != digest("hello, world")


def test_alike_documents_share_a_band_and_others_do_not() -> None:
    found = 0
    for seed in range(200):
        text = document(seed)
        near = changed(text, 4, seed)  # of 196 shingles about 20 change: similarity 0.82
        assert similarity(shingles(text, WORDS), shingles(near, WORDS)) > 0.75
        found += bool((bands(shingles(text, WORDS)) == bands(shingles(near, WORDS))).any())
        assert not (bands(shingles(text, WORDS)) == bands(shingles(document(seed + 1000), WORDS))).any()
    assert found == 200  # expected to miss fewer than one in a thousand


def test_short_documents_are_compared_too() -> None:
    missed = 0
    for seed in range(200):
        text = document(seed, words=25)
        longer = f"{text} and"
        missed += not (bands(shingles(text, WORDS)) == bands(shingles(longer, WORDS))).any()
        other = document(seed + 1000, words=25)
        assert not (bands(shingles(text, WORDS)) == bands(shingles(other, WORDS))).any()  # not by their empty bins
    assert missed <= 4  # similarity 0.95 of 21 shingles


def test_a_document_without_words_is_like_no_other(tmp_path: Path) -> None:
    assert not bands(shingles("... --- !!!", WORDS)).any()
    selection = selected(tmp_path, ["... --- !!!", "??? +++ ***"])
    assert selection.fates[0].tolist() == [Fate.TRAIN, Fate.TRAIN]


def test_exact_and_near_duplicates_are_told_apart(tmp_path: Path) -> None:
    text = document(1)
    selection = selected(tmp_path, [text, document(2), text.upper()], [changed(text, 2, 1), document(3), f" {text}\n"])
    assert selection.fates[0].tolist() == [Fate.TRAIN, Fate.TRAIN, Fate.EXACT]
    assert selection.fates[1].tolist() == [Fate.NEAR, Fate.TRAIN, Fate.EXACT]


def test_with_similarity_1_only_equal_documents_go(tmp_path: Path) -> None:
    text = document(1)
    assert selected(tmp_path, [text, changed(text, 1, 1), text], least=1).fates[0].tolist() == [0, 0, Fate.EXACT]


def test_documents_that_only_look_alike_to_the_bands_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "bands", lambda hashes: np.full(duplicates.BANDS, 7, np.uint64))
    assert selected(tmp_path, [document(seed) for seed in range(20)]).fates[0].tolist() == [Fate.TRAIN] * 20


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 60), min_size=1, max_size=60))
def test_one_of_each_group_stays(tmp_path_factory: pytest.TempPathFactory, seeds: list[int]) -> None:
    texts = [changed(document(seed, 120), 1, number) for number, seed in enumerate(seeds)]
    selection = selected(tmp_path_factory.mktemp("x"), texts)
    kept = [seeds[number] for number in selection.documents(0, Fate.TRAIN)]
    assert sorted(kept) == sorted(set(seeds))


def test_what_is_held_out_depends_on_the_document_alone(tmp_path: Path) -> None:
    texts = [document(seed, 30) for seed in range(300)]
    alone = selected(tmp_path / "a", texts, held_out=0.1)
    more = selected(tmp_path / "b", [document(seed, 30) for seed in range(1000, 1100)], texts[::-1], held_out=0.1)
    held_out = {texts[number] for number in alone.documents(0, Fate.HELD_OUT)}
    assert held_out == {texts[::-1][number] for number in more.documents(1, Fate.HELD_OUT)}
    assert 12 <= len(held_out) <= 50
    none = selected(tmp_path / "c", texts)
    assert not none.documents(0, Fate.HELD_OUT).size


def test_nothing_like_a_held_out_document_is_trained_on(tmp_path: Path) -> None:
    texts = [document(seed, 100) for seed in range(200)]
    copies = [changed(text, 1, number) for number, text in enumerate(texts)]
    selection = selected(tmp_path, copies, texts, held_out=0.2)  # copies come first, and are held out by their own hash
    sources = (copies, texts)
    trained = {number for source in (0, 1) for number in selection.documents(source, Fate.TRAIN)}
    held_out = {number for source in (0, 1) for number in selection.documents(source, Fate.HELD_OUT)}
    assert not trained & held_out
    assert trained | held_out == set(range(200))
    by_hash = {n for n in range(200) for source in sources if digest(source[n])[0] < 0.2 * 2**64}
    assert held_out == by_hash


def test_a_run_of_equal_bands_costs_no_square(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    honest = duplicates.similarity
    monkeypatch.setattr(duplicates, "similarity", lambda a, b: compared.append(1) or honest(a, b))
    text = document(1)
    selection = selected(tmp_path, [f"{text} {number}" for number in range(300)])
    assert len(selection.documents(0, Fate.TRAIN)) == 1
    assert len(compared) < 600
