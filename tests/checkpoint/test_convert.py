"""Any checkpoint to any format: round trips, which type each tensor gets, what is refused and what is said."""

import json
from collections import Counter
from dataclasses import replace
from math import prod
from pathlib import Path

import gguf
import numpy as np
import pytest
from typer.testing import CliRunner

from deepseek.checkpoint.checkpoint import open_checkpoint
from deepseek.checkpoint.convert import convert
from deepseek.checkpoint.decode import from_float32, to_float32
from deepseek.checkpoint.gguf.file import GgufFile
from deepseek.checkpoint.gguf.layout import differences_in_llama_cpp, planned_tensors, storable_config
from deepseek.cli.app import app
from deepseek.errors import CheckpointError, ConfigError, TokenizerError
from deepseek.families.weights import weight_shapes
from gguf_models import CONFIGS, random_weights, tokenizer_files, write_folder
from tiny_checkpoints import V3_FP8, quantize, random_tensors
from tiny_checkpoints import write_folder as write_bare_folder


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("name", CONFIGS)
def test_round_trip_through_gguf(name: str, dtype: str, tmp_path: Path) -> None:
    """safetensors -> GGUF -> safetensors: every weight equals its own rounding, and F32 nothing but itself."""
    expected = random_weights(CONFIGS[name])
    convert(write_folder(tmp_path / "first", CONFIGS[name]), tmp_path / "m.gguf", dtype=dtype)
    convert(tmp_path / "m.gguf", tmp_path / "second")
    with open_checkpoint(tmp_path / "m.gguf") as middle, open_checkpoint(tmp_path / "second") as second:
        assert second.config == middle.config
        assert set(second.names()) == set(weight_shapes(storable_config(CONFIGS[name])))
        for weight in second.names():
            raw = second.raw(weight)
            rounded = to_float32(from_float32(to_float32(expected[weight]), raw.dtype))
            assert np.array_equal(to_float32(raw), rounded), weight
            kept = len(raw.shape) == 1 or weight.endswith(("mlp.gate.weight", "weights_proj.weight"))
            assert raw.dtype == ("F32" if kept else dtype), weight
    for file in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "second" / file).is_file()


@pytest.mark.parametrize("dtype", ["Q8_0", "Q4_0"])
def test_types_of_a_quantised_file(dtype: str, tmp_path: Path) -> None:
    config = CONFIGS["deepseek_v3"]
    done = convert(write_folder(tmp_path / "hf", config), tmp_path / "m.gguf", dtype=dtype)
    weights = random_weights(config)
    counted: Counter[str] = Counter()
    with GgufFile(tmp_path / "m.gguf") as file:
        for planned in planned_tensors(config):
            stored = file.tensors[planned.name]
            counted[stored.dtype] += prod(stored.shape)
            if len(planned.shape) == 1 or planned.name.endswith("ffn_gate_inp.weight"):
                assert stored.dtype == "F32", planned.name
            else:
                assert stored.dtype == ("Q8_0" if planned.name == "output.weight" else dtype), planned.name
        experts = [to_float32(weights[f"model.layers.1.mlp.experts.{e}.up_proj.weight"]) for e in range(8)]
        theirs = gguf.quantize(np.stack(experts), gguf.GGMLQuantizationType[dtype])
        assert file.data("blk.1.ffn_up_exps.weight").tobytes() == theirs.tobytes()
        assert file.metadata["general.file_type"] == {"Q8_0": 7, "Q4_0": 2}[dtype]
    assert done.types == counted
    assert done.size == (tmp_path / "m.gguf").stat().st_size
    assert done.notes == ()


def test_rows_that_no_block_fits_become_f16_and_it_is_said(tmp_path: Path) -> None:
    config = replace(CONFIGS["llama"], intermediate_size=80)
    done = convert(write_folder(tmp_path / "hf", config), tmp_path / "m.gguf", dtype="Q8_0")
    with GgufFile(tmp_path / "m.gguf") as file:
        odd = [name for name, tensor in file.tensors.items() if tensor.dtype == "F16"]
    assert odd == ["blk.0.ffn_down.weight", "blk.1.ffn_down.weight"]
    assert done.notes[0] == "blk.0.ffn_down.weight is F16: its rows of 80 are not whole Q8_0 blocks"
    assert len(done.notes) == 2


@pytest.mark.parametrize("name", ["llama", "deepseek", "deepseek_v3", "deepseek_v32"])
@pytest.mark.parametrize("dtype", [None, "Q8_0"])
def test_a_type_that_stays_is_copied_bit_for_bit(name: str, dtype: str | None, tmp_path: Path) -> None:
    convert(write_folder(tmp_path / "hf", CONFIGS[name]), tmp_path / "a.gguf", dtype="Q8_0")
    convert(tmp_path / "a.gguf", tmp_path / "b.gguf", dtype=dtype)
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


def test_blocks_that_rounding_again_would_change_are_copied_too(tmp_path: Path) -> None:
    """A converter that decodes and encodes would scale these blocks anew, and transpose them for kv_b_proj."""
    path = tmp_path / "a.gguf"
    convert(write_folder(tmp_path / "hf", CONFIGS["deepseek_v3"]), path, dtype="Q8_0")
    content = bytearray(path.read_bytes())
    with GgufFile(path) as file:
        for name in ("blk.0.attn_k_b.weight", "blk.1.ffn_up_exps.weight", "blk.0.attn_q_a.weight"):
            stored = file.tensors[name]
            blocks = np.frombuffer(content, np.uint8, stored.size, stored.offset).reshape(-1, 34)
            blocks[:, 2:] = np.random.default_rng(0).integers(0, 40, (len(blocks), 32))
    path.write_bytes(content)
    convert(path, tmp_path / "b.gguf", dtype="Q8_0")
    assert (tmp_path / "b.gguf").read_bytes() == path.read_bytes()


def test_gguf_to_another_type_equals_the_way_through_float32(tmp_path: Path) -> None:
    config = CONFIGS["deepseek_v3"]
    convert(write_folder(tmp_path / "hf", config), tmp_path / "q8.gguf", dtype="Q8_0")
    convert(tmp_path / "q8.gguf", tmp_path / "direct.gguf", dtype="Q4_0")
    convert(tmp_path / "q8.gguf", tmp_path / "f32")
    convert(tmp_path / "f32", tmp_path / "around.gguf", dtype="Q4_0")
    with GgufFile(tmp_path / "direct.gguf") as direct, GgufFile(tmp_path / "around.gguf") as around:
        for name in direct.tensors:
            assert direct.data(name).tobytes() == around.data(name).tobytes(), name


def test_fp8_to_gguf_and_to_safetensors(tmp_path: Path) -> None:
    config = replace(V3_FP8, vocab_size=384)
    tensors = quantize(random_tensors(config), config)
    folder = write_bare_folder(tmp_path / "fp8", config, tensors)
    for name, content in tokenizer_files().items():
        (folder / name).write_bytes(content)
    up = "model.layers.1.mlp.experts.2.up_proj.weight"

    done = convert(folder, tmp_path / "kept.gguf")
    assert done.notes == ("FP8 weights are rounded to BF16, as GGUF has no such FP8 type",)
    convert(folder, tmp_path / "exact.gguf", dtype="F32")
    convert(folder, tmp_path / "same")
    convert(folder, tmp_path / "wide", dtype="BF16")
    with open_checkpoint(tmp_path / "exact.gguf") as exact, open_checkpoint(tmp_path / "kept.gguf") as kept:
        for name in exact.names():
            assert np.array_equal(to_float32(exact.raw(name)), to_float32(tensors[name])), name
        assert (exact.raw(up).dtype, kept.raw(up).dtype) == ("F32", "BF16")
    with open_checkpoint(tmp_path / "same") as same, open_checkpoint(tmp_path / "wide") as wide:
        assert (same.config.fp8_block, wide.config.fp8_block) == ((16, 16), None)
        assert same.raw(up).data.tobytes() == tensors[up].data.tobytes()
        assert np.array_equal(to_float32(wide.raw(up)), to_float32(from_float32(to_float32(tensors[up]), "BF16")))


def test_large_tensors_come_in_pieces(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Pieces of a few rows give the same bytes; FP8 pieces follow the blocks of scales."""
    config = replace(V3_FP8, vocab_size=384)
    folder = write_bare_folder(tmp_path / "fp8", config, quantize(random_tensors(config), config))
    for name, content in tokenizer_files().items():
        (folder / name).write_bytes(content)
    convert(folder, tmp_path / "whole.gguf", dtype="F16")
    monkeypatch.setattr("deepseek.checkpoint.gguf.export._PIECE_ELEMENTS", 700)
    convert(folder, tmp_path / "pieces.gguf", dtype="F16")
    assert (tmp_path / "whole.gguf").read_bytes() == (tmp_path / "pieces.gguf").read_bytes()


def test_correction_bias_stays_f32_in_safetensors(tmp_path: Path) -> None:
    convert(write_folder(tmp_path / "hf", CONFIGS["deepseek_v3"]), tmp_path / "bf16", dtype="BF16")
    with open_checkpoint(tmp_path / "bf16") as checkpoint:
        types = {name: checkpoint.raw(name).dtype for name in checkpoint.names()}
    assert {name for name, dtype in types.items() if dtype == "F32"} == {
        "model.layers.1.mlp.gate.e_score_correction_bias"
    }


def test_values_that_a_type_cannot_hold(tmp_path: Path) -> None:
    config = CONFIGS["llama"]
    weights = random_weights(config)
    huge = np.full((384, 64), 1e6, np.float32)
    weights["lm_head.weight"] = from_float32(huge, "F32")
    folder = write_bare_folder(tmp_path / "hf", config, weights)
    for name, content in tokenizer_files().items():
        (folder / name).write_bytes(content)
    for target in ("m.gguf", "folder"):
        with pytest.raises(CheckpointError, match=r"(output|lm_head).weight.*1e\+06 is too large for F16"):
            convert(folder, tmp_path / target, dtype="F16")
        assert not (tmp_path / target).exists()


class TestNotes:
    def test_prediction_layers_of_v3_are_left_out(self, tmp_path: Path) -> None:
        done = convert(write_folder(tmp_path / "hf", CONFIGS["deepseek_v3-mtp"]), tmp_path / "m.gguf")
        assert done.notes[0].startswith("left out: 1 multi-token prediction layer(s)")
        with GgufFile(tmp_path / "m.gguf") as file:
            assert file.metadata["deepseek2.block_count"] == 2
            assert not any(name.startswith("blk.2.") for name in file.tensors)

    def test_prediction_layers_of_v32_stay(self, tmp_path: Path) -> None:
        config = replace(CONFIGS["deepseek_v32"], num_nextn_predict_layers=1)
        assert convert(write_folder(tmp_path / "hf", config), tmp_path / "m.gguf").notes == ()
        with open_checkpoint(tmp_path / "m.gguf") as checkpoint:
            assert checkpoint.config == config

    @pytest.mark.parametrize("name", CONFIGS)
    def test_the_rule_is_none(self, name: str) -> None:
        assert differences_in_llama_cpp(CONFIGS[name]) == []

    def test_each_difference_is_said(self) -> None:
        v2, v3, v1 = CONFIGS["deepseek_v2"], CONFIGS["deepseek_v32"], CONFIGS["deepseek"]
        assert v2.moe
        assert v2.mla
        assert v1.moe
        limited = replace(v2.moe, topk_method="group_limited_greedy", n_group=4, topk_group=2)
        cases = {
            "sum of its two best": replace(v2, moe=limited),
            "beta_fast and beta_slow as 32 and 1": replace(v2, rope=replace(v2.rope, beta_fast=16.0)),
            "mscale as 1": replace(v3, rope=v2.rope),
            "never renormalises": replace(v1, moe=replace(v1.moe, norm_topk_prob=True)),
            r"rms_norm_eps (0.01) for the latent norms": replace(v2, rms_norm_eps=0.01),
            "only with 26 or 27 layers": replace(v2, mla=replace(v2.mla, q_lora_rank=None)),
        }
        for words, config in cases.items():
            (said,) = differences_in_llama_cpp(config)
            assert words in said

    def test_what_gguf_has_no_words_for(self, tmp_path: Path) -> None:
        config = replace(CONFIGS["qwen3"], rope=CONFIGS["llama-tied-llama3"].rope)
        with pytest.raises(ConfigError, match=r"rope.scaling llama3 has no place in GGUF for qwen3"):
            convert(write_folder(tmp_path / "hf", config), tmp_path / "m.gguf")
        assert not (tmp_path / "m.gguf").exists()


class TestVocabulary:
    def test_it_comes_along(self, tmp_path: Path) -> None:
        convert(write_folder(tmp_path / "hf", CONFIGS["llama"]), tmp_path / "m.gguf")
        convert(tmp_path / "m.gguf", tmp_path / "back")
        with GgufFile(tmp_path / "m.gguf") as file:
            assert len(file.metadata["tokenizer.ggml.tokens"]) == 384
            assert (file.metadata["tokenizer.ggml.model"], file.metadata["tokenizer.ggml.pre"]) == ("gpt2", "gpt-2")
            assert (file.metadata["tokenizer.ggml.bos_token_id"], file.metadata["tokenizer.ggml.eos_token_id"]) == (
                0,
                1,
            )
        before, after = (json.loads((tmp_path / f / "tokenizer.json").read_text()) for f in ("hf", "back"))
        assert before["model"]["vocab"] == after["model"]["vocab"]

    def test_a_second_end_of_text_and_padding(self, tmp_path: Path) -> None:
        config = replace(CONFIGS["llama"], eos_token_ids=(1, 7), pad_token_id=9)
        convert(write_folder(tmp_path / "hf", config), tmp_path / "m.gguf")
        with open_checkpoint(tmp_path / "m.gguf") as checkpoint:
            assert checkpoint.config == config

    def test_no_tokenizer(self, tmp_path: Path) -> None:
        folder = write_bare_folder(tmp_path / "hf", CONFIGS["llama"], random_weights(CONFIGS["llama"]))
        with pytest.raises(TokenizerError, match=r"tokenizer.json"):
            convert(folder, tmp_path / "m.gguf")
        convert(folder, tmp_path / "copy")
        assert not (tmp_path / "copy" / "tokenizer.json").exists()

    def test_files_of_a_folder_are_copied_as_they_are(self, tmp_path: Path) -> None:
        folder = write_folder(tmp_path / "hf", CONFIGS["llama"])
        (folder / "generation_config.json").write_text('{"temperature": 0.6}')
        (folder / "run.py").write_text("print('no')")
        convert(folder, tmp_path / "copy", dtype="BF16")
        assert (tmp_path / "copy" / "generation_config.json").read_text() == '{"temperature": 0.6}'
        for name, content in tokenizer_files().items():
            assert (tmp_path / "copy" / name).read_bytes() == content
        assert not (tmp_path / "copy" / "run.py").exists()


class TestRequests:
    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        return write_folder(tmp_path / "hf", CONFIGS["llama"])

    def test_what_is_there_is_not_overwritten(self, source: Path, tmp_path: Path) -> None:
        for target in (tmp_path / "m.gguf", tmp_path / "folder"):
            convert(source, target)
            with pytest.raises(CheckpointError, match=r"already exists; .*--force"):
                convert(source, target)
            convert(source, target, dtype="BF16", overwrite=True)
        with open_checkpoint(tmp_path / "folder") as checkpoint:
            assert checkpoint.raw("lm_head.weight").dtype == "BF16"

    @pytest.mark.parametrize(
        ("spelled", "written"),
        [("torch.bfloat16", "BF16"), ("half", "F16"), ("float32", "F32"), ("int8", "Q8_0"), ("INT4", "Q4_0")],
    )
    def test_types_in_any_spelling(self, source: Path, tmp_path: Path, spelled: str, written: str) -> None:
        done = convert(source, tmp_path / "m.gguf", dtype=spelled)
        assert written in done.types

    def test_mistakes(self, source: Path, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        cases = [
            (tmp_path / "m.gguf", {"dtype": "Q5_K"}, "dtype is 'Q5_K'; gguf is written as one of F32, F16, BF16, Q8_0"),
            (tmp_path / "m", {"dtype": "Q8_0"}, "dtype is 'Q8_0'; safetensors is written as one of F32, F16, BF16"),
            (tmp_path / "m", {"to": "gguf"}, "must name a file that ends in .gguf"),
            (tmp_path / "m", {"to": "onnx"}, "to is 'onnx'; it must be one of safetensors, gguf"),
            (tmp_path / "m.gguf", {"to": "safetensors"}, "must name a folder"),
            (tmp_path / "file", {}, "must name a folder"),
            (source, {"overwrite": True}, "is where the source lies"),
            (tmp_path / "none" / "m.gguf", {}, "none does not exist; create it first"),
        ]
        for destination, options, message in cases:
            with pytest.raises(CheckpointError, match=message):
                convert(source, destination, **options)  # type: ignore[arg-type]

    def test_progress_reaches_the_end(self, source: Path, tmp_path: Path) -> None:
        seen: dict[str, tuple[int, int | None]] = {}

        def report(label: str, done: int, total: int | None, unit: str = "bytes") -> None:
            assert done >= seen.get(label, (0, 0))[0]
            seen[label] = done, total

        done = convert(source, tmp_path / "m.gguf", report=report)
        assert seen["writing m.gguf"] == (done.size, done.size)


class TestCommand:
    def test_convert(self, tmp_path: Path) -> None:
        source = write_folder(tmp_path / "hf", CONFIGS["deepseek_v3-mtp"])
        target = tmp_path / "m.gguf"
        result = CliRunner().invoke(app, ["convert", str(source), str(target), "--dtype", "q8_0", "--json"])
        assert result.exit_code == 0, result.output
        facts = json.loads(result.stdout)
        assert (facts["path"], facts["format"], facts["bytes"]) == (str(target), "gguf", target.stat().st_size)
        assert set(facts["elements_by_type"]) == {"Q8_0", "F32"}
        assert "prediction layer" in facts["notes"][0]

    def test_words_for_people(self, tmp_path: Path) -> None:
        source = write_folder(tmp_path / "hf", CONFIGS["llama"])
        result = CliRunner().invoke(app, ["convert", str(source), str(tmp_path / "m.gguf"), "--dtype", "BF16"])
        assert "% BF16" in result.stdout
        again = CliRunner().invoke(app, ["convert", str(source), str(tmp_path / "m.gguf")])
        assert isinstance(again.exception, CheckpointError)
        forced = CliRunner().invoke(app, ["convert", str(source), str(tmp_path / "m.gguf"), "--force"])
        assert forced.exit_code == 0


def test_pieces_of_a_tensor_in_memory(tmp_path: Path) -> None:
    """Matrices of 82 MB in float32 pass through in pieces of 16."""
    import tracemalloc

    config = replace(CONFIGS["llama"], intermediate_size=320_000, num_hidden_layers=1)
    folder = write_folder(tmp_path / "hf", config, dtype="BF16")
    tracemalloc.start()
    convert(folder, tmp_path / "m.gguf", dtype="F32")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50_000_000
    for path in (tmp_path / "m.gguf", folder / "model.safetensors"):
        path.unlink()
