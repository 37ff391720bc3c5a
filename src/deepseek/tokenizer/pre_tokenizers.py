"""How byte-level vocabularies cut text into words before merging: the names GGUF files use, and what they mean.

`tokenizer.ggml.pre` is only a name; llama.cpp keeps the patterns in its source, and `tokenizer.json` files spell them
out. The table below holds the spelled-out form. Where llama.cpp's pattern and the original file differ, the original
is taken: it is what the model was trained with (`deepseek-llm` cuts single digits, llama.cpp runs of them).
"""

import unicodedata
from dataclasses import dataclass
from typing import Any

from deepseek.errors import TokenizerError
from deepseek.tokenizer.split_patterns import (
    BAILING,
    BLOOM,
    CJK,
    DEEPSEEK3,
    DEEPSEEK_LLM,
    EXAONE_MOE,
    FALCON_PUNCTUATION,
    GPT2,
    GPT4O,
    KIMI,
    LLAMA3,
    MINICPM,
    QWEN2,
    QWEN35,
    SEED,
    TEKKEN,
    THOUSANDS,
    UFAKZEKA,
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
    add_bos: bool = False
    """Files that say nothing of it have bos put before a text, as llama.cpp does."""

    def spec(self) -> dict[str, Any]:
        """The `pre_tokenizer` of `tokenizer.json`."""
        steps = [dict(step) for step in self.steps]
        return steps[0] if len(steps) == 1 else {"type": "Sequence", "pretokenizers": steps}


PRE_TOKENIZERS = (
    PreTokenizer(
        ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"),
        (_DIGITS, _byte_level(use_regex=True)),
    ),
    PreTokenizer(
        (
            *("gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling", "gigachat", "a.x-4.0", "mellum"),
            *("modern-bert", "exaone4", "jina-es", "jina-de", "jina-v2-es", "jina-v2-de"),
        ),
        (_byte_level(use_regex=True),),
    ),
    PreTokenizer(
        ("default",),
        (
            _split(r"[\p{P}\$\+<=>\^~\|]+"),
            _split(GPT2),
            _split(r"\p{N}+"),
            _split("[0-9][0-9][0-9]"),
            _byte_level(),
        ),
    ),
    PreTokenizer(
        (
            *("llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"),
            "jina-v5-nano",
        ),
        (_split(LLAMA3), _byte_level()),
        ignore_merges=True,
        add_bos=True,
    ),
    PreTokenizer(("dbrx", "smaug-bpe", "glm4", "chatglm-bpe"), (_split(LLAMA3), _byte_level())),
    PreTokenizer(("qwen2", "deepseek-r1-qwen"), (_split(QWEN2), _byte_level()), nfc=True),
    PreTokenizer(
        ("stablelm2", "hunyuan", "solar-open", "kormo", "f2llmv2", "megrez", "grok-2"), (_split(QWEN2), _byte_level())
    ),
    PreTokenizer(("qwen35",), (_split(QWEN35), _byte_level()), nfc=True),
    PreTokenizer(("deepseek-llm",), (*map(_split, DEEPSEEK_LLM), _DIGITS, _byte_level())),
    PreTokenizer(
        ("deepseek-coder",),
        (*map(_split, ("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", CJK)), _DIGITS, _byte_level()),
    ),
    PreTokenizer(
        ("deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"),
        (*map(_split, (r"\p{N}{1,3}", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+", DEEPSEEK3)), _byte_level()),
    ),
    PreTokenizer(("tekken",), (_split(TEKKEN), _byte_level()), ignore_merges=True, add_bos=True),
    PreTokenizer(("gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"), (_split(GPT4O), _byte_level())),
    PreTokenizer(("tiny_aya", "cohere2moe"), (_split(THOUSANDS), _split(GPT4O), _byte_level())),
    PreTokenizer(("kimi-k2",), (_split(KIMI), _byte_level())),
    PreTokenizer(
        ("falcon",),
        (_split(FALCON_PUNCTUATION), _split(GPT2), _split("[0-9][0-9][0-9]"), _byte_level()),
    ),
    PreTokenizer(("bailingmoe", "bailingmoe2", "llada-moe"), (_split(BAILING), _byte_level())),
    PreTokenizer(("seed-coder",), (_split(SEED), _byte_level())),
    PreTokenizer(("exaone-moe",), (_split(EXAONE_MOE), _byte_level())),
    PreTokenizer(("minicpm5",), (_split(r"\p{N}{1,3}"), _split(MINICPM), _byte_level()), ignore_merges=True),
    PreTokenizer(("laguna",), (_split(r"[^\n]+|[\n]+"), _split(QWEN2), _byte_level())),
    PreTokenizer(("ufakzeka",), (_split(UFAKZEKA), _byte_level())),
    PreTokenizer(("poro-chat", "bloom", "gpt3-finnish"), (_split(BLOOM), _byte_level())),
    PreTokenizer(("viking",), (_split(BLOOM), _DIGITS, _byte_level())),
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
