"""Balance, capacity and reports for all routers of a model, around an ordinary training step.

Shape suffixes: s sequences, e experts, k chosen experts of a token, n tokens.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from deepseek.errors import ConfigError
from deepseek.models.activation_checkpointing import recomputing
from deepseek.models.decoder import Model
from deepseek.models.moe import Router
from deepseek.models.routing import Routing
from deepseek.training.balance.balance_config import BalanceConfig
from deepseek.training.balance.capacity import Capacity, CapacityConfig
from deepseek.training.balance.load import LayerLoad, Tally
from deepseek.training.balance.losses import attach, load_fractions, load_loss, z_loss


class RoutingTraining:
    """Watches every router of `model` between begin_step and end_step:

        routing.begin_step(micro_batches)
        for ...: (language_model_loss(model, tokens).total / micro_batches).backward()
        loads = routing.end_step()

    Balance losses are not part of the loss's number; their gradients join in its backward pass, each micro-batch with
    1 / micro_batches of its own. Forward passes without gradients (evaluation), outside of a step, or repeated by
    activation checkpointing count nothing; without gradients there is no capacity either.
    Raises ConfigError when the balance asks for what a router does not have.
    """

    def __init__(
        self, model: Model, balance: BalanceConfig | None = None, capacity: CapacityConfig | None = None
    ) -> None:
        self.balance = balance or BalanceConfig()
        self.capacity = capacity or CapacityConfig()
        routers = {name: module for name, module in model.named_modules() if isinstance(module, Router)}
        self._routers = {name: _RouterTraining(router, self.balance, self.capacity) for name, router in routers.items()}
        self._handles = [
            router.register_forward_hook(self._routers[name].after_router) for name, router in routers.items()
        ]

    def begin_step(self, micro_batches: int, *, loss_scale: float = 1.0) -> None:
        """micro_batches: forward passes whose losses are averaged in this step. loss_scale: what multiplies the loss
        before `backward` (float16 training)."""
        for router in self._routers.values():
            router.begin(loss_scale / micro_batches)

    def end_step(self, bias_update: float = 1.0) -> tuple[LayerLoad, ...]:
        """Move biases and capacities; the load of each layer that saw tokens, in order.

        bias_update: the factor of bias_update_speed in this step. One that falls with the learning rate lets biases
        settle, which otherwise wander as far as the noise of single batches sends them (decision 024).
        """
        loads = [router.end(_layer_of(name), bias_update) for name, router in self._routers.items()]
        return tuple(load for load in loads if load is not None)

    def close(self) -> None:
        """Stop watching; the model is as if it had never been watched, but for its moved biases."""
        for handle in self._handles:
            handle.remove()

    def state_dict(self) -> dict[str, Tensor]:
        """What was learned and is no part of the model (its biases are), between steps. Copies."""
        states = {name: router.capacity for name, router in self._routers.items()}
        coefficients = {f"{name}.coefficient": state.coefficient.clone() for name, state in states.items()}
        return coefficients | {f"{name}.load": state.load_e.clone() for name, state in states.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Raises ConfigError unless it is of a model with the same routers."""
        if missing := sorted(self.state_dict().keys() ^ state.keys()):
            raise ConfigError(f"the state of routing does not fit this model: {missing[0]} is only on one side")
        for name, router in self._routers.items():
            router.capacity.coefficient.copy_(state[f"{name}.coefficient"])
            router.capacity.load_e.copy_(state[f"{name}.load"])


class _RouterTraining:
    def __init__(self, router: Router, balance: BalanceConfig, capacity: CapacityConfig) -> None:
        moe = router.moe
        if balance.bias_update_speed and not moe.has_correction_bias:
            raise ConfigError(
                f"bias_update_speed is {balance.bias_update_speed}, but routers of topk_method {moe.topk_method!r} "
                "have no correction bias: set it to 0 and use auxiliary_loss, or train a model with topk_method "
                "'noaux_tc'"
            )
        self.router, self.balance = router, balance
        self.capacity = Capacity(capacity, moe.n_routed_experts, router.weight.device)
        self.tally: Tally | None = None
        self.scale = 1.0

    def begin(self, scale: float) -> None:
        self.tally, self.scale = Tally(self.router.moe.n_routed_experts, self.router.weight.device), scale

    def after_router(self, router: Router, args: tuple[Tensor, ...], routing: Routing) -> Routing | None:
        """A forward hook."""
        if self.tally is None or not torch.is_grad_enabled():
            return None
        sequences = args[0].shape[0] if args[0].dim() == 3 else 1
        counts_se = _assignments(routing, sequences)
        capacity_e = self.capacity.of(routing.indices_nk.numel())
        if not recomputing():
            self._count(counts_se.sum(dim=0), capacity_e)
        scale = 1 / len(routing.indices_nk)
        loss, totals_n = load_loss(routing.scores_ne, self._coefficients(counts_se) * scale)
        z = z_loss(routing.logits_ne) if self.balance.router_z_loss else torch.zeros_like(loss)
        loss = loss + self.balance.router_z_loss * z
        if not recomputing():
            self._observe(routing, totals_n, loss.detach(), z.detach())
        return routing._replace(weights_nk=attach(routing.weights_nk, loss, self.scale), capacity_e=capacity_e)

    @torch.no_grad()
    def end(self, layer: int, bias_update: float) -> LayerLoad | None:
        tally, self.tally = self.tally, None
        if tally is None or not tally.tokens:
            return None
        if self.balance.bias_update_speed:  # in whole numbers: an even load is exactly even
            missing_e = tally.counts_e.sum() - tally.counts_e * len(tally.counts_e)
            speed = self.balance.bias_update_speed * bias_update
            self.router.e_score_correction_bias += speed * missing_e.sign()
        if self.capacity.config.mode == "dynamic":
            self.capacity.learn(tally.needed, load_fractions(tally.counts_e))
        return tally.report(layer, dropless=self.capacity.config.mode == "dropless")

    def _count(self, counts_e: Tensor, capacity_e: Tensor | None) -> None:
        tally = self.tally
        assert tally is not None
        tally.counts_e += counts_e
        if capacity_e is not None:
            tally.dropped += (counts_e - capacity_e).clamp(min=0).sum()
            tally.places += int(capacity_e.sum())
            tally.needed = torch.maximum(tally.needed, self.capacity.needed(counts_e))

    @torch.no_grad()
    def _observe(self, routing: Routing, totals_n: Tensor, loss: Tensor, z: Tensor) -> None:
        tally = self.tally
        assert tally is not None
        chosen_n = routing.scores_ne.gather(1, routing.indices_nk).sum(dim=1)
        tally.confidence += (chosen_n / totals_n).sum()
        tally.balance_loss += loss
        tally.router_z += z
        tally.tokens += len(totals_n)
        tally.micro_batches += 1

    def _coefficients(self, counts_se: Tensor) -> Tensor:
        """(s, e): what each expert's share of a token's scores costs, before the mean over tokens."""
        assert self.tally is not None
        balance = self.balance
        coefficients_se = balance.sequence_loss * load_fractions(counts_se)
        coefficients_se += balance.auxiliary_loss * load_fractions(counts_se.sum(dim=0))
        coefficients_se += balance.global_batch_loss * load_fractions(self.tally.counts_e)
        return coefficients_se


def _assignments(routing: Routing, sequences: int) -> Tensor:
    """How many tokens of each sequence chose each expert, (s, e)."""
    experts = routing.scores_ne.shape[1]
    indices_sa = routing.indices_nk.view(sequences, -1)
    first_s1 = torch.arange(0, sequences * experts, experts, device=indices_sa.device)[:, None]
    return (indices_sa + first_s1).flatten().bincount(minlength=sequences * experts).view(sequences, experts)


def _layer_of(name: str) -> int:
    """model.layers.3.mlp.gate -> 3"""
    return int(name.split(".layers.")[1].split(".")[0])
