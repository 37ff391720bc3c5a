"""Cleaning and splitting: what may not be in a document is not, and nothing else is lost."""

import re
import unicodedata

from hypothesis import example, given
from hypothesis import strategies as st

from deepseek.training.data.cleaning import cleaned, han_share, pieces

texts = st.text(st.characters(codec="utf-8") | st.sampled_from("\n\r\t \x00\u200b\u00a0.=e\u0301。"), max_size=300)


@given(texts)
@example("e\u0301")
@example("a\n \n\n\n\tb  \r\n")
@example("a\u200b\u0301")
def test_a_cleaned_text_has_the_promised_form_and_stays_as_it_is(text: str) -> None:
    clean = cleaned(text)
    assert unicodedata.is_normalized("NFC", clean)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\ufeff]", clean)
    assert "\n\n\n" not in clean
    assert not re.search(r"[ \t]\n|\s\Z", clean)
    assert cleaned(clean) == clean


def test_what_cleaning_keeps_and_drops() -> None:
    assert cleaned("def f():\r\n    return 1\r\n") == "def f():\n    return 1"
    assert cleaned("a\x00b\x07 \ufeffc\xad") == "ab c"
    assert cleaned("x\n" + "=" * 70 + "\ny") == "x\n" + "=" * 12 + "\ny"
    assert cleaned("name" + " " * 40 + "value") == "name" + " " * 8 + "value"
    assert cleaned("keep\nCopyright 1999\nkeep", (r"^Copyright \d+",)) == "keep\nkeep"


@given(st.text("ab \n.。", min_size=100, max_size=1000), st.integers(20, 300))
def test_pieces_lose_nothing_but_blank_lines_between_them(text: str, limit: int) -> None:
    parts = list(pieces(text, limit))
    assert all(len(part) <= limit for part in parts)
    assert "".join(parts).replace("\n", "") == text.replace("\n", "")


def test_pieces_end_where_paragraphs_do() -> None:
    text = "\n\n".join(["word " * 30] * 20)
    assert all(part.startswith("word") and len(part) > 200 for part in pieces(text, 700))
    assert list(pieces("short", 700)) == ["short"]


def test_share_of_chinese() -> None:
    assert han_share("深度学习") == 1.0
    assert han_share("deep 学习") == 2 / 6
    assert han_share("123 ...") == 0.0
