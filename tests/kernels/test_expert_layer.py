"""A whole expert layer as the engine emits it: against its NumPy twin bit for bit, and against `models.moe`."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from deepseek.config import MoeConfig
from deepseek.errors import CheckpointError
from deepseek.kernels.experts import EXPERT_FIELDS
from deepseek.models.moe import MoE
from deepseek.packing import Floats
from expert_layers import AT, EPSILON, ExpertLayer
from kernel_plans import Matrix, float_matrix, random_matrix
from kernel_twins import fma, product, rms_norm, silu

V2 = MoeConfig(
    n_routed_experts=20,
    num_experts_per_tok=3,
    moe_intermediate_size=40,
    n_shared_experts=2,
    topk_method="group_limited_greedy",
    n_group=4,
    topk_group=2,
    routed_scaling_factor=1.7,
)
V3 = replace(V2, topk_method="noaux_tc", scoring_func="sigmoid", norm_topk_prob=True, n_shared_experts=1)
BARE = MoeConfig(n_routed_experts=7, num_experts_per_tok=4, moe_intermediate_size=33)
SMALL = {"v2": V2, "v3": V3, "no-shared": BARE, "one": replace(BARE, n_routed_experts=1, num_experts_per_tok=1)}
PACKINGS = {
    "int4": ["int4-g32"],
    "affine": ["int4-g64-affine/int8-g32-affine"],
    "int8": ["int8-g128"],
    "bf16": ["bf16"],
    "f32": ["f32"],
    "mixed": ["int4-g32", "int8-g32", "int4-g32/int8-g64", "bf16", "int8-g32/f32"],
}
ROWS = (1, 2, 3, 13, 200)


def inputs(rng: np.random.Generator, rows: int, hidden: int) -> NDArray[np.float32]:
    return (rng.standard_normal((rows, hidden)) * np.exp(rng.standard_normal((rows, 1)))).astype(np.float32)


def mlp_twin(x: Floats, matrices: tuple[Matrix, Matrix, Matrix], wide: bool) -> Floats:
    gate, up, down = matrices
    low = {"low": wide}
    inner = silu(product(x, gate, **low)) * product(x, up, **low)
    return product(inner, down, **low)


def twin(layer: ExpertLayer, x: NDArray[np.float32], *, wide: bool = False) -> Floats:
    """x after the layer, given the routing that the layer chose. Experts by themselves, token by token."""
    ids, weights = layer.routing(len(x))
    norm = layer.weights[AT + "post_attention_layernorm.weight"]
    out = []
    for row, chosen, shares in zip(x, ids, weights, strict=True):
        normed = rms_norm(row, norm, EPSILON)[None]
        total = np.zeros((1, len(row)), np.float32)
        for expert, share in zip(chosen, shares, strict=True):
            total = fma(share, mlp_twin(normed, layer.mlp(f"experts.{expert}"), wide), total)
        if layer.moe.n_shared_experts:
            row = row + mlp_twin(normed, layer.mlp("shared_experts"), wide)
        out.append(row + total)
    return np.concatenate(out)


@pytest.mark.parametrize("packings", PACKINGS.values(), ids=PACKINGS)
@pytest.mark.parametrize("moe", SMALL.values(), ids=SMALL)
def test_equals_its_twin(moe: MoeConfig, packings: list[str]) -> None:
    rng = np.random.default_rng(1)
    layer = ExpertLayer(moe, rng, hidden=50, packings=packings)
    x = inputs(rng, 13, 50)
    for rows in (13, 1, 2, 3):
        out = layer.run(x[:rows], threads=2)
        np.testing.assert_array_equal(out, twin(layer, x[:rows]), err_msg=f"{rows} rows")


@pytest.mark.parametrize("packings", PACKINGS.values(), ids=PACKINGS)
def test_sixteen_bits_of_activations(packings: list[str]) -> None:
    rng = np.random.default_rng(2)
    layer = ExpertLayer(V3, rng, hidden=50, packings=packings, shared="int4-g32", wide=True)
    x = inputs(rng, 9, 50)
    for rows in (9, 1, 2):
        out = layer.run(x[:rows], threads=2)
        np.testing.assert_array_equal(out, twin(layer, x[:rows], wide=True), err_msg=f"{rows} rows")


@pytest.mark.parametrize("packings", PACKINGS.values(), ids=PACKINGS)
@pytest.mark.parametrize("moe", [V3, BARE], ids=["v3", "no-shared"])
def test_a_row_depends_on_nothing_but_itself(moe: MoeConfig, packings: list[str]) -> None:
    """Not on the batch, not on the team."""
    rng = np.random.default_rng(3)
    layer = ExpertLayer(moe, rng, hidden=50, packings=packings, rows=200)
    x = inputs(rng, 200, 50)
    whole = layer.run(x)
    for threads in (1, 2, 3):
        for rows in (200, 1, 2, 13, 3):
            first = 17 % (201 - rows)
            out = layer.run(x[first : first + rows], threads)
            np.testing.assert_array_equal(out, whole[first : first + rows], err_msg=f"{rows} rows, {threads} threads")


def small_matrix(rng: np.random.Generator, packing: str, *, rows: int, inputs: int) -> Matrix:
    from deepseek.packing import Packing

    assert packing == "f32"
    return float_matrix(Packing(packing), rng.standard_normal((rows, inputs)) * inputs**-0.5)


def reference(layer: ExpertLayer) -> MoE:
    """The layer in PyTorch, without its norm."""
    model = MoE(layer.config)

    def value(name: str) -> torch.Tensor:
        one = layer.weights[name]
        return torch.from_numpy(one.values if isinstance(one, Matrix) else one)

    model.gate.weight.data = value(AT + "mlp.gate.weight")
    if layer.moe.has_correction_bias:
        model.gate.e_score_correction_bias.copy_(value(AT + "mlp.gate.e_score_correction_bias"))
    mlps = [[torch.from_numpy(matrix.values) for matrix in layer.mlp(f"experts.{number}")]
            for number in range(layer.moe.n_routed_experts)]  # fmt: skip
    model.experts.gate_up_proj.data = torch.stack([torch.cat((gate, up)) for gate, up, _ in mlps])
    model.experts.down_proj.data = torch.stack([down for _, _, down in mlps])
    model.experts.path = "loop"
    if model.shared_experts is not None:
        for name, matrix in zip(("gate", "up", "down"), layer.mlp("shared_experts"), strict=True):
            getattr(model.shared_experts, f"{name}_proj").weight.data = torch.from_numpy(matrix.values)
    return model


@pytest.mark.parametrize("moe", SMALL.values(), ids=SMALL)
@pytest.mark.parametrize("bias_mean", [0.0, -4.0])
def test_equals_the_layer_of_models(moe: MoeConfig, bias_mean: float) -> None:
    rng = np.random.default_rng(4)
    layer = ExpertLayer(
        moe, rng, hidden=50, packings=["f32"], shared="f32", rows=200, bias_mean=bias_mean, random=small_matrix
    )
    model = reference(layer)
    norm = torch.from_numpy(layer.weights[AT + "post_attention_layernorm.weight"])
    for rows in ROWS:
        x = inputs(rng, rows, 50)
        out = layer.run(x, threads=2)
        at = torch.from_numpy(x)
        normed = norm * at * torch.rsqrt(at.pow(2).mean(-1, keepdim=True) + EPSILON)
        with torch.no_grad():
            expected = at + model(normed[None])[0]
            same = (model.gate(normed).indices_nk.numpy() == layer.routing(rows)[0]).all(axis=1)
        assert same.mean() > 0.98
        np.testing.assert_allclose(out[same], expected.numpy()[same], rtol=1e-5, atol=1e-5)


def test_rounds_of_a_step_and_other_counts_in_turn() -> None:
    """Nothing is left over from the step before: fewer and more rows by turns, several rounds in one call."""
    rng = np.random.default_rng(5)
    layer = ExpertLayer(V3, rng, hidden=50, packings=PACKINGS["mixed"], rows=64)
    x = inputs(rng, 64, 50)
    whole = layer.run(x)
    for rows in (64, 1, 40, 2, 3, 64, 1):
        np.testing.assert_array_equal(layer.run(x[:rows], threads=2), whole[:rows])
    for rows in (1, 5):
        twice = layer.run(layer.run(x[:rows]))
        np.testing.assert_array_equal(layer.run(x[:rows], threads=2, rounds=2), twice)


def test_experts_without_tokens_and_one_with_all() -> None:
    moe = replace(BARE, num_experts_per_tok=1)
    rng = np.random.default_rng(6)
    layer = ExpertLayer(moe, rng, hidden=50, packings=["int4-g32"], rows=64)
    x = np.tile(inputs(rng, 1, 50), (64, 1))
    out = layer.run(x, threads=2)
    assert len(set(layer.routing(64)[0].flatten().tolist())) == 1
    np.testing.assert_array_equal(out, np.tile(twin(layer, x[:1]), (64, 1)))


def test_an_expert_is_swapped_by_its_row_of_the_table() -> None:
    """Experts 0 and 1 change places in memory, and their packings with them: so does what each computes."""
    rng = np.random.default_rng(7)
    moe = replace(BARE, n_routed_experts=2, num_experts_per_tok=1)
    layer = ExpertLayer(moe, rng, hidden=50, packings=["int4-g32", "int8-g32"], rows=32)
    x = inputs(rng, 32, 50)
    layer.run(x)
    table: NDArray[Any] = layer.plan.expert_rooms.tables[0]
    assert table.shape == (2, EXPERT_FIELDS)
    table[:] = table[::-1].copy()
    for name in ("gate", "up", "down"):
        first, second = (f"{AT}mlp.experts.{number}.{name}_proj.weight" for number in range(2))
        layer.weights[first], layer.weights[second] = layer.weights[second], layer.weights[first]
    np.testing.assert_array_equal(layer.run(x, threads=2), twin(layer, x))


def test_the_record_counts_every_row_of_every_round() -> None:
    rng = np.random.default_rng(8)
    layer = ExpertLayer(V3, rng, hidden=50, packings=PACKINGS["mixed"], record_rows=30)
    record = layer.record
    assert record is not None
    layer.run(inputs(rng, 7, 50), threads=2)
    assert not record.is_on
    assert not record.totals.any()
    expected = np.zeros(V3.n_routed_experts, np.int64)
    for rows in (1, 2, 16):
        record.start()
        layer.run(inputs(rng, rows, 50), threads=2)
        ids, weights = layer.routing(rows)
        np.testing.assert_array_equal(record.ids[0, :rows], ids)
        np.testing.assert_array_equal(record.weights[0, :rows], weights)
        expected += np.bincount(ids.flatten(), minlength=V3.n_routed_experts)
        np.testing.assert_array_equal(record.totals[0], expected)
    record.start()
    layer.run(inputs(rng, 5, 50), threads=2, rounds=6)
    np.testing.assert_array_equal(record.ids[0, 25:30], layer.routing(5)[0])
    expected += np.bincount(record.ids[0].flatten(), minlength=V3.n_routed_experts)
    np.testing.assert_array_equal(record.totals[0], expected)
    record.stop()
    layer.run(inputs(rng, 5, 50), threads=2)
    np.testing.assert_array_equal(record.totals[0], expected)


def test_gate_and_up_packed_differently_are_refused() -> None:
    def alternating(rng: np.random.Generator, packing: str, *, rows: int, inputs: int) -> Matrix:
        made.append(packing)
        return random_matrix(rng, "int8-g32" if len(made) == 6 else packing, rows=rows, inputs=inputs)

    made: list[str] = []  # the router, gate, up and down of expert 0, gate and up of expert 1
    with pytest.raises(CheckpointError, match=r"experts\.1\.up_proj\.weight is int8-g32, its gate_proj int4-g32"):
        ExpertLayer(BARE, np.random.default_rng(0), hidden=50, packings=["int4-g32"], random=alternating)
