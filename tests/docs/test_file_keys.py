"""docs/compatibility.md says what becomes of the keys of model files."""

from file_key_tables import BEGIN, DOCUMENT, END, with_file_keys


def test_file_keys_are_those_of_the_code() -> None:
    text = DOCUMENT.read_text()
    assert BEGIN in text
    assert END in text
    assert with_file_keys(text) == text, "run: python tests/docs/file_key_tables.py"
