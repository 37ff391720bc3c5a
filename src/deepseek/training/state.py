"""All that changes while a run trains: weights, optimisers, balance, loss scale, random numbers."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deepseek.checkpoint.checkpoint import open_checkpoint
from deepseek.config import ModelConfig
from deepseek.models.auto import AutoModel
from deepseek.models.decoder import Model
from deepseek.models.device import choose_device
from deepseek.models.loading import fill, load
from deepseek.models.tensor_files import read_tensors
from deepseek.models.weights import canonical_tensors, shared_with
from deepseek.optim.adamw import AdamW
from deepseek.optim.fp8 import Fp8Training
from deepseek.optim.groups import weight_kinds
from deepseek.optim.loss_scale import LossScale
from deepseek.optim.master_weights import MasterWeightOptimizer
from deepseek.optim.muon import Muon
from deepseek.training.balance import RoutingTraining
from deepseek.training.checkpoints import OPTIMISER, random_state, restore_random_state
from deepseek.training.recipe import OptimizerTable, Recipe

DTYPES = {
    "bfloat16": torch.bfloat16,
    "fp8": torch.bfloat16,  # what FP8 products are emulated in
    "float16": torch.float16,
    "float32": torch.float32,
}
_BALANCE = "balance:"


class TrainingState:
    """The model of a stage and everything that is kept between its steps; new ones are as at the start of a run."""

    def __init__(self, recipe: Recipe, config: ModelConfig, *, accumulates: bool) -> None:
        """accumulates: gradients are summed over micro-batches, which is done in float32."""
        torch.manual_seed(recipe.seed)
        self.model = _first_model(recipe, config, choose_device(recipe.training.device))
        layers = recipe.training.gradient_checkpointing_layers
        self.model.gradient_checkpointing = recipe.training.gradient_checkpointing if layers is None else layers
        self.model.offload_checkpoints = recipe.training.offload_checkpoints
        if accumulates:
            for parameter in self.model.parameters():
                parameter.grad_dtype = torch.float32
        self.optimizers = _optimizers(self.model, recipe.optimizer)
        self.routing = RoutingTraining(self.model, recipe.balance, recipe.capacity)
        is_float16 = recipe.training.precision == "float16"
        self.loss_scale = LossScale(recipe.optimizer.loss_scale if is_float16 else 1.0)
        self._fp8 = Fp8Training(self.model) if recipe.training.precision == "fp8" else None
        self._round_weights()

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds besides the model's weights, sharing memory, but for the balance: copies."""
        names: dict[Tensor, str] = {parameter: name for name, parameter in self.model.named_parameters()}
        found: dict[str, Tensor] = {}
        for optimizer in self.optimizers:
            found |= optimizer.state_tensors(names)
        return found | {_BALANCE + name: tensor for name, tensor in self.routing.state_dict().items()}

    def facts(self) -> dict[str, Any]:
        """What state.json holds of it."""
        return {"loss_scale": self.loss_scale.state_dict(), "random": random_state()}

    def restore(self, path: Path, facts: dict[str, Any]) -> None:
        """As it was when the checkpoint at `path` was saved. Raises CheckpointError."""
        fill_model(self.model, path)
        tensors = self.tensors()
        read_tensors(path / OPTIMISER, tensors)
        balance = {name.removeprefix(_BALANCE): tensor for name, tensor in tensors.items() if name.startswith(_BALANCE)}
        self.routing.load_state_dict(balance)
        self.loss_scale.load_state_dict(facts["loss_scale"])
        restore_random_state(facts["random"])

    def update(self, gradient_scale: float) -> None:
        """One step of all optimisers on the gradients that are there."""
        for optimizer in self.optimizers:
            optimizer.step(gradient_scale=gradient_scale)
        self._round_weights()

    def zero_grad(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    def _round_weights(self) -> None:
        if self._fp8 is not None:
            self._fp8.round_weights(self.optimizers)

    def set_learning_rate(self, value: float) -> None:
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = value

    def parameters(self) -> Iterator[Tensor]:
        return (parameter for parameter in self.model.parameters() if parameter.requires_grad)


def with_config(model: Model, config: ModelConfig) -> Model:
    """The same weights, shared, under another configuration that needs none else (positions, windows)."""
    with torch.device("meta"):
        other = Model(config)
    other.load_state_dict(model.state_dict(keep_vars=True), assign=True)
    return other.train(model.training)


def fill_model(model: Model, path: Path) -> None:
    """A checkpoint's weights into a model of the same shape. Positions may be configured otherwise."""
    targets = canonical_tensors(model)
    with open_checkpoint(path) as checkpoint:
        for name in checkpoint.names():
            if shared_with(model, name) is None:
                fill(targets[name], checkpoint.raw(name))


def _first_model(recipe: Recipe, config: ModelConfig, device: torch.device) -> Model:
    dtype = DTYPES[recipe.training.precision]
    table = recipe.model
    if table.start_from is None:
        model = AutoModel.from_config(config, dtype=dtype, seed=recipe.seed, std=table.initializer_std)
    else:
        from deepseek import hub

        path = hub.resolve(table.start_from).path
        with open_checkpoint(path, allow_unknown=table.allow_unknown_keys) as checkpoint:
            start = load(checkpoint, dtype=dtype, device=device)
        if config.num_nextn_predict_layers > start.config.num_nextn_predict_layers:
            start = _with_prediction_layers(start, config, recipe)
        model = with_config(start, config)
    return model.to(device).train()


def _with_prediction_layers(start: Model, config: ModelConfig, recipe: Recipe) -> Model:
    """`start` with the layers that it lacks, new: files that are given away often leave them out."""
    wanted = replace(start.config, num_nextn_predict_layers=config.num_nextn_predict_layers)
    grown = AutoModel.from_config(
        wanted, dtype=DTYPES[recipe.training.precision], seed=recipe.seed, std=recipe.model.initializer_std
    )
    grown.load_state_dict(start.state_dict(), strict=False)  # the new layers' weights are the only ones that miss
    return grown


def _optimizers(model: Model, table: OptimizerTable) -> tuple[MasterWeightOptimizer, ...]:
    """Weight decay is for matrices; norms and biases have none."""
    kinds = weight_kinds(model.named_parameters())
    options: dict[str, Any] = {"betas": (table.beta1, table.beta2), "eps": table.eps}
    vectors = {"params": list(kinds.vectors), "weight_decay": 0.0}
    if table.name == "adamw":
        matrices = {"params": [*kinds.tables, *kinds.matrices, *kinds.pairs], "weight_decay": table.weight_decay}
        return (AdamW(_filled(matrices, vectors), **options),)
    tables = {"params": list(kinds.tables), "weight_decay": table.weight_decay}
    hidden: list[dict[str, Any]] = [
        {"params": list(kinds.matrices)},
        {"params": list(kinds.pairs), "matrices_per_weight": 2},
    ]
    muon = Muon(_filled(*hidden), momentum=table.momentum, weight_decay=table.weight_decay)
    return muon, AdamW(_filled(tables, vectors), **options)


def _filled(*groups: dict[str, Any]) -> list[dict[str, Any]]:
    return [group for group in groups if group["params"]]
