"""Which means keep the experts of a model balanced."""

import math
from dataclasses import dataclass, fields

from deepseek.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class BalanceConfig:
    """Strengths of the balance terms, which may be combined; 0 turns one off. The defaults are V3's (section 4.2).

    bias_update_speed: loss-free balancing (arXiv 2408.15664): how far an expert's bias moves at each step, in a run
    less and less as the learning rate falls.
    sequence_loss: V3's complementary loss over each sequence.
    auxiliary_loss: Switch's and V2's, over a micro-batch.
    global_batch_loss: the same over all micro-batches of a step so far (Qwen, arXiv 2501.11873).
    router_z_loss: on the size of the router's logits (ST-MoE, arXiv 2202.08906).
    """

    bias_update_speed: float = 0.001
    sequence_loss: float = 0.0001
    auxiliary_loss: float = 0.0
    global_batch_loss: float = 0.0
    router_z_loss: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not math.isfinite(value) or value < 0:
                raise ConfigError(f"{field.name} must be a number of at least 0, not {value!r}")
