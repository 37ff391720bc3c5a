"""Reasoning before an answer, ended when its budget is used up."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deepseek.sampling import LogitsProcessor
    from deepseek.tokenizer.tokenizer import Tokenizer

OPEN, CLOSE = "<think>", "</think>"
_LONGEST_CHARACTER = 4  # bytes


def budget_processor(tokenizer: "Tokenizer", budget: int, *, is_open: bool) -> "LogitsProcessor":
    """Allows so many tokens of reasoning, then only `</think>`. is_open: the prompt began the reasoning already.

    A character that has begun may be ended, for a grammar beside it knows whole characters only.
    """
    opening, closing = _ids(tokenizer, OPEN), _ids(tokenizer, CLOSE)

    def process(ids: list[int], logits: Any) -> Any:
        if _last_place(ids, closing) is not None:
            return None
        began = 0 if is_open else _last_place(ids, opening)
        if began is None or len(ids) - began < budget:
            return None
        if len(ids) - began < budget + _LONGEST_CHARACTER and _is_within_character(tokenizer, ids):
            return None
        begun = next(size for size in range(len(closing) - 1, -1, -1) if ids[len(ids) - size :] == closing[:size])
        forced = closing[begun]
        value = logits[forced]
        logits[:] = float("-inf")
        logits[forced] = value
        return None

    return process


def _is_within_character(tokenizer: "Tokenizer", ids: list[int]) -> bool:
    data = b"".join(tokenizer.token_bytes(token) for token in ids[-_LONGEST_CHARACTER:])
    for size in range(1, min(len(data), _LONGEST_CHARACTER) + 1):
        byte = data[-size]
        if byte >= 0xC0:  # begins a character of two to four bytes
            return size < (2 if byte < 0xE0 else 3 if byte < 0xF0 else 4)
        if byte < 0x80:
            return False
    return False


def _ids(tokenizer: "Tokenizer", text: str) -> list[int]:
    token = tokenizer.token_to_id(text)
    return [token] if token is not None else tokenizer.encode(text, add_special_tokens=False)


def _last_place(ids: list[int], wanted: list[int]) -> int | None:
    """Where `ids` goes on after the last occurrence of `wanted`."""
    size = len(wanted)
    for end in range(len(ids), size - 1, -1):
        if ids[end - size : end] == wanted:
            return end
    return None
