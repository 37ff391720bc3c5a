"""A training run, described: frozen, validated tables read from a TOML file. Each default lives here and nowhere else.

Whatever a recipe does not say about the model's shape, the batch and the learning rate follows from `model.size` (see
`size`); what it says wins.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from deepseek.errors import ConfigError
from deepseek.optim.schedule import ScheduleName
from deepseek.training.balance import BalanceConfig, CapacityConfig
from deepseek.training.size import Kind
from deepseek.training.tables import build, plain

Precision = Literal["auto", "bfloat16", "float32", "float16", "fp8"]
OptimizerName = Literal["adamw", "muon"]
MAX_LEARNING_RATE = 1.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
LEAST_FOR_NEEDLES = 64  # tokens of a text, so that a needle and its repetition leave something between them


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ConfigError(message)


def _require_above_zero(owner: object, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        _require(value is None or value > 0, f"{name} must be above 0, not {value}")


@dataclass(frozen=True, kw_only=True, slots=True)
class DataTable:
    """Where the text is.

    recipe: of the data (see `deepseek data`), beside this file; prepared first if it is not yet.
    folder: where the prepared data is or goes; by default in the cache, one for each state of recipe and text.
    mixture: shares of the sources, in one stage or several by tokens; by default those that it was prepared with.
    """

    recipe: str | None = None
    folder: str | None = None
    mixture: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        _require(bool(self.recipe or self.folder), "recipe or folder: one of them must say where the data is")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelTable:
    """Which model is trained.

    size: million parameters of the mixture of experts; shape, batch and learning rate follow from it.
    kind: moe, or dense: a model of equal active parameters without experts.
    config: fields of ModelConfig (and its parts mla, moe, rope) that are not as derived from size, such as
    `moe.n_routed_experts`, `moe.num_experts_per_tok`, `num_hidden_layers`.
    start_from: a checkpoint whose weights and shape the run begins with, instead of size; MTP layers that `config` asks
    for and it lacks begin at random.
    initializer_std: of random weights.
    allow_unknown_keys: take `start_from` although its files ask for what this version does not compute.
    """

    size: float | None = None
    kind: Kind = "moe"
    config: Mapping[str, Any] = field(default_factory=dict)
    start_from: str | None = None
    initializer_std: float = 0.02
    allow_unknown_keys: bool = False

    def __post_init__(self) -> None:
        _require_above_zero(self, "size", "initializer_std")
        _require(
            (self.size is None) != (self.start_from is None),
            "size or start_from: exactly one of them must say which model is trained",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleTable:
    """How the learning rate changes; see `optim.schedule`.

    name: wsd stays at the peak and then falls; cosine falls all the time; constant stays.
    warmup_fraction: of the steps, in which the rate rises from 0.
    decay_fraction: of the steps, in which wsd falls at the end.
    final_fraction: of the peak, where the rate ends.
    """

    name: ScheduleName = "wsd"
    warmup_fraction: float = 0.02
    decay_fraction: float = 0.2
    final_fraction: float = 0.0

    def __post_init__(self) -> None:
        _require(0 <= self.warmup_fraction <= 1, f"warmup_fraction must be between 0 and 1, not {self.warmup_fraction}")


@dataclass(frozen=True, kw_only=True, slots=True)
class RopeTable:
    """Changes of the positions at the start of a stage.

    theta: another base of the rotary positions.
    yarn_factor: how far YaRN stretches the context.
    """

    theta: float | None = None
    yarn_factor: float | None = None

    def __post_init__(self) -> None:
        _require_above_zero(self, "theta", "yarn_factor")


@dataclass(frozen=True, kw_only=True, slots=True)
class StageTable:
    """Part of a run with one sequence length, one batch size and one schedule.

    name: of the stage, and of the checkpoint at its end.
    steps, tokens: how long it is, one of both; by default 20 tokens per active parameter (first stage only).
    sequence_length: tokens of a sequence.
    batch_size: sequences in one optimizer step; by default it follows from model.size.
    micro_batch_size: sequences through the model at once; the batch is accumulated from them in float32.
    learning_rate: the peak; by default it follows from model.size.
    schedule: a table, see its keys.
    rope: a table, see its keys.
    needles: share of the sequences in which something is planted to be copied from afar, so that a long context has a
    use.
    """

    name: str = "main"
    steps: int | None = None
    tokens: int | None = None
    sequence_length: int = 512
    batch_size: int | None = None
    micro_batch_size: int | None = None
    learning_rate: float | None = None
    schedule: ScheduleTable = ScheduleTable()
    rope: RopeTable = RopeTable()
    needles: float = 0.0

    def __post_init__(self) -> None:
        names = ("steps", "tokens", "sequence_length", "batch_size", "micro_batch_size", "learning_rate")
        _require_above_zero(self, *names)
        _require(0 <= self.needles <= 1, f"needles must be a share between 0 and 1, not {self.needles}")
        _require(
            not self.needles or self.sequence_length >= LEAST_FOR_NEEDLES,
            f"needles want a sequence_length of at least {LEAST_FOR_NEEDLES} tokens, not {self.sequence_length}",
        )
        _require(self.steps is None or self.tokens is None, "steps or tokens: only one can say how long the stage is")
        _require(self.name.replace("-", "").isalnum(), f"name must be letters, digits and hyphens, not {self.name!r}")
        _require(
            self.learning_rate is None or self.learning_rate <= MAX_LEARNING_RATE,
            f"learning_rate must be at most {MAX_LEARNING_RATE:g}, not {self.learning_rate}: no run survives more",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerTable:
    """What turns gradients into weights.

    name: adamw, or muon: hidden matrices by Muon, the rest by AdamW.
    beta1: decay of AdamW's mean of gradients.
    beta2: decay of AdamW's mean of squared gradients.
    eps: added to AdamW's denominator.
    weight_decay: of matrices; norms and biases have none.
    momentum: of Muon.
    clip_norm: of all gradients together; null: none.
    loss_scale: for float16; null: found by itself.
    """

    name: OptimizerName = "adamw"
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1
    momentum: float = 0.95
    clip_norm: float | None = 1.0
    loss_scale: float | None = None

    def __post_init__(self) -> None:
        _require_above_zero(self, "eps", "clip_norm", "loss_scale")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingTable:
    """What holds for the whole run.

    device: as PyTorch names it (cpu, cuda:0); auto: the accelerator if there is one.
    precision: of weights and products; float32 masters are kept for all but float32; fp8 is emulated; auto: bfloat16,
    but float32 on a CPU that would have to imitate it, and a run keeps what it began with.
    mtp_weight: of the MTP layers' loss.
    gradient_checkpointing: activations are computed again in the backward pass instead of kept.
    gradient_checkpointing_layers: only in these layers.
    offload_checkpoints: what gradient checkpointing keeps waits in the host's memory.
    load_every: steps between two records of every expert's load.
    max_rollbacks: how many batches may be skipped because something was not finite.
    tensorboard: write event files too.
    """

    device: str = "auto"
    precision: Precision = "auto"
    mtp_weight: float = 0.3
    gradient_checkpointing: bool = False
    gradient_checkpointing_layers: tuple[int, ...] | None = None
    offload_checkpoints: bool = False
    load_every: int = 10
    max_rollbacks: int = 3
    tensorboard: bool = False

    def __post_init__(self) -> None:
        _require_above_zero(self, "load_every")
        _require(self.mtp_weight >= 0, f"mtp_weight must not be negative, not {self.mtp_weight}")
        _require(self.max_rollbacks >= 0, f"max_rollbacks must not be negative, not {self.max_rollbacks}")


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationTable:
    """Held-out loss and samples of text during the run.

    every: steps between evaluations (there is always one at the end of a stage); null: only those.
    batches: of each source's held-out text.
    prompts: texts to continue, each time.
    sample_tokens: how many tokens each is continued by.
    temperature: of these samples.
    """

    every: int | None = 500
    batches: int = 8
    prompts: tuple[str, ...] = ()
    sample_tokens: int = 64
    temperature: float = 0.8

    def __post_init__(self) -> None:
        _require_above_zero(self, "every", "batches", "sample_tokens")
        _require(self.temperature >= 0, f"temperature must not be negative, not {self.temperature}")


@dataclass(frozen=True, kw_only=True, slots=True)
class NeedleTable:
    """Needles looked for at the start of the run and at the end of each stage; see `needle`.

    lengths: of the whole text, in tokens; none: no needles are looked for.
    depths: places of the needle, 0 the beginning.
    trials: at each length and depth.
    window: the same weights are also measured as a model that sees so many tokens back; null: not.
    """

    lengths: tuple[int, ...] = ()
    depths: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75)
    trials: int = 2
    window: int | None = None

    def __post_init__(self) -> None:
        _require(
            all(length >= LEAST_FOR_NEEDLES for length in self.lengths),
            f"lengths must be at least {LEAST_FOR_NEEDLES} tokens each",
        )
        _require(bool(self.depths), "depths must name at least one place")
        _require(all(0 <= depth <= 1 for depth in self.depths), "depths must be between 0 and 1")
        _require_above_zero(self, "trials", "window")


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointsTable:
    """When the run is saved.

    every: steps between checkpoints.
    minutes: and at the latest after so long.
    keep: the newest so many stay.
    named: name = step; that checkpoint also stays under its name, as the end of each stage does under the stage's.
    """

    every: int = 500
    minutes: float = 15.0
    keep: int = 2
    named: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _require_above_zero(self, "every", "minutes", "keep")
        for name, step in self.named.items():
            plain_name = name.replace("-", "").isalnum() and not name.startswith("step-")
            _require(plain_name, f"named: {name!r} must be letters, digits and hyphens and not begin with step-")
            _require(isinstance(step, int) and step > 0, f"named.{name} must be a step, not {step!r}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """A whole run.

    name: of the run; its folder is runs/NAME.
    data: a table, see its keys.
    model: a table, see its keys.
    seed: of weights and order of the data.
    stage: the first stage, a table, see its keys.
    stages: those after it, each with the keys of stage.
    training: a table, see its keys.
    optimizer: a table, see its keys.
    balance: a table, see its keys.
    capacity: a table, see its keys.
    evaluation: a table, see its keys.
    needle: a table, see its keys.
    checkpoints: a table, see its keys.
    """

    name: str
    data: DataTable
    model: ModelTable
    seed: int = 0
    stage: StageTable = StageTable()
    stages: tuple[StageTable, ...] = ()
    training: TrainingTable = TrainingTable()
    optimizer: OptimizerTable = OptimizerTable()
    balance: BalanceConfig = field(default_factory=BalanceConfig)
    capacity: CapacityConfig = field(default_factory=CapacityConfig)
    evaluation: EvaluationTable = EvaluationTable()
    needle: NeedleTable = NeedleTable()
    checkpoints: CheckpointsTable = CheckpointsTable()

    def __post_init__(self) -> None:
        _require(
            _NAME.fullmatch(self.name) is not None and ".." not in self.name,
            f"name must be letters, digits, dots, hyphens and underscores (it names a folder), not {self.name!r}",
        )
        names = [stage.name for stage in (self.stage, *self.stages)]
        _require(len(set(names)) == len(names), f"stages need names of their own, not {', '.join(names)}")
        for stage in self.stages:
            _require(
                stage.steps is not None or stage.tokens is not None,
                f"stages: {stage.name} needs steps or tokens",
            )

    def to_dict(self) -> dict[str, Any]:
        """As `from_dict` takes it."""
        values: dict[str, Any] = plain(self)
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Recipe":
        """Raises ConfigError naming the key that is unknown, missing or wrong."""
        return build(cls, values, "")

    def differences(self, before: Mapping[str, Any]) -> list[str]:
        """What differs in numbers from another recipe, as `stage.steps: 300 -> 200`. before: of `to_dict`."""
        was, now = (_flat({k: v for k, v in r.items() if k not in WITHOUT_EFFECT}) for r in (before, self.to_dict()))
        keys = [key for key in {**was, **now} if was.get(key) != now.get(key)]
        return [f"{key}: {_brief(was.get(key))} -> {_brief(now.get(key))}" for key in keys]

    def fingerprint(self) -> str:
        """Of all that numbers depend on: a checkpoint of another fingerprint is not this run's."""
        values = {key: value for key, value in self.to_dict().items() if key not in WITHOUT_EFFECT}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


WITHOUT_EFFECT = ("evaluation", "needle", "checkpoints")  # tables that may change when a run is resumed


def _flat(values: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{where}{key}.")
        else:
            found[where + key] = value
    return found


def _brief(value: Any) -> str:
    return "by default" if value is None else json.dumps(value, ensure_ascii=False)[:80]
