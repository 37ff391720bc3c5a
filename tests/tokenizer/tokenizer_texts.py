"""Two thousand strings that tokenizers get wrong, always the same ones."""

import random

WORDS = {
    "english": "the quick brown fox isn't over-hydrated; they'll I'M you'Re can't 'tis rock'n'roll naïve café".split(),
    "chinese": "你好 世界 中华人民共和国 深度求索 混合专家模型 不知道，是吗？ 「引号」 ２０２５年 ㍿ 𠮷野家".split(),
    "japanese": "こんにちは カタカナ ｶﾀｶﾅ 東京都 がぎぐげご は゛".split(),
    "arabic": "السلام عليكم مُحَمَّد ١٢٣٤٥ كتاب، لا؟ ﷽".split(),
    "others": "привет Ёлка Ελληνικά שלום हिन्दी ไทย ភាសាខ្មែរ 한국어 ᄒᆞᆫ İstanbul ǅ ﬁ Ⅷ x² ½ ٣ e\u0301 A\u030a".split(),
    "emoji": "👩‍👩‍👧‍👦 👍🏽 🏳️‍🌈 🇩🇪🇫🇷 ❤️ 1️⃣ 🧑🏿‍🚀 😀😀😀 \U000e0067".split(),
    "numbers": "0 12 123 1234 3.14159 1,000,000 -5e-10 0x1F 192.168.0.1 2025-11-22 １２３ 99999999999".split(),
    "code": [
        "def f(x):\n    return x ** 2\n", "#include <stdio.h>\r\n\tint main(){}", "<div class='a'>&amp;</div>",
        "a->b && c || !d;", "SELECT * FROM t WHERE x='1';", "{{ x }} {% if %}", "\\n\\t\\u0041", "// ----- ***** =====",
    ],
    "space": [" ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", " \t\n ", "\u00a0", "\u3000", "\u2028", " " * 17, "\n" * 5],
    "control": ["\x00", "\x01\x02", "\x1b[31m", "\x7f", "\u200b", "\ufeff", "\u202e", "\ufffd", "\ue000", "\ufdd0"],
    "special": [
        "<|im_end|>", "<|im_start|>system", "<|endoftext|>", "<think>", "</think>", "<｜User｜>",
        "<｜begin▁of▁sentence｜>", "<|im_end", "im_end|>",
        "< |im_end| >", "<<|im_end|>>", "<tool_call>", "<s>", "</s>", "<0x41>", "<unk>", "▁▁",
    ],
    "long": [
        "a" * 300, "Donaudampfschifffahrtsgesellschaft" * 8, "ab" * 200, "！" * 100, "1" * 100, "=" * 120, "的" * 200,
    ],
}  # fmt: skip


def tokenizer_texts(count: int = 2000, seed: int = 20251122) -> list[str]:
    """Every fragment alone, then mixtures: within one kind, across kinds, and random characters of all of Unicode."""
    random_ = random.Random(seed)
    fragments = [fragment for kind in WORDS.values() for fragment in kind]
    texts = ["", *fragments, *(" " + fragment for fragment in fragments), *(fragment + "\n" for fragment in fragments)]
    while len(texts) < count:
        kind = random_.choice([*WORDS.values(), fragments, fragments])
        pieces = random_.choices(kind, k=random_.randint(2, 12))
        separator = random_.choice(["", " ", " ", "\n", "  "])
        texts.append(separator.join(pieces))
        if len(texts) % 5 == 0:
            texts.append("".join(_character(random_) for _ in range(random_.randint(1, 40))))
    return texts[:count]


def _character(random_: random.Random) -> str:
    while True:
        code = random_.choice((random_.randrange(0x20, 0x7F), random_.randrange(0x3100), random_.randrange(0x110000)))
        if not 0xD800 <= code <= 0xDFFF:
            return chr(code)
