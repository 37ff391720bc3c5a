"""Inputs of public bug reports on tokenizer files and decoding: each is read as Transformers reads it, or refused.

Every row changes the files of a tiny byte-level or SentencePiece tokenizer. verdict: `ok` if the row was right when it
was added, else what was fixed.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import transformers

from deepseek.errors import TokenizerError
from deepseek.tokenizer import AutoTokenizer
from deepseek.tokenizer.stream import CHARACTER_OF_BYTE

HUB = "https://github.com/"
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("Ġ", "w"), ("Ġ", "'")]
TOKENS = [*SPECIAL, *CHARACTER_OF_BYTE.values(), *("".join(merge) for merge in MERGES)]
NEXT = len(TOKENS)
TEXTS = ("hello world", "  hello \n\n w", "<|im_start|>hello<|im_end|>", "the word 'social', x != y .", "é 你好 😀")
PIECES = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "h", "e", "▁h", "he", "▁he"]


def token(number: int, content: str, **flags: bool) -> dict[str, Any]:
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": number, "content": content, **plain, **flags}


def byte_level() -> dict[str, Any]:
    step = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None, "post_processor": None,
        "added_tokens": [token(number, content) for number, content in enumerate(SPECIAL)],
        "pre_tokenizer": step, "decoder": step,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "fuse_unk": False, "byte_fallback": False,
                  "vocab": {content: number for number, content in enumerate(TOKENS)},
                  "merges": [list(merge) for merge in MERGES]},
    }  # fmt: skip


def sentencepiece() -> dict[str, Any]:
    mark = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    back = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    return {
        "version": "1.0", "truncation": None, "padding": None, "pre_tokenizer": None, "post_processor": None,
        "added_tokens": [token(number, PIECES[number]) for number in range(3)],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, mark]},
        "decoder": {"type": "Sequence", "decoders": [back, {"type": "ByteFallback"}, {"type": "Fuse"}, strip]},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True,
                  "vocab": {piece: number for number, piece in enumerate(PIECES)},
                  "merges": [["▁", "h"], ["h", "e"], ["▁", "he"]]},
    }  # fmt: skip


@dataclass
class Files:
    spec: dict[str, Any] = field(default_factory=byte_level)
    config: dict[str, Any] = field(default_factory=lambda: {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": SPECIAL[1], "eos_token": SPECIAL[2],
        "clean_up_tokenization_spaces": False})  # fmt: skip
    beside: dict[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> Path:
        for name, content in {"tokenizer.json": self.spec, "tokenizer_config.json": self.config, **self.beside}.items():
            (folder / name).write_text(json.dumps(content, ensure_ascii=False))
        return folder


@dataclass(frozen=True)
class Report:
    """texts: to encode, beside TEXTS. pieces: ids to decode, whole and streamed. without: Transformers is not asked,
    and the ids are those of the tokenizer before the change."""

    source: str
    input: str
    change: Callable[[Files], Any]
    texts: tuple[str, ...] = ()
    pieces: tuple[tuple[list[int], str], ...] = ()
    error: str = ""
    without: bool = False
    verdict: str = "ok"


def model(**values: Any) -> Callable[[Files], None]:
    return lambda files: files.spec["model"].update(values)


def part(name: str, value: Any) -> Callable[[Files], None]:
    return lambda files: files.spec.__setitem__(name, value)


def config(**values: Any) -> Callable[[Files], None]:
    return lambda files: files.config.update(values)


def added(*tokens: dict[str, Any]) -> Callable[[Files], None]:
    return lambda files: files.spec["added_tokens"].extend(tokens)


def beside(name: str, value: Any, **values: Any) -> Callable[[Files], None]:
    return lambda files: (files.beside.__setitem__(name, value), files.config.update(values))


def pieces(change: Callable[[Files], Any] = lambda files: None) -> Callable[[Files], None]:
    def whole(files: Files) -> None:
        files.spec = sentencepiece()
        files.config |= {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
        change(files)

    return whole


def fallback(text: str) -> list[int]:
    return [PIECES.index(f"<0x{byte:02X}>") for byte in text.encode()]


def spelled(text: str) -> list[int]:
    return [TOKENS.index(CHARACTER_OF_BYTE[byte]) for byte in text.encode()]


BOS = {
    "type": "TemplateProcessing", "single": [{"SpecialToken": {"id": SPECIAL[1], "type_id": 0}},
                                             {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {SPECIAL[1]: {"id": SPECIAL[1], "ids": [1], "tokens": [SPECIAL[1]]}},
}  # fmt: skip
METASPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}

REPORTS = [
    Report(HUB + "huggingface/tokenizers/issues/644", "dropout of merges left in the file", model(dropout=0.9),
           without=True, verdict="fixed: it never runs, so the same text has the same ids"),
    Report(HUB + "huggingface/tokenizers/pull/1550", "dropout 0.0", model(dropout=0.0)),
    Report(HUB + "kvcache-ai/ktransformers/issues/433", "merges as texts", lambda files: model(
        merges=[" ".join(merge) for merge in MERGES])(files)),
    Report(HUB + "georg-jung/FastBertTokenizer/issues/100", "a token added that is not special",
           added(token(NEXT, "<think>", special=False)), texts=("a<think>b",)),
    Report(HUB + "huggingface/transformers/issues/33371", "lstrip and rstrip of a special token",
           added(token(NEXT, "<x>", lstrip=True, rstrip=True)), texts=("hello  <x>  w", "<x><x> a")),
    Report(HUB + "huggingface/transformers/issues/29626", "lstrip of a token that is not special",
           added(token(NEXT, "cat", lstrip=True, special=False)), texts=("a cat", "concat")),
    Report(HUB + "huggingface/tokenizers/issues/959", "single_word",
           added(token(NEXT, "cat", single_word=True, special=False)), texts=("a cat.", "concat cats")),
    Report(HUB + "huggingface/transformers/issues/25814", "additional tokens with flags of their own", config(
        additional_special_tokens=[{"__type": "AddedToken", **token(NEXT, "<img>", lstrip=True)}]),
        texts=("a  <img> b",), verdict="fixed: their flags count"),
    Report(HUB + "huggingface/transformers/pull/44313", "extra tokens that say special",
           config(extra_special_tokens=[{"content": "<img>", "special": True}]), pieces=(([NEXT], "<img>"),),
           without=True),
    Report(HUB + "ml-explore/mlx-lm/issues/661", "extra_special_tokens as a list",
           config(extra_special_tokens=[SPECIAL[1], "<img>"]), texts=("a<img>b",)),
    Report(HUB + "huggingface/nanoVLM/issues/183", "extra_special_tokens as an object",
           config(extra_special_tokens={"image_token": "<image>"}), texts=("a<image>b",)),
    Report(HUB + "huggingface/transformers/pull/29594", "flags in the config differ from the file's", lambda files: (
        added(token(NEXT, "<x>", special=False))(files),
        config(added_tokens_decoder={str(NEXT): token(NEXT, "<x>", lstrip=True) | {"id": None}})(files),
        files.config["added_tokens_decoder"][str(NEXT)].pop("id")),
        texts=("a  <x> b",), verdict="fixed: the config wins"),
    Report(HUB + "ggml-org/llama.cpp/pull/8228", "the config calls a special token ordinary",
           config(added_tokens_decoder={"2": {"content": SPECIAL[2], "special": False, "normalized": False}})),
    Report(HUB + "huggingface/tokenizers/issues/507", "a token only in added_tokens.json",
           beside("added_tokens.json", {"<new>": NEXT}), texts=("a<new>b",), verdict="fixed: it is a token"),
    Report(HUB + "ggml-org/llama.cpp/pull/3635", "added_tokens.json repeats tokens of the vocabulary",
           beside("added_tokens.json", {SPECIAL[2]: 2, SPECIAL[1]: 1})),
    Report(HUB + "huggingface/text-generation-inference/issues/1132", "ids of added tokens with a gap",
           added(token(NEXT + 10, "<gap>")), error=f"says id {NEXT + 10} but gets {NEXT}"),
    Report(HUB + "arcee-ai/mergekit/issues/469", "the same added token twice", added(token(1, SPECIAL[1])),
           without=True, verdict="fixed: it says nothing new"),
    Report(HUB + "pytorch/executorch/pull/15215", "another end token in special_tokens_map.json", beside(
        "special_tokens_map.json", {"eos_token": SPECIAL[2]}, eos_token=SPECIAL[0]), verdict="fixed: the map wins"),
    Report(HUB + "ggml-org/llama.cpp/pull/2398", "the end token as an object", config(
        eos_token={"__type": "AddedToken", "content": SPECIAL[2], "lstrip": False, "normalized": True,
                   "rstrip": False, "single_word": False})),
    Report(HUB + "huggingface/transformers/issues/30947", "add_bos_token that the post-processor does not know",
           config(add_bos_token=True, add_eos_token=True)),
    Report(HUB + "oobabooga/textgen/pull/6050", "bos by the post-processor", part("post_processor", BOS)),
    Report(HUB + "ggml-org/llama.cpp/issues/6947", "add_bos_token false beside such a post-processor", lambda files: (
        part("post_processor", BOS)(files), config(add_bos_token=False)(files))),
    Report(HUB + "huggingface/transformers/issues/32575", "clean_up_tokenization_spaces keeps spaces of BPE",
           config(clean_up_tokenization_spaces=True), pieces=((spelled("x != y . 'm"), "x != y . 'm"),)),
    Report(HUB + "huggingface/transformers/issues/15733", "truncation and padding left in the file", lambda files: (
        part("truncation", {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0})(files)),
        without=True),
    Report(HUB + "ggml-org/llama.cpp/pull/11496", "bytes of a character in several tokens", lambda files: None,
           pieces=((spelled("\n😀你"), "\n😀你"), (spelled("你")[:2], "\ufffd"))),
    Report(HUB + "sgl-project/sglang/issues/31598", "a character after a broken one", lambda files: None,
           pieces=((spelled("A 世") + spelled("世")[:2] + spelled("ab"), "A 世\ufffdab"),)),
    Report(HUB + "ggml-org/llama.cpp/issues/4622", "byte tokens print bytes", pieces(),
           pieces=((fallback("\n"), "\n"), (fallback("你"), "你"), (fallback("😀"), "😀"))),
    Report(HUB + "huggingface/transformers/issues/28776", "the first space goes, and no other", pieces(),
           texts=("he he",), pieces=(([PIECES.index("▁he")] * 2, "he he"),
                                     ([PIECES.index("▁"), PIECES.index("▁he")], " he"))),
    Report(HUB + "huggingface/tokenizers/issues/1467", "a space behind a special token", pieces(), texts=("<s> he",),
           pieces=(([1, PIECES.index("▁he")], "<s> he"),)),
    Report(HUB + "Lightning-AI/litgpt/pull/2326", "Metaspace as decoder", pieces(lambda files: (
        part("normalizer", None)(files), part("pre_tokenizer", METASPACE)(files), part("decoder", METASPACE)(files))),
        texts=("he he",), pieces=(([PIECES.index("▁he")] * 2, "he he"),)),
    Report(HUB + "Comfy-Org/ComfyUI/issues/5894", "a merge of tokens that are not there",
           model(merges=[["q", "zz"]]), error="names a token that is not in the vocabulary"),
    Report(HUB + "huggingface/tokenizers/issues/826", "a decoder of other models",
           part("decoder", {"type": "WordPiece", "prefix": "##", "cleanup": True}),
           error="decoder 'WordPiece' is not supported"),
]  # fmt: skip


@pytest.mark.parametrize("report", [pytest.param(report, id=report.input) for report in REPORTS])
def test_report(report: Report, tmp_path: Path) -> None:
    files = Files()
    report.change(files)
    folder = files.write(tmp_path)
    if report.error:
        with pytest.raises(TokenizerError, match=report.error):
            AutoTokenizer.from_pretrained(folder)
        return
    ours = AutoTokenizer.from_pretrained(folder)
    if report.without:
        (tmp_path / "before").mkdir()
        before = AutoTokenizer.from_pretrained(Files().write(tmp_path / "before"))
        assert [ours.encode(text) for text in TEXTS] == [before.encode(text) for text in TEXTS]
    else:
        theirs = transformers.AutoTokenizer.from_pretrained(folder)
        for text in (*TEXTS, *report.texts):
            ids = theirs(text)["input_ids"]
            assert ours.encode(text) == ids, (report.source, text)
            for skip in (False, True):
                expected = theirs.decode(ids, skip_special_tokens=skip)
                assert ours.decode(ids, skip_special_tokens=skip) == expected, (report.source, text)
        assert (ours.bos_token_id, ours.eos_token_id) == (theirs.bos_token_id, theirs.eos_token_id)
    for ids, text in report.pieces:
        stream = ours.stream()
        assert "".join(map(stream.push, ids)) + stream.flush() == ours.decode(ids) == text, report.source
