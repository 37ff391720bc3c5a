"""Prompts for a gap between two texts, for models whose vocabulary has the marks for it."""

from typing import TYPE_CHECKING

from deepseek.errors import GenerationError

if TYPE_CHECKING:
    from deepseek.tokenizer.tokenizer import Tokenizer

# before the prefix, before the suffix, before the gap's text
_MARKS = (
    ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),  # DeepSeek: the hole's mark lies between the texts
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),  # Qwen Coder
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),  # StarCoder
)


def gap_prompt(tokenizer: "Tokenizer", prefix: str, suffix: str, *, token_limit: int | None = None) -> list[int]:
    """Ids of a prompt that asks for what lies between. Raises GenerationError for a model that cannot."""
    for marks in _MARKS:
        begin, hole, end = (tokenizer.token_to_id(mark) for mark in marks)
        if begin is not None and hole is not None and end is not None:
            before, after = (
                tokenizer.encode(text, add_special_tokens=False, parse_special=False, token_limit=token_limit)
                if text
                else []
                for text in (prefix, suffix)
            )
            return [*tokenizer.added_around[0], begin, *before, hole, *after, end]
    raise GenerationError("suffix cannot be used: this model has no tokens for filling in the middle")
