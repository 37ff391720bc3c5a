"""Computes batches on the CPU: a batch becomes tables, and the plan runs over them in one compiled call."""

import numpy as np
from numpy.typing import NDArray

from deepseek.checkpoint.packed import PackedStore
from deepseek.config import ModelConfig
from deepseek.engine.batch import LOGIT_ROWS, Batch, StepCancelled, StepOutput
from deepseek.engine.decoder_plan import DecoderPlan, Pool, layer_cache_bytes
from deepseek.engine.plan_builder import PlanBuilder
from deepseek.engine.pooling import normed_rows
from deepseek.engine.routing_record import RoutingRecord
from deepseek.engine.step_tables import StepTables
from deepseek.errors import GenerationError
from deepseek.kernels.attention import BLOCK
from deepseek.kernels.plan import PRIVATE_ROWS, STATE_ROUND
from deepseek.kernels.team import Team, team_of
from deepseek.progress import Report, silent


class CpuRunner:
    """Implements `batch.Runner` for a packed store. Its KV memory is taken from the system as it is first used.

    threads: members of the process's team. kv_cache_bytes: for keys and values. max_model_len: tokens of one sequence.
    max_tokens_per_step: rows of a step. wide_activations: 16 bits instead of 8. routing: what records which experts
    each token used, off until it is started; None for a model without experts.
    """

    def __init__(
        self,
        store: PackedStore,
        *,
        threads: int,
        kv_cache_bytes: int,
        max_model_len: int,
        max_tokens_per_step: int,
        max_sequences: int,
        wide_activations: bool = False,
        report: Report = silent,
    ) -> None:
        config = store.config
        self.config: ModelConfig = config
        self.block_size = BLOCK
        self.max_tokens_per_step = max_tokens_per_step
        self.max_sequences = max_sequences
        self.max_model_len = max_model_len
        self.store = store
        self.activation_bits = 16 if wide_activations else 8
        self._team: Team = team_of(threads)
        builder = PlanBuilder(store, rows=max_tokens_per_step, threads=threads, wide=wide_activations, report=report)
        layer_bytes, layers = layer_cache_bytes(config), config.num_hidden_layers
        self.n_blocks = max(1, kv_cache_bytes // (layer_bytes * layers))
        self._pool = builder.memory.zeros(self.n_blocks * layer_bytes * layers, "uint8").reshape(self.n_blocks, -1)
        pool = Pool(
            int(self._pool.ctypes.data), layer_bytes * layers, tuple(layer_bytes * layer for layer in range(layers))
        )
        self._tables = StepTables(
            builder.memory,
            builder.state,
            rows=max_tokens_per_step,
            chunks=max_sequences,
            blocks=-(-max_model_len // BLOCK) + 1,
            logit_rows=max(max_sequences, LOGIT_ROWS),
            heads_a_group=config.num_attention_heads // config.num_key_value_heads,
            latent=config.mla is not None,
        )
        plan = DecoderPlan(builder, config, self._tables, pool, max_model_len=max_model_len)
        self.routing = RoutingRecord.of(config, max_tokens_per_step) if config.moe is not None else None
        plan.routing_record = self.routing
        plan.emit()
        self._choices = plan.choices
        self._job = builder.finish()
        self._logits = plan.logits.array[:, : config.vocab_size]
        self._hidden = plan.x.array[:, : config.hidden_size]
        self._memory = builder.memory

    @property
    def nbytes(self) -> int:
        """Memory set aside beside the weights: KV, buffers and tables."""
        return self._memory.nbytes

    @property
    def nbytes_a_block(self) -> int:
        """KV of block_size tokens, all layers."""
        return int(self._pool.shape[1])

    @property
    def weight_bytes(self) -> int:
        return int(self.store.data.nbytes)

    def run(self, batch: Batch) -> StepOutput:
        wanted = self._tables.fill(batch.chunks)
        rows = sum(chunk.count for chunk in batch.chunks)
        operations = len(self._job.table)
        if batch.steps > 1:
            self._choices.fill(batch.chunks)
        else:
            operations -= 1  # choosing is the caller's
        if self._team.run(self._job, shared=rows > PRIVATE_ROWS, rounds=batch.steps, rows=operations):
            raise StepCancelled
        if batch.steps == 1:
            return StepOutput(self._logits[:wanted], hidden=self._normed(rows) if batch.hidden else None)
        rounds = int(self._job.state[STATE_ROUND]) + 1
        tokens = [self._choices.tokens(row, rounds) for row in range(len(batch.chunks))]
        if any(token < 0 for row in tokens for token in row):
            raise GenerationError("the model's logits are not numbers: its weights are damaged (deepseek verify)")
        return StepOutput(self._logits[:0], tokens)

    def _normed(self, rows: int) -> NDArray[np.float32]:
        """The last step's hidden states after the final norm."""
        norm = self.store.tensors["model.norm.weight"]
        weight = self.store.data[norm.offset : norm.offset + 4 * norm.inputs].view(np.float32)
        return normed_rows(self._hidden[:rows], weight, self.config.rms_norm_eps)

    def copy_block(self, source: int, target: int) -> None:
        self._pool[target] = self._pool[source]

    def cancel(self) -> None:
        self._team.cancel()

    def close(self) -> None:
        """The team stays: other engines of the process use it."""
