"""Every format on files made here: what comes out is the text and not its markup."""

import base64
import gzip
import io
import json
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import pytest

from deepseek.errors import ConfigError, DataError
from deepseek.training.data.members import Budget, Member
from deepseek.training.data.readers import FORMATS
from deepseek.training.data.recipe import SourceConfig


def source(format: str, **more: Any) -> SourceConfig:
    return SourceConfig(name="x", kind="path", path=".", licence="x", language="x", format=format, **more)


def read(format: str, files: Mapping[str, bytes | str], **more: Any) -> list[str]:
    members = [Member(name, data.encode() if isinstance(data, str) else data) for name, data in files.items()]
    return [text for _, text in FORMATS[format](iter(members), source(format, **more)) if text is not None]


def test_text_and_its_encoding() -> None:
    assert read("text", {"a.txt": "\ufeffhello"}) == ["hello"]
    assert read("text", {"a.txt": "café".encode("latin-1")}, encoding="latin-1") == ["café"]
    with pytest.raises(DataError, match=r"a\.txt: is not text in utf-8 \(byte 3 is 0xe9\); set encoding.*exclude"):
        read("text", {"a.txt": b"caf\xe9"})


def test_gutenberg_without_what_surrounds_the_book() -> None:
    book = "Title page\n*** START OF THIS PROJECT GUTENBERG EBOOK X ***\nCall me\n*** END OF THIS PROJECT\nlicence"
    old = "legalese\n*END*THE SMALL PRINT! FOR ETEXTS*V.1*\nArms and\nEnd of the Project Gutenberg Etext of X\nmore"
    assert [text.strip() for text in read("gutenberg", {"a": book, "b": old, "c": "bare"})] == [
        "Call me",
        "Arms and",
        "bare",
    ]


def test_pieces_between_percent_signs() -> None:
    assert read("paragraphs", {"fortunes": "one\n%\ntwo 5%\n%\n"}) == ["one\n\ntwo 5%\n\n"]


def test_json_in_its_shapes() -> None:
    rows = '{"text": "a"}\n\n{"text": "b"}\n'
    assert read("jsonl", {"x": rows}) == ["a", "b"]
    assert read("json", {"x": rows}) == ["a", "b"]  # one after another, without commas
    assert read("json", {"x": '["a", "b"]'}) == ["a", "b"]
    assert read("json", {"x": '{"k": {"t": "a", "e": "b"}, "l": {"t": "c", "e": ""}}'}, field="t+e") == ["a\nb", "c"]
    assert read("json", {"x": '{"text": ["a", "b"]}'}) == ["a\nb"]
    with pytest.raises(DataError, match="has no text in 'text'; it has body; set field"):
        read("jsonl", {"x": '{"body": "a"}'})
    with pytest.raises(DataError, match="x:2: is not JSON"):
        read("jsonl", {"x": '{"text": "a"}\n{'})


def test_parquet() -> None:
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as library

    file = io.BytesIO()
    library.write_table(pyarrow.table({"text": ["a", None, "b"], "n": [1, 2, 3]}), file)
    assert read("parquet", {"x.parquet": file.getvalue()}) == ["a", "b"]
    with pytest.raises(DataError, match="column 'body'"):
        read("parquet", {"x.parquet": file.getvalue()}, field="body")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read("parquet", {"x.parquet": b"PAR1"})


def test_html_is_what_a_reader_sees() -> None:
    page = """<html><head><title>No</title><style>p {}</style></head><body><div class="navheader">No<br>no</div>
    <h1>Yes<a class="headerlink">no</a></h1><p>One &amp;
    two<p>Three<table><tr><td>a</td><td>b</td></tr></table><pre>if x:
    y</pre><script>no()</script><nav><p>no</nav>End</body></html>"""
    (text,) = read("html", {"x.html": page})
    assert [line for line in text.split("\n") if line.strip()] == [
        "Yes",
        "One & two",
        "Three",
        "a  b",
        "if x:",
        "    y",
        "End",
    ]


def test_restructured_text_keeps_code_and_loses_marks() -> None:
    page = """.. _label:

Title
=====

.. index:: no
   single: no

.. A comment that
   goes on.

Call :func:`~os.path.join` or ``x``, see `PEP 8 <https://x>`_::

    code(`1`)

.. function:: join(a, b)
   :module: os

   Joins.

   .. versionadded:: 3.2
"""
    (text,) = read("rst", {"x.rst": page})
    assert "no" not in text.split()
    assert "comment" not in text
    assert "Call os.path.join or `x`, see PEP 8:" in text
    assert "    code(`1`)" in text
    assert "join(a, b)\n" in text
    assert ":module:" not in text
    assert "New in version 3.2" in text


def test_pod_without_perl() -> None:
    page = """package X;

=head1 NAME

X - B<bold> I<and C<code>> C<< $a->b >> E<lt>x L<the docs|perl>

    print 1;

=cut

sub x {}
"""
    assert read("pod", {"x.pod": page}) == ["NAME\n\nX - bold and code $a->b <x the docs\n\n    print 1;"]


def test_manual_pages() -> None:
    page = r"""." licence
.TH X 1
.SH 名称
x \- 一个
程序
.PP
Use \fB\-v\fR with
.BR cat (1).
.TS
no
.TE
.ig
no
..
"""
    (text,) = read("man", {"x.1": page})
    assert text.split("\n") == ["", "", "名称", "x - 一个程序", "", "Use -v with cat(1). "]


def test_python_as_code_and_as_prose() -> None:
    code = '# Copyright me\n# All rights reserved.\n\nimport os\n\n\ndef f():\n    """Say what."""\n    return "x"\n'
    assert read("python", {"x.py": code}) == [code.partition("\n\n")[2]]
    assert read("python", {"x.py": "# about\nx = 1\n"}) == ["# about\nx = 1\n"]
    assert read("docstrings", {"x.py": code}) == ["f\nSay what."]
    assert read("docstrings", {"x.py": f"t = {'One. Two. ' * 50!r}\n"}) == ["One. Two. " * 50]
    with pytest.raises(DataError, match=r"x\.py: is not Python source"):
        read("docstrings", {"x.py": "def"})


def test_poems_however_deep() -> None:
    deep = {
        "title": "集",
        "content": [
            {"type": "五言", "content": [{"chapter": "春眠", "author": "孟浩然", "paragraphs": ["春眠不覺曉"]}]}
        ],
    }
    flat = [{"title": "关雎", "content": ["关关雎鸠", "在河之洲"]}, {"rhythmic": "x", "paragraphs": []}]
    assert read("poems", {"a": json.dumps(deep), "b": json.dumps(flat)}) == [
        "春眠\n孟浩然\n春眠不覺曉",
        "关雎\n关关雎鸠\n在河之洲",
    ]


def test_tagged_newspaper() -> None:
    lines = (
        "19980101-01-001-001/m  迈向/v  [中国/ns  银行/n]nt  。/w",
        "19980101-01-001-002/m  第二/m",
        "",
        "19980101-01-002-001/m  新/a",
    )
    assert read("tagged", {"x": "\n".join(lines)}) == ["迈向中国银行。\n第二", "新"]


def test_a_dictionary_once_each_in_order() -> None:
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    index = f"00-database-info\tA\tF\nb\t{letters[12]}\t{letters[5]}\na\tF\tH\naa\tF\tH\n"
    files = {"d/x.index": index, "d/x.dict": "infoxfirst\n\nsecond"}
    assert read("dictd", files) == ["first\n\nsecon"]
    with pytest.raises(DataError, match=r"one \.index and one \.dict"):
        read("dictd", {"d/x.dict": "a"})
    with pytest.raises(DataError, match="past the end"):
        read("dictd", {"d/x.index": "a\tA\t//\n", "d/x.dict": "a"})


def sword_module(verse: struct.Struct) -> dict[str, bytes]:
    text = b"<milestone/><verse>In the <b>beginning</b></verse><note>no</note><p/>of &amp; all"
    block = zlib.compress(text)
    verses = [(0, 0, 0), (0, 12, len(text) - 12), (0, 12, len(text) - 12)]
    files = {"zz": block, "zs": struct.pack("<III", 0, len(block), len(text))}
    files["zv"] = b"".join(verse.pack(*entry) for entry in verses)
    return {f"m/ot.b{end}": data for end, data in files.items()}


@pytest.mark.parametrize("form", ["<IIH", "<III"])
def test_sword_modules_of_both_forms(form: str) -> None:
    assert read("sword", sword_module(struct.Struct(form))) == ["In the beginning\nof & all"]


def test_a_damaged_sword_module_is_refused() -> None:
    good = sword_module(struct.Struct("<IIH"))
    with pytest.raises(DataError, match="of another size"):
        read("sword", good | {"m/ot.bzs": struct.pack("<III", 0, 999, 5)})
    with pytest.raises(DataError, match="refused"):
        read("sword", good | {"m/ot.bzs": struct.pack("<III", 0, 999, 1 << 31)})
    with pytest.raises(DataError, match="outside of the blocks"):
        read("sword", good | {"m/ot.bzv": struct.pack("<IIH", 3, 0, 5)})
    with pytest.raises(DataError, match="belongs to the module"):
        read("sword", {name: data for name, data in good.items() if not name.endswith("zv")})


def r_texts(*lines: str) -> bytes:
    head = b"X\n" + struct.pack(">iii", 3, 0, 0) + struct.pack(">i", 5) + b"UTF-8"
    body = b"".join(struct.pack(">ii", 9, len(line.encode())) + line.encode() for line in lines)
    return head + struct.pack(">ii", 16, len(lines)) + body


def r_record(value: bytes) -> bytes:
    return len(value).to_bytes(4, "big") + zlib.compress(value)


def test_vectors_of_texts_of_an_r_package() -> None:
    number = b"X\n" + struct.pack(">iiii", 2, 0, 0, 14)
    data = r_record(r_texts("It is a truth", "universally")) + r_record(number) + r_record(r_texts("é"))
    assert read("rdb", {"x.rdb": data}) == ["It is a truth\nuniversally", "é"]
    with pytest.raises(DataError, match="refused"):
        read("rdb", {"x.rdb": b"\x7f\xff\xff\xff" + data[4:]})
    with pytest.raises(DataError, match="another size"):
        read("rdb", {"x.rdb": b"\x00\x00\x00\x05" + data[4:]})
    with pytest.raises(DataError, match="not an R serialization"):
        read("rdb", {"x.rdb": r_record(r_texts("abc")[:-2])})


def test_a_compressed_member_is_opened_within_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deepseek.training.data.members.MAX_MEMBER_BYTES", 1000)
    assert Budget("x").opened("a.txt.gz", gzip.compress(b"hello")) == Member("a.txt", b"hello")
    with pytest.raises(DataError, match="grows past"):
        Budget("x").opened("a.gz", gzip.compress(bytes(2000)))
    with pytest.raises(DataError, match="damaged"):
        Budget("x").opened("a.gz", b"hello")
    with pytest.raises(DataError, match="damaged"):
        Budget("x").opened("a.xz", base64.b64decode("/Td6WFoAAATm1rRG"))


def test_an_unknown_format_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="format must be one of auto, text, gutenberg"):
        source("docx")
