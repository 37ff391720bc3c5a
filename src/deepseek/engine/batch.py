"""What the scheduler asks of the runner in one step, and what comes back. Everything here is plain data."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from deepseek.config import ModelConfig
    from deepseek.engine.routing_record import RoutingRecord
    from deepseek.engine.sequence import Sequence

LogitsWanted = Literal["none", "last", "all"]
LOGIT_ROWS = 64
"""A batch asks for at most max(runner.max_sequences, LOGIT_ROWS) rows of logits."""


@dataclass(slots=True)
class Chunk:
    """Tokens [start, start + count) of a sequence, computed in this step.

    The KV of [0, start) is in the sequence's blocks; there are blocks for every token computed, those of
    `Batch.steps` included. A chunk never crosses `sequence.n_prompt`: its tokens are all of one form. A sequence has at
    most one chunk in a batch. logits: rows wanted; "all": one for each token of the chunk.
    """

    sequence: "Sequence"
    start: int
    count: int
    logits: LogitsWanted


@dataclass(slots=True)
class Batch:
    """One step. steps > 1: every chunk is one generated token with logits "last" and a sampler that `is_simple`; the
    runner samples by itself and goes on, so token i of a chunk is computed at position start + i.

    hidden: the final hidden states are wanted too; steps is 1 then.
    """

    chunks: list[Chunk]
    steps: int = 1
    hidden: bool = False


@dataclass(slots=True)
class StepOutput:
    """logits: float32 (rows, vocabulary), rows in chunk order, a writable view that is valid until the next run.

    tokens: one list a chunk when steps > 1, of 1 to `steps` tokens (fewer where the runner met an end token); then
    logits may have no rows.
    hidden: float32 (tokens, hidden_size) of all tokens of the step in chunk order, after the final norm, where
    `Batch.hidden` asks; valid until the next run.
    """

    logits: "NDArray[np.float32]"
    tokens: list[list[int]] | None = None
    hidden: "NDArray[np.float32] | None" = None


class StepCancelled(Exception):
    """`Runner.cancel` ended a step early: nothing it computed counts."""


class Runner(Protocol):
    """Computes batches. `run` is called by one thread at a time and releases the interpreter lock while it computes."""

    config: "ModelConfig"
    block_size: int
    n_blocks: int
    max_tokens_per_step: int
    max_sequences: int

    @property
    def nbytes_a_block(self) -> int:
        """KV of a block, all layers."""
        ...

    @property
    def weight_bytes(self) -> int:
        """Of the packed store, mapped into memory."""
        ...

    routing: "RoutingRecord | None"
    """Turned on, it holds which experts the rows of the last step used; None for a model without experts."""

    def run(self, batch: Batch) -> StepOutput:
        """Raises StepCancelled after `cancel`; anything else it raises fails the requests of the batch."""
        ...

    prediction_layers: int
    """How many tokens `predict` guesses; 0: it must not be called."""

    def predict(self, chunks: list[Chunk]) -> list[list[int]]:
        """Run all prediction layers over entries [start, start + count) of each chunk's sequence, between two runs.

        Entry i of layer d reads token i + 1 + d, which must be there, or for logits "last" (the chunk ends with the
        last computed token) be a guess of the layer before. Those chunks get a guess a layer, others none. Raises
        StepCancelled.
        """
        ...

    def copy_block(self, source: int, target: int) -> None:
        """Copy the KV of a block, all layers, and what else is kept of its tokens; between two runs."""
        ...

    def cancel(self) -> None:
        """End the step that is running; from any thread, and nothing happens if none is running."""
        ...

    def close(self) -> None:
        """Give memory and threads back. `run` is not called again."""
        ...
