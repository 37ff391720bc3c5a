# ruff: noqa: E501
"""Files as people brought them to other trainers, each with what is right. The reports are linked; the inputs are ours.

Right is: the text comes out as it is, rows without text are passed over and counted, and what cannot be read is an
error that names file, place and how to leave it out. Nothing is dropped without a word.
"""

import bz2
import gzip
import json
import lzma
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepseek.errors import DataError
from deepseek.training.data.local_files import files_below
from deepseek.training.data.members import Member, Wanted
from deepseek.training.data.prepare import prepare
from deepseek.training.data.readers import FORMATS, plain
from deepseek.training.data.recipe import DataRecipe, SourceConfig

GITHUB = "https://github.com/"
CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
SHAREGPT = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}]


def rows(*values: Any) -> str:
    return "\n".join(json.dumps(value) for value in values)


# report, file name, content, documents that come out (None: a row without text)
READ: list[tuple[str, str, str | bytes, list[str | None]]] = [
    ("huggingface/datasets/pull/7963", "a.jsonl", rows({"text": "a"}, {"text": None}, {"text": "b"}), ["a", None, "b"]),
    ("huggingface/datasets/issues/7222", "a.jsonl", rows({"text": None}, {"text": None}, {"text": "a"}), [None, None, "a"]),
    ("huggingface/datasets/issues/7664", "a.jsonl", rows({"n": 1, "text": "x: string, at: timestamp"}), ["x: string, at: timestamp"]),
    ("huggingface/datasets/issues/7322", "a.json", rows([{"text": "a", "id": 1}, {"text": "b", "id": "2"}]), ["a", "b"]),
    ("RUC-NLPIR/FlashRAG/issues/132", "a.jsonl", rows({"text": "a", "m": "s"}, {"text": "b", "m": 7}), ["a", "b"]),
    ("huggingface/datasets/issues/6460", "a.jsonl", rows({"text": "a"}, {"text": "b"}) + "\n\n", ["a", "b"]),
    ("WangRongsheng/MedQA-ChatGLM/issues/2", "a.json", b"\xef\xbb\xbf" + rows([{"text": "a"}]).encode(), ["a"]),
    ("langchain-ai/langchain-community/pull/138", "a.jsonl", b"\xef\xbb\xbf" + rows({"text": "a"}).encode(), ["a"]),
    ("ml-explore/mlx-examples/issues/630", "a.json", json.dumps({"text": "a"}, indent=1), ["a"]),
    ("ml-explore/mlx-examples/issues/630", "a.jsonl", rows({"messages": CHAT}), ["user: Hi\n\nassistant: Hello."]),
    ("Tencent/AngelSlim/issues/7", "a.jsonl", rows({"conversations": SHAREGPT}), ["human: Hi\n\ngpt: Hello."]),
    ("taprosoft/llm_finetuning/issues/5", "a.json", rows([{"id": "O3", "conversations": SHAREGPT}]), ["human: Hi\n\ngpt: Hello."]),
    ("axolotl-ai-cloud/axolotl/pull/1463", "a.csv", 'Comment\n"one, two"\n"three\nfour"\n', ["one, two", "three\nfour"]),
    ("huggingface/datasets/issues/6315", "a.csv", "id,text\r\n1,a\r\n2,\r\n", ["a", ""]),
    ("huggingface/datasets/issues/6315", "a.tsv", "id\ttext\n1\ta\n", ["a"]),
    ("datajuicer/data-juicer/pull/919", "a.jsonl.gz", gzip.compress(rows({"text": "a"}).encode()), ["a"]),
    ("rom1504/img2dataset/pull/325", "a.txt.gz", gzip.compress("ä\n".encode()), ["ä\n"]),
    ("huggingface/datasets/pull/4421", "a.jsonl.bz2", bz2.compress(rows({"text": "a"}).encode()), ["a"]),
    ("huggingface/datasets/pull/2578", "a.txt.xz", lzma.compress(b"a"), ["a"]),
    ("huggingface/datasets/issues/4115", "a.html", "<p>one</p><script>x()</script><p>two</p>", ["\n\none\n\n\n\ntwo\n\n"]),
]  # fmt: skip
# report, file name, content, what the error says
REFUSED: list[tuple[str, str, str | bytes, str]] = [
    ("ml-explore/mlx-examples/pull/458", "a.jsonl", rows({"text": "a"}) + '\n{"text": "b', r"a\.jsonl:2: is not JSON .*correct the line"),
    ("CSHaitao/LexiLaw/issues/44", "a.jsonl", json.dumps({"text": "a"}, indent=1), r'a\.jsonl:1: is not JSON .*format = "json"'),
    ("ml-explore/mlx-examples/issues/381", "a.jsonl", rows({"text": "a"}, {"body": "b"}), r"a\.jsonl:2: has no text in 'text'; it has body; set field"),
    ("axolotl-ai-cloud/axolotl/issues/879", "a.jsonl", rows({"instruction": "a", "input": "", "output": "b"}), r'field = "instruction\+input\+output"'),
    ("oobabooga/textgen/issues/2500", "a.json", "<!DOCTYPE html>", r"a\.json: is not JSON"),
    ("ml5js/training-charRNN/issues/5", "a.txt", b"It\x92s", r'a\.txt: is not text in utf-8 \(byte 2 is 0x92\).*exclude = \["sub/a\.txt"\]'),
    ("huggingface/datasets/issues/6851", "a.txt", b"\x1f\x8b\x08\x00text", r"a\.txt: is not text in utf-8 \(byte 1 is 0x8b\)"),
    ("MNeMoNiCuZ/joy-caption-batch/issues/1", "a.txt", "ö".encode("utf-16"), r'byte 0 is 0xff\); set encoding = "utf-16".*exclude'),
    ("jingyaogong/minimind/issues/551", "a.jsonl", b'{"text": "\xe6\x88"}', r"a\.jsonl: is not text in utf-8 \(byte 10 is 0xe6\)"),
    ("huggingface/datasets/issues/6641", "a.jsonl.gz", gzip.compress(b"x" * 999)[:-9], r'is damaged.*exclude = \["sub/a\.jsonl\.gz"\]'),
    ("huggingface/datasets/issues/7322", "a.jsonl", rows([1, 2]), r"a\.jsonl:1: is list, neither a text nor an object"),
    ("huggingface/datasets/issues/7322", "a.jsonl", rows({"text": 7}), r"a\.jsonl:1: 'text' holds int, no text"),
    ("huggingface/datasets/issues/6315", "a.csv", "id,text\n1,a,b\n", r"a\.csv:2: has not the 2 columns"),
]  # fmt: skip


def read(folder: Path, name: str, content: str | bytes, **more: Any) -> list[str | None]:
    (folder / "sub").mkdir(exist_ok=True)
    (folder / "sub" / name).write_bytes(content.encode() if isinstance(content, str) else content)
    source = SourceConfig(path=str(folder), **more)
    return [text for _, text in FORMATS[source.format](files_below(folder, Wanted(("**",))), source)]


@pytest.mark.parametrize(("report", "name", "content", "documents"), READ, ids=[f"{r[0]}-{r[1]}" for r in READ])
def test_what_comes_out(
    tmp_path: Path, report: str, name: str, content: str | bytes, documents: list[str | None]
) -> None:
    assert read(tmp_path, name, content) == documents, GITHUB + report


@pytest.mark.parametrize(("report", "name", "content", "words"), REFUSED, ids=[f"{r[0]}-{r[1]}" for r in REFUSED])
def test_what_cannot_be_read_says_where_and_how_to_go_on(
    tmp_path: Path, report: str, name: str, content: str | bytes, words: str
) -> None:
    with pytest.raises(DataError, match=words) as caught:
        read(tmp_path, name, content)
    assert str(tmp_path / "sub" / name) in str(caught.value), GITHUB + report


def test_utf_16_is_read_where_the_recipe_says_so(tmp_path: Path) -> None:
    assert read(tmp_path, "a.txt", "ö\n".encode("utf-16"), encoding="utf-16") == ["ö\n"]
    with pytest.raises(DataError, match="set encoding to utf-16-le or utf-16-be"):
        read(tmp_path, "a.txt", "ö\n".encode("utf-16-le"), encoding="utf-16")


def test_zstandard(tmp_path: Path) -> None:
    """huggingface/datasets/pull/2578"""
    pyarrow = pytest.importorskip("pyarrow")
    packed = pyarrow.compress(rows({"text": "a"}).encode(), codec="zstd", asbytes=True)
    assert read(tmp_path, "a.jsonl.zst", packed) == ["a"]


def test_parquet_in_a_mixed_folder(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as library

    (tmp_path / "sub").mkdir()
    library.write_table(pyarrow.table({"content": ["a", None, "b"]}), tmp_path / "sub" / "a.parquet")
    assert read(tmp_path, "b.md", "# c") == ["a", None, "b", "# c"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "a.txt").chmod(0)
    with pytest.raises(DataError, match=r'a\.txt: cannot be read.*exclude = \["a\.txt"\]'):
        read(tmp_path, "b.txt", "b")


def test_a_folder_of_everything(tmp_path: Path) -> None:
    """Images are passed over and counted; empty files, duplicate lines and hidden files do no harm."""
    text = tmp_path / "text"
    (text / "deep" / "er").mkdir(parents=True)
    (text / "deep" / "er" / "a.md").write_bytes(
        b"".join(b"Line %d of %d, with \xc3\xa9.\r\n" % (n, n * n) for n in range(99))
    )
    (text / "empty.txt").touch()
    (text / "picture.PNG").write_bytes(b"\x89PNG\r\n")
    (text / ".ipynb_checkpoints").mkdir()
    (text / ".ipynb_checkpoints" / "a.md").write_bytes(b"\xff")
    (text / "twice.jsonl").write_text(rows(*[{"text": "The same line again and again."}] * 5, {"text": None}))
    recipe = {"tokenizer": {"vocab_size": 300}, "cleaning": {"minimum_characters": 5}, "held_out": {"share": 0}}
    told = prepare(DataRecipe.from_dict({"source": [{"path": "text"}], **recipe}, folder=tmp_path), tmp_path / "out")
    (source,) = told["sources"]
    assert (source["name"], source["licence"], source["language"]) == ("text", "not stated", "und")
    assert {name: source[name] for name in ("documents", "exact", "too_short", "without_text", "passed_over")} == {
        "documents": 2,
        "exact": 4,
        "too_short": 1,
        "without_text": 1,
        "passed_over": {".png": 1},
    }


def test_a_hub_cache(tmp_path: Path) -> None:
    """huggingface/datasets/issues/6764: the files of a snapshot are links to blobs beside it."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "b1").write_text(rows({"text": "a"}))
    (tmp_path / "snapshots" / "abc").mkdir(parents=True)
    (tmp_path / "snapshots" / "abc" / "train.jsonl").symlink_to("../../blobs/b1")
    source = SourceConfig(path=".")
    for start in (tmp_path / "snapshots" / "abc", tmp_path / "snapshots" / "abc" / "train.jsonl"):
        assert [text for _, text in FORMATS["auto"](files_below(start, Wanted(("**",))), source)] == ["a"]


LARGE = """
import resource, sys
from pathlib import Path
from deepseek.training.data.local_files import files_below
from deepseek.training.data.members import Wanted
from deepseek.training.data.readers import FORMATS
from deepseek.training.data.recipe import SourceConfig
path = Path(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
documents = FORMATS["auto"](files_below(path, Wanted(("**",))), SourceConfig(path=str(path)))
print(sum(len(text) for _, text in documents), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes only there")
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_large_files_are_streamed(tmp_path: Path, name: str) -> None:
    """Megatron-LM/issues/444, Training_PRO/issues/20: memory must not grow with the file."""
    line = "word " * 199 + "end.\n" if name == "a.txt" else rows({"text": "word " * 190}) + "\n"
    with (tmp_path / name).open("w") as file:
        for _ in range(200):
            file.write(line * 1000)  # 200 MB
    result = subprocess.run(
        [sys.executable, "-c", LARGE, str(tmp_path / name)], capture_output=True, text=True, check=True
    )
    characters, megabytes = map(int, result.stdout.split())
    assert characters > 180_000_000
    assert megabytes < 140


def test_a_text_cut_into_parts_loses_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(plain, "PART_CHARACTERS", 1000)
    monkeypatch.setattr("deepseek.training.data.members._CHUNK", 300)
    paragraphs = [f"Paragraph {number} with ünïcödé. " * (number % 7 + 1) for number in range(200)]
    texts = read(tmp_path, "a.txt", "\n\n".join(paragraphs))
    assert "\n\n".join(str(text) for text in texts).split("\n\n") == paragraphs
    assert len(texts) > 10
    assert max(len(str(text)) for text in texts) < 3000


@settings(deadline=None)
@given(st.binary(max_size=40), st.sampled_from(["utf-8", "utf-16-le", "cp1252", "gb18030"]), st.integers(1, 7))
def test_pieces_of_bytes_decode_as_the_whole(data: bytes, encoding: str, size: int) -> None:
    class Pieces(Member):
        def blocks(self) -> Any:
            return iter([data[start : start + size] for start in range(0, len(data), size)])

    member = Pieces("a.txt", data)
    try:
        whole = data.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        with pytest.raises(DataError, match=rf"\(byte {error.start:,} is 0x"):
            plain.decoded(member, encoding)
    else:
        assert plain.decoded(member, encoding) == whole
        assert list(plain.lines(member, encoding)) == whole.split("\n")


@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), st.text(max_size=20)), max_size=8), st.booleans())
def test_json_lines_come_back_as_they_were(texts: list[str | None], ascii_only: bool) -> None:
    content = "\n".join(json.dumps({"text": text}, ensure_ascii=ascii_only) for text in texts)
    member = Member("a.jsonl", content.encode("utf-8", "surrogatepass" if ascii_only else "replace"))
    found = [text for _, text in FORMATS["jsonl"]((member,), SourceConfig(path="."))]
    wanted = [text if text is None or ascii_only else text.encode("utf-8", "replace").decode() for text in texts]
    assert found == wanted
