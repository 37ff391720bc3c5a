"""Reading and writing against the `gguf` package, and files that lie."""

import os
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deepseek.checkpoint.dtypes import byte_size
from deepseek.checkpoint.gguf import GgufFile, read_gguf_metadata
from deepseek.checkpoint.gguf.parser import parse_header
from deepseek.checkpoint.gguf.writer import TensorToWrite, write_gguf
from deepseek.checkpoint.tensor import Bytes
from deepseek.errors import CheckpointError

TYPES = ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K"]
METADATA: dict[str, Any] = {
    "general.architecture": "llama",
    "a.bool": True,
    "a.uint": 4_000_000_000,
    "a.big": 1 << 40,
    "a.negative": -7,
    "a.float": 0.5,
    "a.text": "Grüße, 世界 🙂",
    "a.texts": ["", "a", "é" * 300],
    "a.flags": [True, False],
    "a.list": [1, 2, 3],
    "a.numbers": np.array([1, -2, 3], np.int32),
    "a.floats": np.array([0.25, -1e30], np.float32),
}


def random_tensors() -> dict[str, tuple[str, tuple[int, ...], Bytes]]:
    generator = np.random.default_rng(0)
    tensors = {}
    for at, dtype in enumerate(TYPES):
        shape = (3, 256) if at % 2 else (2, 2, 256)
        data = generator.integers(0, 256, byte_size(dtype, shape), dtype=np.uint8)
        tensors[f"blk.{at}.weight"] = (dtype, shape, data)
    return tensors


def write(path: Path, metadata: dict[str, Any] = METADATA) -> Path:
    tensors = [
        TensorToWrite(name, dtype, shape, lambda data=data: [data[:7], data[7:]])
        for name, (dtype, shape, data) in random_tensors().items()
    ]
    write_gguf(path, metadata, tensors)
    return path


def test_the_gguf_package_reads_what_we_write(tmp_path: Path) -> None:
    reader = gguf.GGUFReader(write(tmp_path / "ours.gguf"))
    for key, value in METADATA.items():
        contents = reader.fields[key].contents()
        assert contents == (value.tolist() if isinstance(value, np.ndarray) else value), key
    assert reader.fields["a.uint"].types == [gguf.GGUFValueType.UINT32]
    assert reader.fields["a.negative"].types == [gguf.GGUFValueType.INT32]
    assert reader.fields["a.numbers"].types == [gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.INT32]
    assert reader.fields["a.list"].types == [gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.INT32]
    expected = random_tensors()
    assert [tensor.name for tensor in reader.tensors] == list(expected)
    for tensor in reader.tensors:
        dtype, shape, data = expected[tensor.name]
        assert (tensor.tensor_type.name, tuple(tensor.shape.tolist()[::-1])) == (dtype, shape)
        assert tensor.data.tobytes() == data.tobytes()
        assert tensor.data_offset % 32 == 0


def test_we_read_what_the_gguf_package_writes(tmp_path: Path) -> None:
    path = tmp_path / "theirs.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_custom_alignment(64)
    writer.add_uint8("k.u8", 255)
    writer.add_int16("k.i16", -300)
    writer.add_float64("k.f64", 1e300)
    writer.add_uint64("k.u64", 1 << 63)
    writer.add_array("k.texts", ["a", "世界"])
    writer.add_array("k.ints", [1, 2, -3])
    writer.add_array("k.bools", [True, False])
    for name, (dtype, shape, data) in random_tensors().items():
        writer.add_tensor(name, data.reshape(*shape[:-1], -1), raw_dtype=gguf.GGMLQuantizationType[dtype])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with GgufFile(path) as file:
        found = file.metadata
        assert (found["k.u8"], found["k.i16"], found["k.f64"], found["k.u64"]) == (255, -300, 1e300, 1 << 63)
        assert (found["k.texts"], found["k.bools"]) == (["a", "世界"], [True, False])
        assert found["k.ints"].tolist() == [1, 2, -3]
        for name, (dtype, shape, data) in random_tensors().items():
            assert (file.tensors[name].dtype, file.tensors[name].shape) == (dtype, shape)
            assert file.data(name).tobytes() == data.tobytes()
            assert not file.data(name).flags.writeable


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    assert write(tmp_path / "a.gguf").read_bytes() == write(tmp_path / "b.gguf").read_bytes()


def test_views_outlive_the_file(tmp_path: Path) -> None:
    file = GgufFile(write(tmp_path / "a.gguf"))
    view = file.data("blk.0.weight")
    file.close()
    assert view.tobytes() == random_tensors()["blk.0.weight"][2].tobytes()


def test_a_large_vocabulary_takes_three_calls_a_text(tmp_path: Path) -> None:
    words = [f"token{i}" for i in range(150_000)]
    metadata = {"general.architecture": "llama", "tokens": words, "merges": words, "types": np.ones(150_000, np.int32)}
    write_gguf(tmp_path / "a.gguf", metadata, [])
    calls = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    found = read_gguf_metadata(tmp_path / "a.gguf")
    sys.setprofile(None)
    assert found["merges"] == words
    assert calls < 3.1 * (len(words) + len(words))


class TestSplit:
    def parts(self, folder: Path, count: int = 3) -> list[Path]:
        tensors = list(random_tensors().items())
        paths = []
        for part in range(count):
            metadata = {"split.no": part, "split.count": count, "split.tensors.count": len(tensors)}
            paths.append(folder / f"m-{part + 1:05}-of-{count:05}.gguf")
            write_gguf(
                paths[-1],
                {**(METADATA if part == 0 else {}), **metadata},
                [TensorToWrite(name, d, s, lambda b=b: [b]) for name, (d, s, b) in tensors[part::count]],
            )
        return paths

    @pytest.mark.parametrize("opened", [0, 2])
    def test_parts_read_as_one(self, tmp_path: Path, opened: int) -> None:
        with GgufFile(self.parts(tmp_path)[opened]) as file:
            assert file.metadata["a.text"] == METADATA["a.text"]
            for name, (dtype, _, data) in random_tensors().items():
                assert (file.tensors[name].dtype, file.data(name).tobytes()) == (dtype, data.tobytes())

    def test_a_missing_part(self, tmp_path: Path) -> None:
        parts = self.parts(tmp_path)
        parts[1].unlink()
        with pytest.raises(CheckpointError, match=r"1 of 3 parts are missing \(m-00002-of-00003.gguf\)"):
            GgufFile(parts[0])

    def test_a_part_twice(self, tmp_path: Path) -> None:
        parts = self.parts(tmp_path)
        parts[1].write_bytes(parts[2].read_bytes())
        with pytest.raises(CheckpointError, match=r"the tensor 'blk.2.weight' appears in two parts"):
            GgufFile(parts[0])

    def test_a_part_renamed(self, tmp_path: Path) -> None:
        alone = self.parts(tmp_path)[0].rename(tmp_path / "model.gguf")
        with pytest.raises(CheckpointError, match=r"split.count is 3, but its name says 1"):
            GgufFile(alone)

    def test_tensors_missing(self, tmp_path: Path) -> None:
        parts = self.parts(tmp_path)
        write_gguf(parts[1], {"split.no": 1, "split.count": 3}, [])
        with pytest.raises(CheckpointError, match=r"split.tensors.count is 11, but the parts hold"):
            GgufFile(parts[0])


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def key(name: str | bytes, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def info(name: str, dims: Sequence[int], kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def file_bytes(
    keys: Sequence[bytes] = (),
    infos: Sequence[bytes] = (),
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    n_keys: int | None = None,
    n_infos: int | None = None,
    data: int = 256,
) -> bytes:
    counts = (len(infos) if n_infos is None else n_infos, len(keys) if n_keys is None else n_keys)
    head = magic + struct.pack("<IQQ", version, *counts) + b"".join(keys) + b"".join(infos)
    return head + bytes(-len(head) % 32) + bytes(data)


ARRAY, STRING, UINT32 = 9, 8, 4
HOSTILE = {
    "empty": (b"", "is empty"),
    "not GGUF": (b"PK\3\4" + bytes(60), "not a GGUF file"),
    "a pickle": (b"\x80\x04" + bytes(60), "not a GGUF file"),
    "version 1": (file_bytes(version=1), "GGUF version 1; this version reads 2 and 3"),
    "version 77": (file_bytes(version=77), "GGUF version 77"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0) + bytes(64), "big-endian"),
    "tensor count": (file_bytes(n_infos=1 << 60), "1,152,921,504,606,846,976 tensors, more than a file of"),
    "key count": (file_bytes(n_keys=1 << 40), "metadata keys, more than a file of"),
    "tensor count a little too high": (file_bytes(n_infos=99), "the header says 99 tensors, more than a file of"),
    "more keys than any model": (
        file_bytes([key(f"{i}", UINT32, bytes(4)) for i in range(65_537)]),
        "the header says 65,537 metadata keys",
    ),
    "key count beyond the end": (file_bytes(n_keys=9), "unknown type|truncated|appears twice"),
    "key length": (file_bytes([struct.pack("<Q", 1 << 63)]), "a metadata key is 9,223,372,036,854,775,808 bytes long"),
    "key twice": (file_bytes([key("k", UINT32, bytes(4))] * 2), "the metadata key 'k' appears twice"),
    "key not UTF-8": (file_bytes([key(b"\xff\xfe", UINT32, bytes(4))]), "a metadata key is not valid UTF-8"),
    "value type": (file_bytes([key("k", 13, bytes(8))]), "the metadata key 'k' has the unknown type 13"),
    "text length": (file_bytes([key("k", STRING, struct.pack("<Q", 1 << 50))]), "the value of 'k' is 1,125,"),
    "text truncated": (
        file_bytes([key("k", STRING, struct.pack("<Q", 5000))]),
        "truncated: the value of 'k'",
    ),
    "boolean": (file_bytes([key("k", 7, b"\2")]), "the value of 'k' is 2, which is neither true nor false"),
    "array length": (
        file_bytes([key("k", ARRAY, struct.pack("<IQ", STRING, 1 << 62))]),
        "the value of 'k' has 4,611,686,018,427,387,904 elements",
    ),
    "number array length": (
        file_bytes([key("k", ARRAY, struct.pack("<IQ", UINT32, 1 << 62))]),
        "the value of 'k' has 4,611,686,018,427,387,904 numbers",
    ),
    "number array truncated": (
        file_bytes([key("k", ARRAY, struct.pack("<IQ", UINT32, 75))]),
        "truncated: the value of",
    ),
    "texts truncated": (
        file_bytes([key("k", ARRAY, struct.pack("<IQ", STRING, 2) + text("a") + struct.pack("<Q", 1 << 20))]),
        "truncated: text 1 of 'k' is 1,048,576 bytes long",
    ),
    "array depth": (file_bytes([key("k", ARRAY, struct.pack("<IQ", ARRAY, 1) * 9)]), "nests arrays more than 4 deep"),
    "array element type": (file_bytes([key("k", ARRAY, struct.pack("<IQ", 99, 1))]), "has the unknown type 99"),
    "alignment 0": (file_bytes([key("general.alignment", UINT32, bytes(4))]), "general.alignment is 0"),
    "alignment 48": (
        file_bytes([key("general.alignment", UINT32, struct.pack("<I", 48))]),
        "alignment is 48; it must",
    ),
    "alignment text": (file_bytes([key("general.alignment", STRING, text("x"))]), "general.alignment is x"),
    "name twice": (file_bytes([], [info("t", [4])] * 2), "the tensor 't' appears twice"),
    "no dimensions": (file_bytes([], [info("t", [])]), "tensor 't' has 0 dimensions; GGUF has 1 to 4"),
    "five dimensions": (file_bytes([], [info("t", [1] * 5)]), "tensor 't' has 5 dimensions"),
    "a billion dimensions": (file_bytes([], [text("t") + struct.pack("<I", 1 << 30)]), "has 1073741824 dimensions"),
    "overflow": (file_bytes([], [info("t", [1 << 32, 1 << 32])]), "of 18446744073709551616 elements"),
    "partial block": (file_bytes([], [info("t", [48], 2)]), "tensor 't': Q4_0 stores blocks of 32"),
    "unknown tensor type": (file_bytes([], [info("t", [32], 250)]), "tensor 't' has the unknown type 250"),
    "unsupported tensor type": (file_bytes([], [info("t", [256], 17)]), "the type IQ2_XS, .* requantise the model"),
    "misaligned": (
        file_bytes([], [info("t", [4], 0, 16)]),
        "tensor 't' is misaligned: its offset 16 is not a multiple",
    ),
    "outside": (file_bytes([], [info("t", [4], 0, 1 << 40)]), "truncated: .* bytes are missing"),
    "offset overflow": (file_bytes([], [info("t", [4], 0, (1 << 64) - 32)]), "truncated: .* bytes are missing"),
    "truncated": (file_bytes([], [info("t", [64])], data=255), "truncated: .* bytes are missing"),
    "overlap": (file_bytes([], [info("a", [16]), info("b", [16], 0, 32)]), "the tensors 'a' and 'b' overlap"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files(case: str, tmp_path: Path) -> None:
    content, message = HOSTILE[case]
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as raised:
        GgufFile(path)
    assert "bad.gguf" in str(raised.value)


def test_the_right_file_beside_the_hostile_ones() -> None:
    header = parse_header(file_bytes([key("k", UINT32, bytes(4))], [info("a", [16]), info("b", [16], 0, 64)]), "x")
    assert (header.metadata, [t.shape for t in header.tensors.values()]) == ({"k": 0}, [(16,), (16,)])


def test_missing_file_and_part_numbers(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        GgufFile(tmp_path / "none.gguf")
    with pytest.raises(CheckpointError, match="part 00004 of 00003 cannot be"):
        GgufFile(tmp_path / "m-00004-of-00003.gguf")


VALID = file_bytes(
    [
        key("general.architecture", STRING, text("llama")),
        key("n", UINT32, bytes(4)),
        key("texts", ARRAY, struct.pack("<IQ", STRING, 2) + text("ab") + text("é")),
        key("nested", ARRAY, struct.pack("<IQIQI", ARRAY, 1, UINT32, 1, 7)),
    ],
    [info("a", [16]), info("b", [32], 2, 64)],
)
FUZZ = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def parses_or_refuses(content: bytes) -> None:
    try:
        header = parse_header(content, "fuzz")
    except CheckpointError:
        return
    for tensor in header.tensors.values():
        assert tensor.offset + tensor.size <= len(content)


@FUZZ
@given(st.binary(max_size=300))
def test_random_bytes_after_a_right_beginning(noise: bytes) -> None:
    parses_or_refuses(VALID[:24] + noise)


@FUZZ
@given(st.lists(st.tuples(st.integers(0, len(VALID) - 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_changed_bytes(changes: list[tuple[int, int]]) -> None:
    content = bytearray(VALID)
    for place, value in changes:
        content[place] = value
    parses_or_refuses(bytes(content))


@FUZZ
@given(st.integers(0, len(VALID)), st.integers(0, len(VALID)))
def test_pieces_cut_out(start: int, stop: int) -> None:
    parses_or_refuses(VALID[:start] + VALID[stop:])


def test_lying_lengths_take_no_memory() -> None:
    """Every field of 8 bytes set to a huge count: refused before anything of that size is made."""
    import tracemalloc

    for place in range(8, len(VALID) - 8):
        for lie in (1 << 24, 1 << 33, (1 << 63) - 1):
            tracemalloc.start()
            parses_or_refuses(VALID[:place] + struct.pack("<Q", lie) + VALID[place + 8 :])
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert peak < 1 << 20, place


class TestWriting:
    def test_a_full_disk_is_refused_before_writing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = write(tmp_path / "a.gguf")
        before = path.read_bytes()
        monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
        with pytest.raises(CheckpointError, match=r"a.gguf needs 0.0 GB, but only 0.0 GB are free"):
            write(path)
        assert path.read_bytes() == before

    def test_an_interruption_leaves_the_earlier_file(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.gguf")
        before = path.read_bytes()

        def chunks() -> Any:
            yield np.zeros(64, np.uint8)
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            write_gguf(path, {}, [TensorToWrite("t", "F32", (64,), chunks)])
        assert path.read_bytes() == before
        assert os.listdir(tmp_path) == ["a.gguf"]

    @pytest.mark.parametrize(
        ("metadata", "tensor", "message"),
        [
            ({"k": object()}, None, "metadata 'k': a object cannot be written"),
            ({"k": [1, "a"]}, None, "metadata 'k': a list of different types"),
            ({}, TensorToWrite("x" * 64, "F32", (1,), list), "longer than 63 bytes"),
            ({}, TensorToWrite("x", "F8_E4M3", (1,), list), "GGUF cannot hold F8_E4M3"),
            ({}, TensorToWrite("x", "F32", (1,) * 5, list), r"of shape \[1, 1, 1, 1, 1\]"),
        ],
    )
    def test_what_gguf_cannot_hold(self, tmp_path: Path, metadata: Any, tensor: Any, message: str) -> None:
        with pytest.raises(CheckpointError, match=message):
            write_gguf(tmp_path / "a.gguf", metadata, [tensor] if tensor else [])
        assert not list(tmp_path.iterdir())

    def test_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=r"the folder .*none does not exist"):
            write_gguf(tmp_path / "none" / "a.gguf", {}, [])
