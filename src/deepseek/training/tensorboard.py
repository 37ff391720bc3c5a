"""The numbers of a run as TensorBoard event files, beside the logs that the run keeps anyway."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deepseek.errors import ConfigError


class TensorBoard:
    """Raises ConfigError without the `tensorboard` package. step: what comes after it in older files is void."""

    def __init__(self, folder: Path, step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ConfigError(
                "training.tensorboard is asked for, but the package is missing: pip install "
                "'deepseek-framework[tensorboard]', or set training.tensorboard to false"
            ) from None
        self._writer: Any = SummaryWriter(str(folder), purge_step=step + 1)

    def step(self, record: Mapping[str, Any]) -> None:
        """A line of log.jsonl: every number, and the balance of each layer where it is told."""
        step = record["step"]
        for name, value in record.items():
            if isinstance(value, int | float) and name != "step":
                self._writer.add_scalar(f"training/{name}", value, step)
        for load in record.get("layers", ()):
            for name in ("max_violation", "entropy", "dropped"):
                self._writer.add_scalar(f"layer {load['layer']}/{name}", load[name], step)

    def evaluation(self, step: int, losses: Mapping[str, float]) -> None:
        for source, loss in losses.items():
            self._writer.add_scalar(f"held out/{source}", loss, step)

    def sample(self, step: int, prompt: str, text: str) -> None:
        self._writer.add_text(prompt, f"{prompt}**{text}**", step)

    def close(self) -> None:
        self._writer.close()
