"""Tokens that end an answer, known by their names where nothing else declares them.

A chat model's turns may end with `<|im_end|>` while its configuration names only `<|endoftext|>`. llama.cpp therefore
collects these names (src/llama-vocab.cpp, special_eog_ids), and so do we, with its exceptions. In a GGUF file the name
is enough, as there; in a folder the token must also be a special one.
"""

from collections.abc import Callable

_NAMES = (
    *("<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>"),
    *("<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>"),
    *("<end_of_utterance>", "<eos>", "<turn|>", "<|tool_response>", "<｜end▁of▁sentence｜>", "[e~["),
)
# Code models pad, and begin another file or repository, with these; of each group only the first one found counts.
_FILL_IN_THE_MIDDLE = {
    "fim_pad_token_id": ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
    "fim_rep_token_id": ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"),
    "fim_sep_token_id": ("<|file_sep|>",),
}
FILL_IN_THE_MIDDLE_KEYS = tuple(_FILL_IN_THE_MIDDLE)


def named_ends(id_of: Callable[[str], int | None], declared: dict[str, int] | None = None) -> set[int]:
    """The ids of end tokens by name. id_of: the id of a token that may count, else None.

    declared: ids that a GGUF file gives under a key of FILL_IN_THE_MIDDLE_KEYS, which then replace the names.
    """
    ends = {token_id for name in _NAMES if (token_id := id_of(name)) is not None}
    for key, names in _FILL_IN_THE_MIDDLE.items():
        given = (declared or {}).get(key)
        found = [token_id for name in names if (token_id := id_of(name)) is not None]
        ends.update([given] if given is not None else found[:1])
    return ends


def without_exceptions(ends: set[int], id_of: Callable[[str], int | None]) -> set[int]:
    """In the formats of gpt-oss and Solar `<|end|>` only ends a part of an answer; in Gemma 4's `</s>` is text."""
    named = {name for name in _NAMES if id_of(name) in ends}
    parts = {"<|return|>", "<|call|>"} <= named or {"<|return|>", "<|calls|>"} <= named
    parts = parts or ("<|flush|>" in named and bool({"<|call|>", "<|calls|>"} & named))
    dropped = {id_of("<|end|>")} if parts else set()
    if "<|tool_response>" in named:
        dropped.add(id_of("</s>"))
    return {token_id for token_id in ends if token_id not in dropped}
