"""What run.json says of a run: the recipe, the model, the machine."""

import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from deepseek import __version__
from deepseek.families.sizes import model_size
from deepseek.training.plan import Plan
from deepseek.training.recipe import Recipe


def run_facts(
    recipe: Recipe, plan: Plan, *, device: torch.device, matrix_peak: float, started: str | None
) -> dict[str, Any]:
    """matrix_peak: FLOP/s, see `flops`. started: of the run, if it is resumed."""
    size = model_size(plan.config)
    return {
        "recipe": recipe.to_dict(),
        "config": plan.config.to_dict(),
        "parameters": size.total,
        "active_parameters": size.active,
        "prediction_parameters": size.mtp,
        "started": started or datetime.now(UTC).isoformat(timespec="seconds"),
        "steps": plan.steps,
        "tokens": plan.tokens,
        "stages": [
            {"name": stage.name, "start": stage.start, "stop": stage.stop, "sequence_length": stage.sequence_length}
            for stage in plan.stages
        ],
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "device": str(device),
            "threads": torch.get_num_threads(),
            "matrix_peak": matrix_peak,
            "torch": torch.__version__,
            "deepseek": __version__,
        },
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
