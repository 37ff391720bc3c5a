"""The special tokens that a `tokenizer_config.json` names."""

from collections.abc import Mapping
from typing import Any

from deepseek.errors import TokenizerError

SPECIAL_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def special_names(config: Mapping[str, Any], where: str) -> dict[str, str]:
    names = {}
    for name in SPECIAL_NAMES:
        value = config.get(name)
        content = value.get("content") if isinstance(value, dict) else value
        if content is None or content is False or content == "":
            continue
        if not isinstance(content, str) or len(content) > 1024:
            raise TokenizerError(f"{where}: {name} must be a token, not {content!r:.60}")
        names[name] = content
    return names


_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


def with_declared_flags(spec: Mapping[str, Any], config: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """A `tokenizer.json` whose added tokens have the flags of the config's `added_tokens_decoder`: it wins.

    A token that either of them calls special is special.
    """
    declared = {token["content"]: token for token in decoder_tokens(config, where)}
    if not declared:
        return spec
    added = []
    for token in spec.get("added_tokens") or ():
        flags = declared.get(token["content"], {})
        special = bool(token.get("special") or flags.get("special"))
        added.append({**token, **flags, "special": special})
    return {**spec, "added_tokens": added}


def extra_tokens(config: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """Special tokens beside the named ones, with their flags where the config has them."""
    extra = config.get("extra_special_tokens") or config.get("additional_special_tokens") or []
    extra = list(extra.values()) if isinstance(extra, dict) else extra
    if not isinstance(extra, list) or len(extra) > 100_000:
        raise TokenizerError(f"{where}: additional_special_tokens must be a list of tokens")
    tokens: list[dict[str, Any]] = [token if isinstance(token, dict) else {"content": token} for token in extra]
    if not all(isinstance(token.get("content"), str) and 0 < len(token["content"]) <= 1024 for token in tokens):
        raise TokenizerError(f"{where}: additional_special_tokens must be a list of tokens")
    return [{"content": token["content"], "normalized": False, **_flags_of(token), "special": True} for token in tokens]


def _flags_of(token: Mapping[str, Any]) -> dict[str, bool]:
    return {flag: bool(token[flag]) for flag in _FLAGS if flag in token}


def decoder_tokens(config: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """`added_tokens_decoder` of the config, in the order of its ids."""
    decoder = config.get("added_tokens_decoder") or {}
    try:
        entries = sorted(decoder.items(), key=lambda item: int(item[0]))
        tokens = [{"content": token["content"], **_flags_of(token)} for _, token in entries]
        valid = all(isinstance(token["content"], str) and 0 < len(token["content"]) <= 1024 for token in tokens)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise TokenizerError(f"{where}: added_tokens_decoder must map ids to tokens: {error!r:.100}") from error
    if not valid:
        raise TokenizerError(f"{where}: added_tokens_decoder has a token that is not 1 to 1024 characters")
    return tokens
