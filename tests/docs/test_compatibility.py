"""docs/compatibility.md says what the classes of requests do."""

from compatibility_tables import BEGIN, DOCUMENT, END, with_request_fields


def test_request_fields_are_those_of_the_code() -> None:
    text = DOCUMENT.read_text()
    assert BEGIN in text
    assert END in text
    assert with_request_fields(text) == text, "run: python tests/docs/compatibility_tables.py"
