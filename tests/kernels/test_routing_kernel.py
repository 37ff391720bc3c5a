"""The router's kernel against `models.moe.Router`, of every kind, and against the definition where scores are equal."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from deepseek.config import ModelConfig, MoeConfig, RopeConfig
from deepseek.kernels import routing as op
from deepseek.models.moe import Router
from kernel_plans import Plan, floats, room

V2 = MoeConfig(
    n_routed_experts=160,
    num_experts_per_tok=6,
    moe_intermediate_size=8,
    topk_method="group_limited_greedy",
    n_group=8,
    topk_group=3,
    routed_scaling_factor=16.0,
)
V3 = MoeConfig(
    n_routed_experts=256,
    num_experts_per_tok=8,
    moe_intermediate_size=8,
    scoring_func="sigmoid",
    topk_method="noaux_tc",
    n_group=8,
    topk_group=4,
    norm_topk_prob=True,
    routed_scaling_factor=2.5,
)
KINDS = {
    "v1": MoeConfig(n_routed_experts=64, num_experts_per_tok=6, moe_intermediate_size=8),
    "qwen3": MoeConfig(n_routed_experts=128, num_experts_per_tok=8, moe_intermediate_size=8, norm_topk_prob=True),
    "v2": V2,
    "v3": V3,
    "v3-softmax": replace(V3, scoring_func="softmax", norm_topk_prob=False),
    "v3-one-group": replace(V3, n_group=1, topk_group=1, n_routed_experts=60),
    "sqrtsoftplus": replace(V3, scoring_func="sqrtsoftplus", n_group=1, topk_group=1),
    "ragged-groups": replace(V3, n_routed_experts=77, n_group=7, topk_group=3),
    "groups-of-two": replace(V3, n_routed_experts=64, n_group=32, topk_group=9, num_experts_per_tok=18),
    "many-groups": replace(V2, n_routed_experts=100, n_group=50, topk_group=20, num_experts_per_tok=40),
    "one-expert": replace(V3, n_routed_experts=1, num_experts_per_tok=1, n_group=1, topk_group=1),
    "all-of-seven": MoeConfig(n_routed_experts=7, num_experts_per_tok=7, moe_intermediate_size=8),
    "a-thousand": replace(V3, n_routed_experts=1024, n_group=16, topk_group=5, num_experts_per_tok=32),
    "four-thousand": MoeConfig(
        n_routed_experts=4096, num_experts_per_tok=33, moe_intermediate_size=8, scoring_func="sigmoid"
    ),
}
of_kinds = pytest.mark.parametrize("moe", KINDS.values(), ids=KINDS)


class Routed(NamedTuple):
    ids: NDArray[np.int32]
    weights: NDArray[np.float32]


def route(
    logits: NDArray[np.float32], moe: MoeConfig, bias: NDArray[np.float32] | None = None, threads: int = 1
) -> Routed:
    plan = Plan(len(logits))
    ids, weights = add_route(plan, logits, moe, bias)
    assert not plan.run(threads)
    return Routed(ids, weights)


def add_route(plan: Plan, logits: NDArray[np.float32], moe: MoeConfig, bias: NDArray[np.float32] | None) -> Routed:
    rows = floats(logits)
    routed = Routed(
        room((len(rows), moe.num_experts_per_tok), np.int32), room((len(rows), moe.num_experts_per_tok), np.float32)
    )
    routed.ids[:] = -1
    plan.add(
        op.route,
        {
            op.LOGITS: rows,
            op.LOGITS_STRIDE: rows.strides[0],
            op.EXPERTS: moe.n_routed_experts,
            op.TOP_K: moe.num_experts_per_tok,
            op.SCORING: op.SCORINGS[moe.scoring_func],
            op.BIAS: 0 if bias is None else floats(bias),
            op.GROUPS: moe.n_group,
            op.TOP_GROUPS: moe.topk_group,
            op.BEST_OF_GROUP: 2 if moe.topk_method == "noaux_tc" else 1,
            op.NORMED: moe.norm_topk_prob,
            op.SCALE: np.array([moe.routed_scaling_factor], np.float32),
            op.IDS: routed.ids,
            op.WEIGHTS: routed.weights,
            op.SCRATCH: room((3 * op.route_scratch(moe.n_routed_experts),), np.uint8),
        },
    )
    return routed


def reference(logits: NDArray[np.float32], moe: MoeConfig, bias: NDArray[np.float32] | None) -> Router:
    """A router whose logits are its inputs."""
    config = ModelConfig(
        family="deepseek", vocab_size=8, hidden_size=moe.n_routed_experts, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=1, num_key_value_heads=1, head_dim=8, max_position_embeddings=8, rms_norm_eps=1e-5,
        rope=RopeConfig(theta=1e4), moe=moe,
    )  # fmt: skip
    router = Router(config)
    router.weight.data = torch.eye(moe.n_routed_experts)
    if bias is not None:
        router.e_score_correction_bias.copy_(torch.from_numpy(bias))
    return router


def bias_for(moe: MoeConfig, rng: np.random.Generator, mean: float = 0.0) -> NDArray[np.float32] | None:
    if not moe.has_correction_bias:
        return None
    return (mean + rng.standard_normal(moe.n_routed_experts)).astype(np.float32)


def check(logits: NDArray[np.float32], moe: MoeConfig, bias: NDArray[np.float32] | None) -> None:
    """Same experts in the same order, same weights. Where scores are as good as equal, rounding may decide."""
    got = route(logits, moe, bias)
    expected = reference(logits, moe, bias)(torch.from_numpy(logits))
    ids, weights = expected.indices_nk.numpy(), expected.weights_nk.detach().numpy()
    agree = (got.ids == ids).all(axis=1)
    assert agree.mean() > 0.98
    np.testing.assert_allclose(got.weights[agree], weights[agree], rtol=2e-6, atol=1e-30)


@of_kinds
def test_equals_the_router_of_models(moe: MoeConfig) -> None:
    rng = np.random.default_rng(moe.n_routed_experts)
    logits = (2 * rng.standard_normal((100, moe.n_routed_experts))).astype(np.float32)
    check(logits, moe, bias_for(moe, rng))


@of_kinds
def test_negative_biases_never_bring_back_a_dropped_group(moe: MoeConfig) -> None:
    rng = np.random.default_rng(2)
    logits = rng.standard_normal((50, moe.n_routed_experts)).astype(np.float32)
    check(logits, moe, bias_for(moe, rng, mean=-5.0))
    groups = route(logits, moe, bias_for(moe, rng, mean=-5.0)).ids // moe.experts_per_group
    assert all(len(set(row)) <= moe.topk_group for row in groups.tolist())


@of_kinds
def test_of_equal_scores_the_lower_number_wins(moe: MoeConfig) -> None:
    logits = np.zeros((3, moe.n_routed_experts), np.float32)
    chosen = moe.num_experts_per_tok
    expected = np.arange(chosen)
    bias = np.zeros(moe.n_routed_experts, np.float32) if moe.has_correction_bias else None
    np.testing.assert_array_equal(route(logits, moe, bias).ids, np.tile(expected, (3, 1)))
    last = moe.n_routed_experts - 1
    logits[1, last] = 1.0
    got = route(logits, moe, bias).ids
    assert got[1, 0] == last
    assert (np.diff(got[1, 1:]) > 0).all()


@of_kinds
def test_scores_far_out(moe: MoeConfig) -> None:
    """Very large and very small logits: no NaN, no infinity, and the weights of the definition."""
    rng = np.random.default_rng(3)
    logits = (30 * rng.standard_normal((60, moe.n_routed_experts))).astype(np.float32)
    bias = None if not moe.has_correction_bias else np.zeros(moe.n_routed_experts, np.float32)
    got = route(logits, moe, bias)
    assert np.isfinite(got.weights).all()
    wide = logits.astype(np.float64)
    scores = {
        "softmax": np.exp(wide - wide.max(axis=1, keepdims=True))
        / np.exp(wide - wide.max(axis=1, keepdims=True)).sum(axis=1, keepdims=True),
        "sigmoid": 1 / (1 + np.exp(-wide)),
        "sqrtsoftplus": np.sqrt(np.logaddexp(0, wide)),
    }[moe.scoring_func]
    chosen = np.take_along_axis(scores, got.ids, axis=1)
    if moe.norm_topk_prob:
        chosen /= chosen.sum(axis=1, keepdims=True) + 1e-20
    np.testing.assert_allclose(got.weights, chosen * moe.routed_scaling_factor, rtol=5e-6, atol=1e-18)


@pytest.mark.parametrize("scoring", op.SCORINGS)
def test_scores_are_right_to_the_last_units(scoring: str) -> None:
    moe = MoeConfig(n_routed_experts=200, num_experts_per_tok=200, moe_intermediate_size=8, scoring_func=scoring)
    logits = np.linspace(-9, 9, 200 * 50).reshape(50, 200).astype(np.float32)
    wide = logits.astype(np.float64)
    powers = np.exp(wide - wide.max(axis=1, keepdims=True))
    scores = {
        "softmax": powers / powers.sum(axis=1, keepdims=True),
        "sigmoid": 1 / (1 + np.exp(-wide)),
        "sqrtsoftplus": np.sqrt(np.log1p(np.exp(wide))),
    }[scoring]
    got = route(logits, moe)
    np.testing.assert_allclose(got.weights, np.take_along_axis(scores, got.ids, axis=1), rtol=4e-7)


@of_kinds
def test_whatever_the_logits_are_experts_exist_and_differ(moe: MoeConfig) -> None:
    """They become addresses: a broken weight may give nonsense, never a wild read."""
    rng = np.random.default_rng(4)
    logits = rng.standard_normal((6, moe.n_routed_experts)).astype(np.float32)
    logits[0] = np.nan
    logits[1, ::3] = np.nan
    logits[2] = np.inf
    logits[3] = -np.inf
    logits[4, :2] = np.inf
    logits[5, 1:] = -np.inf
    biases = [bias_for(moe, rng)]
    if moe.has_correction_bias:
        biases += [np.full(moe.n_routed_experts, value, np.float32) for value in (np.nan, -np.inf, np.inf, 3e38, -3e38)]
    for bias in biases:
        for row in route(logits, moe, bias).ids.tolist():
            assert len(set(row)) == moe.num_experts_per_tok
            assert min(row) >= 0
            assert max(row) < moe.n_routed_experts


@of_kinds
def test_a_row_depends_on_nothing_but_itself(moe: MoeConfig) -> None:
    rng = np.random.default_rng(5)
    logits = rng.standard_normal((200, moe.n_routed_experts)).astype(np.float32)
    bias = bias_for(moe, rng)
    whole = route(logits, moe, bias)
    for rows, threads in ((1, 1), (2, 2), (13, 1), (13, 2), (200, 2), (200, 3)):
        part = route(logits[-rows:], moe, bias, threads)
        np.testing.assert_array_equal(part.ids, whole.ids[-rows:])
        np.testing.assert_array_equal(part.weights, whole.weights[-rows:])


def test_the_record_gets_what_the_step_gets() -> None:
    moe, rows = KINDS["v3"], 5
    logits = np.random.default_rng(6).standard_normal((rows, moe.n_routed_experts)).astype(np.float32)
    plan = Plan(rows)
    routed = add_route(plan, logits, moe, None)
    ids, weights = np.full((12, 8), -1, np.int32), np.zeros((12, 8), np.float32)
    at = np.array([-1], np.int64)
    for column, value in (
        (op.RECORD_IDS, ids), (op.RECORD_WEIGHTS, weights), (op.RECORD_AT, at), (op.RECORD_ROWS, 11),
    ):  # fmt: skip
        plan.set(column, value)
    plan.run(2)
    assert (ids == -1).all()
    at[0] = 3
    plan.run(2)
    np.testing.assert_array_equal(ids[3:8], routed.ids)
    np.testing.assert_array_equal(weights[3:8], routed.weights)
    at[0] = 8  # room for three more
    plan.run(2)
    np.testing.assert_array_equal(ids[8:11], routed.ids[:3])
    assert (ids[:3] == -1).all()
    assert (ids[11] == -1).all()


@settings(max_examples=60, deadline=None)
@given(
    groups=st.integers(1, 9),
    size=st.integers(2, 40),
    scoring=st.sampled_from(("softmax", "sigmoid", "sqrtsoftplus")),
    method=st.sampled_from(("greedy", "group_limited_greedy", "noaux_tc")),
    normed=st.booleans(),
    data=st.data(),
)
def test_any_router(groups: int, size: int, scoring: str, method: str, normed: bool, data: st.DataObject) -> None:
    kept = groups if method == "greedy" else data.draw(st.integers(1, groups))
    moe = MoeConfig(
        n_routed_experts=groups * size, num_experts_per_tok=data.draw(st.integers(1, kept * size)),
        moe_intermediate_size=8, scoring_func=scoring, topk_method=method, n_group=groups, topk_group=kept,
        norm_topk_prob=normed, routed_scaling_factor=data.draw(st.floats(0.1, 20)),
    )  # fmt: skip
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    check(rng.standard_normal((3, groups * size)).astype(np.float32), moe, bias_for(moe, rng))
