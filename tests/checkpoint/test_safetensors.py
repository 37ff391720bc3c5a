"""One .safetensors file: against the reference library, against damage, against random bytes."""

import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deepseek.checkpoint.decode import to_float32
from deepseek.checkpoint.dtypes import PLAIN
from deepseek.checkpoint.safetensors import SafetensorsFile
from deepseek.errors import CheckpointError
from tiny_checkpoints import LLAMA, entry, file_bytes, random_tensors, write_file

TORCH = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.float8_e8m0fnu,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "C64": torch.complex64,
}


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_every_type_of_the_reference_library(tmp_path: Path) -> None:
    assert TORCH.keys() == PLAIN.keys()
    path = tmp_path / "all.safetensors"
    generator = torch.Generator().manual_seed(0)
    tensors = {
        tag: torch.randint(0, 2, (3, 8 * PLAIN[tag].block_bytes), dtype=torch.uint8, generator=generator).view(dtype)
        for tag, dtype in TORCH.items()
    }
    tensors["scalar"], tensors["empty"] = torch.tensor(2.5), torch.zeros(0, 4)
    safetensors.torch.save_file(tensors, path, metadata={"note": 'a "brace" } here'})
    file = SafetensorsFile(path)
    assert file.entries.keys() == tensors.keys()
    for name, tensor in tensors.items():
        ours = file.tensor(name)
        assert ours.shape == tuple(tensor.shape)
        assert ours.dtype == (name if name in PLAIN else "F32")
        assert ours.data.tobytes() == tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
        assert not ours.data.flags.writeable
    file.close()


def test_tensors_outlive_their_file_object(tmp_path: Path) -> None:
    tensors = random_tensors(LLAMA)
    write_file(tmp_path / "a.safetensors", tensors)
    file = SafetensorsFile(tmp_path / "a.safetensors")
    held = file.tensor("model.norm.weight")
    file.close()
    assert held.data.tobytes() == tensors["model.norm.weight"].data.tobytes()


def test_misaligned_tensors(tmp_path: Path) -> None:
    values = np.arange(4, dtype="<f4")
    header = {"a": entry("U8", [1], 0, 1), "b": entry("F32", [4], 1, 17)}
    file = SafetensorsFile(written(tmp_path / "a.safetensors", file_bytes(header, b"x" + values.tobytes())))
    tensor = file.tensor("b")
    assert tensor.data.ctypes.data % 4
    np.testing.assert_array_equal(to_float32(tensor), values)
    assert tensor.aligned().data.ctypes.data % 4 == 0
    np.testing.assert_array_equal(to_float32(tensor.aligned()), values)


def test_a_large_file_costs_no_memory(tmp_path: Path) -> None:
    size = 8 << 30
    path = written(tmp_path / "a.safetensors", file_bytes({"a": entry("BF16", [1 << 20, 1 << 12], 0, size)}))
    os.truncate(path, path.stat().st_size + size)  # a hole: takes no disk either
    tracemalloc.start()
    tensor = SafetensorsFile(path).tensor("a")
    last = tensor.slice_first((1 << 20) - 1, 1 << 20)
    assert not last.data.any()
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_a_file_that_shrinks_while_open_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.safetensors", file_bytes({"a": entry("U8", [9000], 0, 9000)}, bytes(9000)))
    file = SafetensorsFile(path)
    os.truncate(path, 4096)
    with pytest.raises(CheckpointError, match=r"a\.safetensors: was shortened while open"):
        file.tensor("a")


ONE = {"a": entry("F32", [2], 0, 8)}
EIGHT = bytes(8)

BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "0 bytes are no safetensors file"),
    "no header": (b"\x10\0\0\0", "4 bytes are no safetensors file"),
    "header cut": (file_bytes(b"{", length=400), "header of 400 bytes in a file of 9"),
    "absurd size": (file_bytes(b"{}", length=1 << 63), "header of 9,223,372,036,854,775,808 bytes"),
    "pickle": (b"\x80\x02}q\x00.aaaaaaaa", "Python pickle, which can run code"),
    "zip pickle": (b"PK\x03\x04aaaaaaaaaa", "PyTorch pickle, which can run code"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer.*git lfs pull"),
    "html": (b"<!DOCTYPE html>", "web page, so the download failed"),
    "not json": (file_bytes(b"{'a': 1}"), "damaged JSON"),
    "a list": (file_bytes(b"[]"), "header is not a JSON object"),
    "blank before": (file_bytes(b" {}"), "header is not a JSON object"),
    "not utf-8": (file_bytes(b'{"\xff": 1}'), "damaged JSON.*utf-8"),
    "deep": (file_bytes(b'{"a":' + b"[" * 100_000), "nested 100001 deep; at most 32"),
    "deep objects": (file_bytes(b'{"a":' * 50 + b"1" + b"}" * 50), "nested 50 deep"),
    "huge integer": (file_bytes(b'{"a": ' + b"9" * 5000 + b"}"), "damaged JSON"),
    "many tokens": (file_bytes(b'{"a":[' + b"0," * 8_000_001 + b"0]}"), "JSON tokens, more than any model needs"),
    "duplicate": (file_bytes(b'{"a":{},"a":{}}'), "'a' occurs twice"),
    "duplicate field": (file_bytes(b'{"a":{"dtype":"F32","dtype":"F32"}}'), "'dtype' occurs twice"),
    "metadata": (file_bytes({"__metadata__": {"a": 1}}), "__metadata__ must map names to strings"),
    "metadata list": (file_bytes({"__metadata__": []}), "__metadata__ must map names to strings"),
    "not an entry": (file_bytes({"a": 3}), "tensor 'a': needs exactly dtype, shape"),
    "field missing": (file_bytes({"a": {"dtype": "F32", "shape": []}}), "needs exactly dtype, shape"),
    "field unknown": (file_bytes({"a": {**ONE["a"], "x": 1}}, EIGHT), "needs exactly dtype, shape"),
    "dtype": (file_bytes({"a": entry("F7", [2], 0, 8)}, EIGHT), "dtype 'F7' is unknown; known are"),
    "dtype kind": (file_bytes({"a": {**ONE["a"], "dtype": [1]}}, EIGHT), "is unknown; known are"),
    "block type": (file_bytes({"a": entry("Q8_0", [32], 0, 34)}, bytes(34)), "dtype 'Q8_0' is unknown"),
    "negative": (file_bytes({"a": entry("F32", [-2], 0, 8)}, EIGHT), r"sizes of 0 or more, not \[-2\]"),
    "float": (file_bytes(b'{"a":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}}', EIGHT), "2.0 is not a whole"),
    "infinite": (file_bytes(b'{"a":{"dtype":"F32","shape":[Infinity],"data_offsets":[0,8]}}'), "Infinity is not"),
    "true": (file_bytes(b'{"a":{"dtype":"U8","shape":[true],"data_offsets":[0,1]}}', b"x"), "sizes of 0 or more"),
    "overflow": (file_bytes({"a": entry("F32", [1 << 62, 4], 0, 0)}), "hold 0 bytes, but F32 .* needs 73786976"),
    "size above": (file_bytes({"a": entry("F32", [1 << 63], 0, 8)}, EIGHT), "sizes of 0 or more"),
    "dimensions": (file_bytes({"a": entry("F32", [1] * 9, 0, 4)}, bytes(4)), "at most 8 sizes"),
    "offsets": (file_bytes({"a": entry("F32", [2], 8, 0)}, EIGHT), "hold -8 bytes, but F32 .* needs 8"),
    "three offsets": (file_bytes({"a": {**ONE["a"], "data_offsets": [0, 8, 8]}}, EIGHT), "must be two positions"),
    "size": (file_bytes({"a": entry("F32", [3], 0, 8)}, EIGHT), r"hold 8 bytes, but F32 \[3\] needs 12"),
    "truncated": (file_bytes({"a": entry("F32", [2], 0, 8)}, bytes(7)), "truncated: 1 of 80 bytes are missing"),
    "rest": (file_bytes(ONE, bytes(11)), "3 bytes after the last tensor"),
    "hole": (file_bytes({**ONE, "b": entry("U8", [1], 9, 10)}, bytes(10)), "'b' leaves a hole after 'a'"),
    "hole first": (file_bytes({"a": entry("U8", [1], 1, 2)}, bytes(2)), "'a' leaves a hole after the header"),
    "overlap": (file_bytes({**ONE, "b": entry("U8", [4], 4, 8)}, EIGHT), "'b' overlaps 'a'"),
    "same place": (file_bytes({**ONE, "b": entry("F32", [2], 0, 8)}, EIGHT), "'b' overlaps 'a'"),
    "no name": (file_bytes({"": ONE["a"]}, EIGHT), "tensor name '' is empty"),
    "long name": (file_bytes({"a" * 513: ONE["a"]}, EIGHT), "longer than 512"),
    "control name": (file_bytes({"a\x1b[2J": ONE["a"]}, EIGHT), r"name 'a\\x1b\[2J' is empty"),
    "surrogate": (file_bytes(b'{"\\ud800": {}}'), r"name '\\ud800' is empty"),
}


@pytest.mark.parametrize("kind", BAD)
def test_damage_is_named(kind: str, tmp_path: Path) -> None:
    content, message = BAD[kind]
    path = written(tmp_path / "bad.safetensors", content)
    with pytest.raises(CheckpointError, match=message) as error:
        SafetensorsFile(path)
    assert str(error.value).startswith(str(path))
    assert len(str(error.value)) < 1000


def test_absurd_headers_are_refused_before_they_are_read(tmp_path: Path) -> None:
    path = written(tmp_path / "a.safetensors", file_bytes(b"{", length=100_000_001))
    os.truncate(path, 1 << 30)
    with pytest.raises(CheckpointError, match=r"header of 100,000,001 bytes in a file of 1,073,741,824"):
        SafetensorsFile(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="not a regular file"):
        SafetensorsFile(tmp_path / "a.safetensors")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 70), 1 << 70) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from([*PLAIN, "Q4_0", "F7"]) | JSON,
        "shape": st.lists(st.integers(-1, 4), max_size=3) | JSON,
        "data_offsets": st.lists(st.integers(-1, 40), min_size=2, max_size=2) | JSON,
    }
)


def open_and_read(path: Path, content: bytes) -> bool:
    """Whether the file opens; anything but a CheckpointError escapes."""
    path.write_bytes(content)
    try:
        file = SafetensorsFile(path)
    except CheckpointError:
        return False
    total = sum(file.tensor(name).data.nbytes for name in file.entries)
    assert total <= len(content)
    file.close()
    return True


FUZZ = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZ
@given(
    header=st.binary(max_size=64) | st.dictionaries(st.text(max_size=4), ENTRIES | JSON), data=st.binary(max_size=40)
)
def test_random_headers(header: Any, data: bytes, tmp_path: Path) -> None:
    content = header if isinstance(header, bytes) else json.dumps(header).encode("utf-8", "surrogatepass")
    open_and_read(tmp_path / "a.safetensors", file_bytes(content, data))
    open_and_read(tmp_path / "a.safetensors", content)


@FUZZ
@given(
    changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=4), cut=st.integers(0, 3)
)
def test_mutations_open_only_where_the_reference_opens_them(
    changes: list[tuple[int, int]], cut: int, tmp_path: Path
) -> None:
    header = {"a.weight": entry("F32", [2, 3], 0, 24), "b": entry("BF16", [4], 24, 32), "c": entry("U8", [1], 32, 33)}
    content = bytearray(file_bytes(header, bytes(range(33))))
    for at, value in changes:
        content[at % len(content)] = value
    content = content[: len(content) - cut]
    if open_and_read(tmp_path / "a.safetensors", bytes(content)):
        safetensors.deserialize(bytes(content))  # raises if we are laxer than the reference
