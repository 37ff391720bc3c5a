"""From a recipe to numbers: the model's configuration and what each stage of the run does."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from deepseek.config import ModelConfig, RopeConfig
from deepseek.errors import ConfigError
from deepseek.optim.schedule import Schedule
from deepseek.training.recipe import Recipe, RopeTable, StageTable
from deepseek.training.size import DerivedTraining, derived_config, derived_training
from deepseek.training.tables import build


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """start, stop: its steps in the run. start_tokens: trained before it. config: the model as this stage sees it."""

    name: str
    start: int
    stop: int
    start_tokens: int
    sequence_length: int
    batch_size: int
    micro_batch_size: int
    learning_rate: float
    schedule: Schedule
    config: ModelConfig
    needles: float

    @property
    def tokens_per_step(self) -> int:
        return self.batch_size * self.sequence_length

    @property
    def micro_batches(self) -> int:
        return self.batch_size // self.micro_batch_size

    @property
    def first_batch(self) -> int:
        """Where in the data it begins: what earlier stages took is not taken again."""
        return math.ceil(self.start_tokens / self.tokens_per_step)

    def learning_rate_at(self, step: int) -> float:
        return self.learning_rate * self.schedule.factor(step - self.start)

    def fall_at(self, step: int) -> float:
        """1 until the learning rate falls, then what is left of it."""
        return self.schedule.fall(step - self.start)


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    stages: tuple[Stage, ...]

    @property
    def steps(self) -> int:
        return self.stages[-1].stop

    @property
    def tokens(self) -> int:
        return self.tokens_after(self.steps)

    @property
    def config(self) -> ModelConfig:
        """At the start of the run."""
        return self.stages[0].config

    def stage_at(self, step: int) -> Stage:
        """The stage that step (from 0) belongs to; the last one when the run is over."""
        return next((stage for stage in self.stages if step < stage.stop), self.stages[-1])

    def tokens_after(self, steps: int) -> int:
        stage = self.stage_at(max(0, steps - 1))
        return stage.start_tokens + (steps - stage.start) * stage.tokens_per_step


def make_plan(recipe: Recipe, vocab_size: int, *, start: ModelConfig | None = None) -> Plan:
    """vocab_size: of the data's tokenizer. start: of the checkpoint that `model.start_from` names."""
    config = _config(recipe, vocab_size) if start is None else _changed(start, recipe.model.config)
    if config.vocab_size < vocab_size:
        raise ConfigError(
            f"the model has a vocabulary of {config.vocab_size:,} (model.config.vocab_size), the data's tokenizer "
            f"{vocab_size:,}: prepare the data with the model's tokenizer"
        )
    derived = derived_training(config, _tokens(recipe.stage))
    stages = [_stage(recipe.stage, config, derived, start=0, start_tokens=0)]
    for table in recipe.stages:
        before = stages[-1]
        tokens = before.start_tokens + (before.stop - before.start) * before.tokens_per_step
        stages.append(_stage(table, before.config, derived, start=before.stop, start_tokens=tokens))
    plan = Plan(stages=tuple(stages))
    for name, step in recipe.checkpoints.named.items():
        if step > plan.steps:
            raise ConfigError(f"checkpoints.named.{name} is step {step}, but the run has {plan.steps}")
    return plan


def _config(recipe: Recipe, vocab_size: int) -> ModelConfig:
    model = recipe.model
    assert model.size is not None
    config = derived_config(model.size, model.kind, vocab_size=vocab_size, context=recipe.stage.sequence_length)
    return _changed(config, model.config)


def _changed(config: ModelConfig, changes: Mapping[str, Any]) -> ModelConfig:
    values = asdict(config)
    for key, value in changes.items():
        if isinstance(values.get(key), dict):
            if not isinstance(value, Mapping):
                raise ConfigError(
                    f"model.config.{key} must be a table of keys and values, not {value!r:.60}; set one of its keys, "
                    f"such as model.config.{key}.{next(iter(values[key]))}"
                )
            values[key] |= value
        else:
            values[key] = value
    return build(ModelConfig, values, "model.config")


def _tokens(table: StageTable) -> int | None:
    if table.steps is None or table.batch_size is None:
        return table.tokens
    return table.steps * table.batch_size * table.sequence_length


def _stage(table: StageTable, config: ModelConfig, derived: DerivedTraining, *, start: int, start_tokens: int) -> Stage:
    length = table.sequence_length
    batch = table.batch_size or max(1, round(derived.batch_tokens / length))
    micro = table.micro_batch_size or _divisor(batch, max(1, 4096 // length))
    if batch % micro:
        raise ConfigError(f"stage {table.name}: batch_size ({batch}) must be a multiple of micro_batch_size ({micro})")
    steps = table.steps or math.ceil((table.tokens or derived.tokens) / (batch * length))
    schedule = Schedule(
        steps=steps,
        name=table.schedule.name,
        warmup_steps=round(steps * table.schedule.warmup_fraction),
        decay_fraction=table.schedule.decay_fraction,
        final_fraction=table.schedule.final_fraction,
    )
    return Stage(
        name=table.name,
        start=start,
        stop=start + steps,
        start_tokens=start_tokens,
        sequence_length=length,
        batch_size=batch,
        micro_batch_size=micro,
        learning_rate=table.learning_rate or derived.learning_rate,
        schedule=schedule,
        config=_with_context(config, table.rope, length),
        needles=table.needles,
    )


def _divisor(of: int, most: int) -> int:
    return next(value for value in range(min(of, most), 0, -1) if of % value == 0)


def _with_context(config: ModelConfig, rope: RopeTable, length: int) -> ModelConfig:
    """Positions changed as a stage asks, and room for its sequences."""
    context = max(config.max_position_embeddings, length)
    changed: RopeConfig = config.rope
    if rope.theta is not None:
        changed = replace(changed, theta=rope.theta)
    if rope.yarn_factor is not None:
        if changed.scaling != "none":
            raise ConfigError(f"rope.yarn_factor: the model's positions are already scaled ({changed.scaling})")
        # mscale_all_dim 1 and mscale 1 leave cos and sin as they are and put YaRN's temperature into the softmax,
        # which is how every DeepSeek release says it.
        original = config.max_position_embeddings
        changed = replace(
            changed,
            scaling="yarn",
            factor=rope.yarn_factor,
            original_max_position_embeddings=original,
            mscale=1.0 if config.mla else None,
            mscale_all_dim=1.0 if config.mla else None,
        )
        context = max(context, round(original * rope.yarn_factor))
    return replace(config, rope=changed, max_position_embeddings=context)
