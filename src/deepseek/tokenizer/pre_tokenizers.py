"""How byte-level vocabularies cut text into words before merging: the names GGUF files use, and what they mean.

`tokenizer.ggml.pre` is only a name; llama.cpp keeps the patterns in its source, and `tokenizer.json` files spell them
out. The table below holds the spelled-out form. Where llama.cpp's pattern and the original file differ, the original
is taken: it is what the model was trained with (`deepseek-llm` cuts single digits, llama.cpp runs of them).
"""

import unicodedata
from dataclasses import dataclass
from typing import Any

from deepseek.errors import TokenizerError

_CASED_RANGES = (
    "41-5A 61-7A B5 C0-D6 D8-F6 F8-1BA 1BC-1BF 1C4-293 295-2AF 370-373 376 377 37B-37D 37F 386 388-38A 38C "
    "38E-3A1 3A3-3F5 3F7-481 48A-52F 531-556 10A0-10C5 13A0-13F5 13F8-13FD 1C90-1CBA 1CBD-1CBF 1D00-1D2B "
    "1D6B-1D77 1D79-1D9A 1E00-1F15 1F18-1F1D 1F20-1F45 1F48-1F4D 1F50-1F57 1F59 1F5B 1F5D 1F5F-1F7D 1F80-1FB4 "
    "1FB6-1FBC 1FBE 1FC2-1FC4 1FC6-1FCC 1FD0-1FD3 1FD6-1FDB 1FE0-1FEC 1FF2-1FF4 1FF6-1FFC 2102 2107 210A-2113 "
    "2115 2119-211D 2124 2126 2128 212A-212D 212F-2134 2139 213C-213F 2145-2149 214E 2183 2184 2C00-2C7B "
    "2C7E-2CE4 2CEB-2CEE 2CF2 2CF3 A640-A66D A680-A69B A722-A76F A771-A787 A78B-A78E AB70-ABBF FB00-FB06 "
    "FB13-FB17 FF21-FF3A FF41-FF5A 10400-1044F 104B0-104D3 104D8-104FB 10C80-10CB2 10CC0-10CF2 118A0-118DF "
    "1E900-1E943 "
)
"""The cased letters that DeepSeek's first tokenizer lists one by one (Unicode 12), as hexadecimal ranges."""


def _class_of(ranges: str) -> str:
    return "".join("-".join(chr(int(end, 16)) for end in part.split("-")) for part in ranges.split())


_CJK = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_REST_WITH_MARKS = r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_QWEN2 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_REST}"
_QWEN35 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}|{_REST_WITH_MARKS}"
_LLAMA3 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_REST}"
_DEEPSEEK3 = (
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
    "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"
)
_DEEPSEEK_LLM = (
    "[\r\n]",
    rf"\s?[{_class_of(''.join(_CASED_RANGES))}]+",
    "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
    r"\s+$",
    _CJK,
)


def _split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def _byte_level(use_regex: bool = False) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


_DIGITS = {"type": "Digits", "individual_digits": True}


@dataclass(frozen=True)
class PreTokenizer:
    """One way of cutting text. `names` are its names in GGUF files, the one to write first."""

    names: tuple[str, ...]
    steps: tuple[dict[str, Any], ...]
    nfc: bool = False
    """The original tokenizer also composes characters (llama.cpp does not)."""
    ignore_merges: bool = False
    """A word that is a token is taken whole, whatever the merges say."""

    def spec(self) -> dict[str, Any]:
        """The `pre_tokenizer` of `tokenizer.json`."""
        steps = [dict(step) for step in self.steps]
        return steps[0] if len(steps) == 1 else {"type": "Sequence", "pretokenizers": steps}


PRE_TOKENIZERS = (
    PreTokenizer(("smollm", "starcoder", "refact", "command-r"), (_DIGITS, _byte_level(use_regex=True))),
    PreTokenizer(("gpt-2", "phi-2", "mpt", "olmo"), (_byte_level(use_regex=True),)),
    PreTokenizer(
        ("default",),
        (
            _split(r"[\p{P}\$\+<=>\^~\|]+"),
            _split(_GPT2),
            _split(r"\p{N}+"),
            _split("[0-9][0-9][0-9]"),
            _byte_level(),
        ),
    ),
    PreTokenizer(("llama-bpe", "llama3", "llama-v3"), (_split(_LLAMA3), _byte_level()), ignore_merges=True),
    PreTokenizer(("dbrx", "smaug-bpe"), (_split(_LLAMA3), _byte_level())),
    PreTokenizer(("qwen2", "deepseek-r1-qwen"), (_split(_QWEN2), _byte_level()), nfc=True),
    PreTokenizer(("qwen35",), (_split(_QWEN35), _byte_level()), nfc=True),
    PreTokenizer(("deepseek-llm",), (*map(_split, _DEEPSEEK_LLM), _DIGITS, _byte_level())),
    PreTokenizer(
        ("deepseek-coder",),
        (*map(_split, ("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _CJK)), _DIGITS, _byte_level()),
    ),
    PreTokenizer(
        ("deepseek-v3",),
        (*map(_split, (r"\p{N}{1,3}", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+", _DEEPSEEK3)), _byte_level()),
    ),
)
KNOWN_NAMES = tuple(sorted(name for entry in PRE_TOKENIZERS for name in entry.names))


def named(name: str) -> PreTokenizer:
    """The pre-tokenizer of a GGUF name; an unknown one would give wrong ids without a sign, so it is refused."""
    for entry in PRE_TOKENIZERS:
        if name in entry.names:
            return entry
    raise TokenizerError(
        f"tokenizer.ggml.pre {name!r:.60} is not known; known are {', '.join(KNOWN_NAMES)}. "
        "Use the model's tokenizer.json instead, if it has one"
    )


def recognise(pre_tokenizer: dict[str, Any] | None, ignore_merges: bool) -> str:
    """The GGUF name of a `pre_tokenizer` of `tokenizer.json`."""
    wanted = _canonical(pre_tokenizer)
    for entry in PRE_TOKENIZERS:
        if _canonical(entry.spec()) == wanted and entry.ignore_merges == ignore_merges:
            return entry.names[0]
    raise TokenizerError(
        "GGUF has no name known here for this tokenizer's pre_tokenizer: pass pre= with the name llama.cpp uses "
        f"for the model ({', '.join(KNOWN_NAMES)}, or another)"
    )


def _canonical(step: dict[str, Any] | None) -> tuple[Any, ...]:
    """What a pre-tokenizer does, as a value to compare; spellings that cut alike are equal."""
    kind = (step or {}).get("type")
    if step is None or kind is None:
        return ()
    if kind == "Sequence":
        return tuple(part for inner in step.get("pretokenizers", ()) for part in _canonical(inner))
    if kind == "Digits" and step.get("individual_digits"):
        return (("split", r"\p{N}"),)
    if kind == "ByteLevel":
        return (("bytes", bool(step.get("use_regex", True)), bool(step.get("add_prefix_space"))),)
    pattern = step.get("pattern", {}).get("Regex") if kind == "Split" else None
    isolated = (step.get("behavior"), step.get("invert")) in (("Isolated", False), ("Removed", True))
    if isinstance(pattern, str) and isolated:
        return (("split", unicodedata.normalize("NFC", pattern)),)
    return (("unknown", repr(step)),)
