"""What a step needs to choose tokens by itself, so that several decode steps run in one call."""

from collections.abc import Sequence as Items
from typing import TYPE_CHECKING

import numpy as np

from deepseek.engine.batch import Chunk
from deepseek.engine.plan_builder import PlanBuilder
from deepseek.kernels import decoding as op
from deepseek.kernels.selection import scratch_size

if TYPE_CHECKING:
    from deepseek.engine.decoder_plan import DecoderPlan

MOST_ROUNDS = 64
_ENDS_A_ROW = 64


class Choices:
    """Tables of the last operation of a plan. rows: of logits at most."""

    def __init__(self, builder: PlanBuilder, *, rows: int) -> None:
        memory = builder.memory
        self._whole = memory.zeros(rows * op.CHOICE_FIELDS, "int64").reshape(rows, op.CHOICE_FIELDS)
        self._real = self._whole.view(np.float64)
        self._ends = memory.zeros(rows * _ENDS_A_ROW, "int32")
        self._chosen = memory.zeros(rows * MOST_ROUNDS, "int32").reshape(MOST_ROUNDS, rows)

    def emit(self, plan: "DecoderPlan") -> None:
        builder, tables, vocabulary = plan.builder, plan.tables, plan.config.vocab_size
        scratch_bytes = -(-8 * scratch_size(vocabulary) // 64) * 64
        builder.add(
            op.choose_and_go_on,
            {
                op.LOGITS: plan.logits.address,
                op.LOGIT_STRIDE: plan.logits.stride,
                op.VOCABULARY: vocabulary,
                op.CHOICES: int(self._whole.ctypes.data),
                op.ENDS: int(self._ends.ctypes.data),
                op.CHOSEN: int(self._chosen.ctypes.data),
                op.CHOSEN_STRIDE: self._chosen.strides[0],
                op.TOKENS: int(tables.tokens.ctypes.data),
                op.POSITIONS: int(tables.positions.ctypes.data),
                op.SCRATCH: builder.scratch(scratch_bytes),
                op.SCRATCH_BYTES: scratch_bytes,
            },
        )

    def fill(self, chunks: Items[Chunk]) -> None:
        """Before a step of several rounds: how each chunk's sampler chooses, and which tokens end it."""
        end = 0
        for row, chunk in enumerate(chunks):
            sampler, begin = chunk.sequence.sampler, end
            params = sampler.params
            ends = sorted(chunk.sequence.request.ends)[:_ENDS_A_ROW]
            end += len(ends)
            self._ends[begin:end] = ends
            self._real[row, op.TEMPERATURE] = params.temperature
            self._real[row, op.TOP_P], self._real[row, op.MIN_P] = params.top_p, params.min_p
            self._whole[row, op.TOP_K] = params.top_k
            self._whole[row, op.SEED], self._whole[row, op.SAMPLE] = sampler.seed, sampler.index
            self._whole[row, op.DRAW] = sampler.draw_number
            self._whole[row, op.ENDS_FROM], self._whole[row, op.ENDS_TO] = begin, end

    def tokens(self, row: int, rounds: int) -> list[int]:
        """What row `row` chose, up to its end or to the first place where nothing could be chosen (negative)."""
        chosen: list[int] = self._chosen[:rounds, row].tolist()
        begin, end = self._whole[row, op.ENDS_FROM], self._whole[row, op.ENDS_TO]
        ends = set(self._ends[begin:end].tolist())
        last = next((place for place, token in enumerate(chosen) if token < 0 or token in ends), rounds - 1)
        return chosen[: last + 1]
