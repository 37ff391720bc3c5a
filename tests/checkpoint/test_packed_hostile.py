"""A store may come from anybody: whatever is wrong with it is one CheckpointError, and nothing is read beyond it."""

import json
import os
import random
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deepseek.checkpoint.checkpoint import open_checkpoint
from deepseek.checkpoint.packed import open_store, verify_store, write_store
from deepseek.checkpoint.packed.format import BEGINNING, MAGIC, VERSION, data_offset
from deepseek.errors import CheckpointError
from packed_values import RAGGED, write_checkpoint
from tiny_checkpoints import random_tensors

Header = dict[str, Any]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("good")
    config = RAGGED["v32"]
    with open_checkpoint(write_checkpoint(folder / "hf", config, random_tensors(config))) as checkpoint:
        write_store(folder / "good.packed", checkpoint)
    return (folder / "good.packed").read_bytes()


def parts(data: bytes) -> tuple[Header, bytes]:
    length = BEGINNING.unpack(data[: BEGINNING.size])[3]
    return json.loads(data[BEGINNING.size : BEGINNING.size + length]), data[data_offset(length) :]


def joined(header: Header | bytes, tensors: bytes, **changes: int) -> bytes:
    """A store with a right checksum over a header that may be wrong."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    fields = {"version": VERSION, "crc": zlib.crc32(text), "length": len(text)} | changes
    beginning = BEGINNING.pack(MAGIC, fields["version"], fields["crc"], fields["length"])
    return (beginning + text).ljust(data_offset(len(text)), b"\0") + tensors


def refused(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "bad.packed"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=message) as caught:
        open_store(path)
    assert str(path) in str(caught.value)


def test_a_rewritten_store_opens(good: bytes, tmp_path: Path) -> None:
    (tmp_path / "same.packed").write_bytes(joined(*parts(good)))
    verify_store(open_store(tmp_path / "same.packed"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a packed store"),
        (b"GGUF" + bytes(5000), "not a packed store"),
        (MAGIC + bytes(20), "not a packed store"),
        (joined(b"{}", b"", version=2), "version 2, this is version 1"),
        (joined(b"{}", b"", length=1 << 62), "a header of 4,611,686,018,427,387,904 bytes"),
        (joined(b"{}", b"", length=90_000_000), "a header of 90,000,000 bytes in a file of 4,096"),
        (joined(b"{}", b"", crc=7), "the header is damaged"),
        (joined(b"[]", b""), "must be a JSON object"),
        (joined(b"{", b""), "damaged JSON"),
        (joined(b"[" * 4000, b""), "nested"),
        (joined({}, b""), "the header has the keys"),
        (joined({"quantize": "auto", "source": 1, "config": {}, "tensors": []}, b""), "not of its type"),
        (joined({"quantize": "int3", "source": "a", "config": {}, "tensors": []}, b""), "not of its type"),
        (joined({"quantize": "auto", "source": "a", "config": {}, "tensors": []}, b""), "missing key family"),
    ],
)
def test_files_that_are_no_store(data: bytes, message: str, tmp_path: Path) -> None:
    refused(tmp_path, data, message)


def set_config(key: str, value: Any) -> Callable[[Header], None]:
    def change(header: Header) -> None:
        *path, last = key.split(".")
        place = header["config"]
        for part in path:
            place = place[part]
        place[last] = value

    return change


def set_field(row: int, field: int, value: Any) -> Callable[[Header], None]:
    def change(header: Header) -> None:
        header["tensors"][row][field] = value

    return change


def swapped(header: Header) -> None:
    rows = header["tensors"]
    rows[3], rows[4] = rows[4], rows[3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_config("num_hidden_layers", 10**15), "too few for its configuration"),
        (set_config("num_attention_heads", 10**15), "too few|latent attention has as many"),
        (set_config("moe.n_routed_experts", 10**15), "too few for its configuration"),
        (set_config("num_nextn_predict_layers", 10**15), "too few for its configuration"),
        (set_config("vocab_size", 2**62), "is not listed as it must lie"),
        (set_config("hidden_size", 48), "is not listed as it must lie"),
        (set_config("hidden_size", "48"), "hidden_size is"),
        (set_config("hidden_size", 40.0), "hidden_size is"),
        (set_config("rope.theta", "many"), "rope.theta is 'many'"),
        (set_config("rope.theta", 10**400), "config of the header"),
        (set_config("rope", 3), "rope must be an object"),
        (set_config("mla", []), "mla must be an object"),
        (set_config("rope.scaling", "none" * 99), "rope.scaling is"),
        (set_config("fp8_block", [1, 2, 3]), "fp8_block is"),
        (set_config("eos_token_ids", [10**9]), "outside the vocabulary"),
        (set_config("tie_word_embeddings", 1), "tie_word_embeddings"),
        (set_config("surprise", 1), "unknown key surprise"),
        (set_field(0, 0, "model.norm.weight"), "where tensor 'model.embed_tokens.weight' should be"),
        (set_field(0, 1, "matrix"), "where tensor 'model.embed_tokens.weight' should be"),
        (set_field(0, 2, "int4-g32"), "of type 'int4-g32'"),
        (set_field(0, 2, "q4_0"), "of type 'q4_0'"),
        (set_field(0, 2, ["f32"]), "of type"),
        (set_field(1, 2, "bf16"), "of type 'bf16'"),
        (set_field(5, 2, "int5-g32"), "of type 'int5-g32'"),
        (set_field(5, 3, 10**30), "is not listed as it must lie"),
        (set_field(5, 5, 0), "is not listed as it must lie"),
        (set_field(5, 5, -64), "is not listed as it must lie"),
        (set_field(5, 5, True), "is not listed as it must lie"),
        (set_field(5, 6, 10**30), "is not listed as it must lie"),
        (set_field(5, 7, "xyz"), "is not listed as it must lie"),
        (set_field(5, 7, 12), "is not listed as it must lie"),
        (lambda header: header["tensors"].pop(), "tensors, but the configuration asks for"),
        (lambda header: header["tensors"].append(header["tensors"][0]), "tensors, but the configuration asks for"),
        (lambda header: header["tensors"].__setitem__(2, None), "should be there is None"),
        (lambda header: header["tensors"].__setitem__(2, []), "should be there is"),
        (lambda header: header.__setitem__("tensors", 3), "tensors of the header is not a list"),
        (swapped, "should be there is"),
    ],
)
def test_headers_that_lie(change: Callable[[Header], None], message: str, good: bytes, tmp_path: Path) -> None:
    header, tensors = parts(good)
    change(header)
    refused(tmp_path, joined(header, tensors), message)


def test_a_sensitive_tensor_must_be_f32(good: bytes, tmp_path: Path) -> None:
    header, tensors = parts(good)
    row = next(row for row in header["tensors"] if row[0].endswith("mlp.gate.weight"))
    row[2] = "bf16"
    refused(tmp_path, joined(header, tensors), "mlp.gate.weight' of type 'bf16'")


def test_heads_of_a_layer_must_be_alike(good: bytes, tmp_path: Path) -> None:
    header, tensors = parts(good)
    row = next(row for row in header["tensors"] if row[0].endswith("k_absorb.2.weight"))
    assert row[2] == "int8-g32"
    row[2] = "bf16"
    refused(tmp_path, joined(header, tensors), r"k_absorb\.2\.weight' of type 'bf16'")


def test_truncated_anywhere(good: bytes, tmp_path: Path) -> None:
    for length in (1, 40, 64, 200, 4096, 9000, len(good) // 2, len(good) - 4096, len(good) - 1):
        refused(tmp_path, good[:length], "store|header|cut off")


def test_longer_than_its_tensors(good: bytes, tmp_path: Path) -> None:
    refused(tmp_path, good + bytes(64), "64 bytes more than its tensors need")


def test_random_damage_is_found(good: bytes, tmp_path: Path) -> None:
    """Bits of the header are found when it opens, all others by `verify_store`."""
    path, chance = tmp_path / "bad.packed", random.Random(0)
    for _ in range(150):
        data = bytearray(good)
        data[chance.randrange(len(data) - 4096)] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
        with pytest.raises(CheckpointError):
            verify_store(open_store(path))


def test_verify_names_the_tensor(good: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bad.packed"
    path.write_bytes(good)
    store = open_store(path)
    for name in ("model.norm.weight", "model.layers.1.mlp.experts.2.up_proj.weight"):
        data = bytearray(good)
        data[store.tensors[name].offset + store.tensors[name].nbytes - 1] ^= 0x10
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match=rf"damaged: {name}; delete it"):
            verify_store(open_store(path))


def test_neither_folders_nor_pipes_are_stores(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "nothing"):
        with pytest.raises(CheckpointError):
            open_store(path)
