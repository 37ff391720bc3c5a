"""A short distillation: the carved model learns to predict what the dense one predicts, and nothing else.

The loss is the Kullback-Leibler divergence between the two models' distributions of the next token; the text's own next
token is never looked at. Everything but embedding and head learns, by AdamW; matrices by Muon if asked.

Shape suffixes: b windows of a batch, t tokens, n tokens of a batch, m model size, v vocabulary.
"""

import contextlib
import json
import math
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deepseek.checkpoint.atomic import atomic_file
from deepseek.errors import CheckpointError, ConfigError, DeepseekError
from deepseek.models.decoder import Model
from deepseek.models.device import fast_dtype
from deepseek.models.tensor_files import read_all, write_tensors
from deepseek.optim import Muon
from deepseek.progress import Report, silent
from deepseek.training.carve.step_clock import StepClock
from deepseek.training.carve.text import held_out_count

STATE, LOG = "distillation.safetensors", "distillation.jsonl"
_OPTIMIZER = "~"  # begins the names of an optimizer's tensors; no parameter's name begins so
_CHUNK = 512  # tokens whose logits are held at a time


@dataclass(frozen=True, kw_only=True, slots=True)
class DistilConfig:
    """minutes: of computing; a stop of the machine does not count. The learning rate falls to a tenth by their end.

    optimizer: of matrices, "muon" or "adamw". batch: windows a step. router_learning_rate: of routers and norms.
    save_minutes: between two saved states. Defaults: what `benchmarks/distillation.py` found best (decision 019).
    """

    minutes: float
    optimizer: str = "adamw"
    batch: int = 4
    learning_rate: float = 1e-4
    router_learning_rate: float = 1e-4
    warm_up: float = 0.03
    save_minutes: float = 3.0

    def __post_init__(self) -> None:
        for name in ("minutes", "batch", "learning_rate", "router_learning_rate", "save_minutes"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be above 0, not {getattr(self, name)}")
        if self.optimizer not in ("muon", "adamw"):
            raise ConfigError(f"optimizer must be muon or adamw, not {self.optimizer!r}")

    def rate_at(self, done: float) -> float:
        """The factor of the learning rate when the share `done` of the minutes is over: warm-up, then a cosine."""
        if done < self.warm_up:
            return done / self.warm_up + 0.01
        over = min(1.0, (done - self.warm_up) / (1 - self.warm_up))
        return 0.1 + 0.45 * (1 + math.cos(math.pi * over))


class Distillation:
    """Resumable: given the same folder and arguments again, it goes on from the last saved state."""

    def __init__(
        self,
        student: Model,
        teacher: Model,
        windows_wt: Tensor,
        config: DistilConfig,
        folder: Path | None = None,
        *,
        calibrated: int = 0,
    ) -> None:
        """student: a carved model in float32, see `Carving`. windows: text, taken in order and from the start again.

        calibrated: so many windows from the start were carved on. On those the student is better than elsewhere, so
        they come last.
        """
        self.student, self.teacher = student, teacher.eval()
        self.config, self.folder, self.calibrated = config, folder, calibrated
        held_out = held_out_count(windows_wt)
        self.windows_wt, self.held_out_wt = windows_wt.tensor_split([len(windows_wt) - held_out])
        self.step, self.clock = 0, StepClock()
        for parameter in teacher.parameters():
            parameter.requires_grad_(False)
        self.optimizers = _optimizers(student, config)

    def run(self, report: Report = silent) -> dict[str, Any]:
        """Distil until the minutes are over. What was done: steps, tokens, seconds, divergence before and after."""
        self._resume()
        total, saved = self.config.minutes * 60, self.clock.seconds
        if self.step == 0:
            self._log(divergence=None)
        while self.clock.seconds < total:
            divergence = self._train_step()
            report("distilling", round(self.clock.seconds), round(total), "seconds")
            if self.clock.seconds - saved >= 60 * self.config.save_minutes:
                saved = self.clock.seconds
                self._log(divergence)
                self._save()
        entry = self._log(divergence=None)
        self._save()
        report("distilling", round(total), round(total), "seconds")
        return entry

    def _train_step(self) -> float:
        begun = time.monotonic()
        factor = self.config.rate_at(self.clock.seconds / (60 * self.config.minutes))
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["full_lr"] * factor
        self.student.train()
        divergence = divergence_and_gradient(self.student, self.teacher, self._batch())
        if not math.isfinite(divergence):
            raise DeepseekError(
                f"distillation diverged at step {self.step}: lower the learning rate ({self.config.learning_rate}) "
                "and start again from an empty folder"
            )
        nn.utils.clip_grad_norm_([p for p in self.student.parameters() if p.grad is not None], 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.student.eval()
        self.step += 1
        self.clock.add(time.monotonic() - begun)
        return divergence

    def _batch(self) -> Tensor:
        count = len(self.windows_wt)
        begin = self.calibrated + self.step * self.config.batch
        rows = [(begin + row) % count for row in range(self.config.batch)]
        return self.windows_wt[rows]

    def _log(self, divergence: float | None) -> dict[str, Any]:
        entry = {
            "step": self.step,
            "tokens": self.step * self.config.batch * self.windows_wt.shape[1],
            "seconds": round(self.clock.seconds, 1),
            "divergence": divergence,
            "held_out_divergence": held_out_divergence(self.student, self.teacher, self.held_out_wt),
        }
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / LOG).open("a") as log:
                log.write(json.dumps(entry) + "\n")
        return entry

    def _save(self) -> None:
        if self.folder is None:
            return
        values = {"settings": self._settings(), "step": self.step, "seconds": self.clock.seconds}
        with atomic_file(self.folder / STATE) as file:
            write_tensors(file, {**self.student.state_dict(), **self._optimizer_tensors()}, values)

    def _resume(self) -> None:
        """Raises ConfigError for a state of other settings, CheckpointError for a damaged one."""
        if self.folder is None or not (self.folder / STATE).exists():
            return
        try:
            tensors, values = read_all(self.folder / STATE)
        except CheckpointError as error:
            raise CheckpointError(f"{error}; remove {self.folder} to begin the distillation again") from None
        if values["settings"] != self._settings():
            raise ConfigError(
                f"{self.folder} holds a distillation of other settings ({values['settings']}); "
                "give those again, or remove the folder"
            )
        self.student.load_state_dict({name: tensor for name, tensor in tensors.items() if name[0] != _OPTIMIZER})
        for number, optimizer in enumerate(self.optimizers):
            state: dict[int, dict[str, Tensor]] = defaultdict(dict)
            for name, tensor in tensors.items():
                if name.startswith(f"{_OPTIMIZER}{number}."):
                    _, place, kind = name.split(".")
                    state[int(place)][kind] = tensor
            optimizer.load_state_dict({**optimizer.state_dict(), "state": dict(state)})
        self.step, self.clock = values["step"], StepClock(values["seconds"])

    def _optimizer_tensors(self) -> dict[str, Tensor]:
        """By the optimizer's number, the parameter's place in it and the kind of state."""
        return {
            f"{_OPTIMIZER}{number}.{place}.{kind}": tensor
            for number, optimizer in enumerate(self.optimizers)
            for place, kinds in optimizer.state_dict()["state"].items()
            for kind, tensor in kinds.items()
        }

    def _settings(self) -> dict[str, Any]:
        shapes = {name: list(tensor.shape) for name, tensor in self.student.state_dict().items()}
        active = [module.active for module in self.student.modules() if hasattr(module, "active")]
        text = {"windows": len(self.windows_wt), "calibrated": self.calibrated}
        return {**asdict(self.config), **text, "active": active, "weights": str(shapes)}


def _optimizers(student: Model, config: DistilConfig) -> list[torch.optim.Optimizer]:
    matrices, others = [], []
    for name, parameter in student.named_parameters():
        if name.startswith(("model.embed_tokens", "lm_head")):
            parameter.requires_grad_(False)
        elif parameter.dim() == 2 and ".router." not in name:
            matrices.append(parameter)
        else:
            others.append(parameter)

    def adamw(parameters: list[nn.Parameter], rate: float) -> torch.optim.Optimizer:
        return torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.98), eps=1e-12, weight_decay=0.0, fused=True)

    optimizers = [adamw(others, config.router_learning_rate)]
    if config.optimizer == "muon":
        optimizers.append(Muon(matrices, lr=config.learning_rate, weight_decay=0.0, momentum=0.9))
    else:
        optimizers.append(adamw(matrices, config.learning_rate))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["full_lr"] = group["lr"]
    return optimizers


def _fast(device: torch.device) -> torch.autocast:
    """Products in the type that the device multiplies fastest."""
    dtype = fast_dtype(device)
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


@torch.enable_grad()
def divergence_and_gradient(student: Model, teacher: Model, ids_bt: Tensor) -> float:
    """Mean divergence of a token in nats; its gradient is added to the student's parameters.

    The head's logits exist for a few hundred tokens at a time, and their gradient is written out: it is the difference
    of the two distributions.
    """
    with _fast(ids_bt.device):
        with torch.no_grad():
            wanted_nm = teacher(ids_bt, keep_logits=1).last_hidden_btm.flatten(0, 1)
        hidden_btm = student(ids_bt, keep_logits=1).last_hidden_btm
        hidden_nm = hidden_btm.detach().flatten(0, 1)
        tokens, total, gradients = len(hidden_nm), 0.0, []
        with torch.no_grad():
            for divergence_n, gradient_nm in _chunks(student, teacher, hidden_nm, wanted_nm):
                total += float(divergence_n.sum())
                gradients.append(gradient_nm.float() / tokens)
    hidden_btm.backward(torch.cat(gradients).view_as(hidden_btm).to(hidden_btm.dtype))
    return total / tokens


@torch.no_grad()
def held_out_divergence(student: Model, teacher: Model, windows_wt: Tensor, *, float32: bool = False) -> float | None:
    """Mean divergence of a token over held-out windows; None if there are none. float32: whatever is fastest here."""
    if not len(windows_wt):
        return None
    total = 0.0
    with contextlib.nullcontext() if float32 else _fast(windows_wt.device):
        for ids_bt in torch.split(windows_wt, 4):
            hidden, wanted = (
                model(ids_bt, keep_logits=1).last_hidden_btm.flatten(0, 1) for model in (student, teacher)
            )
            total += sum(float(part.sum()) for part, _ in _chunks(student, teacher, hidden, wanted))
    return total / windows_wt.numel()


def _chunks(student: Model, teacher: Model, hidden_nm: Tensor, wanted_nm: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """For a few tokens at a time: the divergence of each, and its gradient by the student's hidden state."""
    weight_vm = student.model.embed_tokens.weight if student.lm_head is None else student.lm_head.weight
    for hidden, wanted in zip(torch.split(hidden_nm, _CHUNK), torch.split(wanted_nm, _CHUNK), strict=True):
        log_s = student.head(hidden).float().log_softmax(dim=-1)
        log_t = teacher.head(wanted).float().log_softmax(dim=-1)
        p_t = log_t.exp()
        divergence_n = (p_t * (log_t - log_s)).sum(dim=-1)
        yield divergence_n, torch.mm(log_s.exp_().sub_(p_t), weight_vm)
