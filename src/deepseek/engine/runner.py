"""Computes batches on the CPU: a batch becomes tables, and the plan runs over them in one compiled call."""

import numpy as np
from numpy.typing import NDArray

from deepseek.checkpoint.packed import PackedStore
from deepseek.config import ModelConfig
from deepseek.engine.batch import LOGIT_ROWS, Batch, Chunk, StepCancelled, StepOutput
from deepseek.engine.decoder_plan import DecoderPlan, Pool, layer_cache_bytes
from deepseek.engine.plan_builder import PlanBuilder
from deepseek.engine.pooling import normed_rows
from deepseek.engine.prediction_plan import HiddenStates, emit_prediction_layers, hidden_cache_bytes
from deepseek.engine.routing_record import RoutingRecord
from deepseek.engine.step_tables import StepTables
from deepseek.errors import GenerationError
from deepseek.kernels.attention_store import BLOCK
from deepseek.kernels.plan import PRIVATE_ROWS, STATE_ROUND
from deepseek.kernels.team import Team, team_of
from deepseek.progress import Report, silent


def block_bytes(config: ModelConfig, code_bytes: int, *, predicts: bool = False) -> int:
    """What BLOCK tokens keep in the cache: KV of all layers; predicts: of prediction layers and what these read too.

    code_bytes: of a cached number.
    """
    layers, bytes_a_layer = config.num_hidden_layers, layer_cache_bytes(config, code_bytes)
    if not predicts:
        return bytes_a_layer * layers
    return bytes_a_layer * (layers + config.num_nextn_predict_layers) + hidden_cache_bytes(config)


class CpuRunner:
    """Implements `batch.Runner` for a packed store. Its KV memory is taken from the system as it is first used.

    threads: members of the process's team. kv_cache_bytes: for keys and values. max_model_len: tokens of one sequence.
    max_tokens_per_step: rows of a step. wide_activations: 16 bits instead of 8. predicts: run the checkpoint's
    prediction layers when asked; they have their KV and the hidden states of all tokens beside the model's KV.
    cache_code_bytes: of a number in the KV cache, 2 or 1. routing: what records which experts each token used, off
    until it is started; None for a model without experts.
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
        predicts: bool = False,
        cache_code_bytes: int = 2,
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
        self.prediction_layers = config.num_nextn_predict_layers if predicts else 0
        layer_bytes = layer_cache_bytes(config, cache_code_bytes)
        layers = config.num_hidden_layers + self.prediction_layers
        self.nbytes_a_block = block_bytes(config, cache_code_bytes, predicts=predicts)
        self.n_blocks = max(1, kv_cache_bytes // self.nbytes_a_block)
        self._pool = builder.memory.zeros(self.n_blocks * layer_bytes * layers, "uint8").reshape(self.n_blocks, -1)
        pool = Pool(
            int(self._pool.ctypes.data),
            layer_bytes * layers,
            tuple(layer_bytes * layer for layer in range(layers)),
            cache_code_bytes,
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
        # V3's shape with every layer dense (a dense twin) has a description of experts, but none to record.
        routes = any(config.is_moe_layer(layer) for layer in range(config.num_hidden_layers))
        self.routing = RoutingRecord.of(config, max_tokens_per_step) if routes else None
        plan.routing_record = self.routing
        self._states = None
        if self.prediction_layers:
            self._states = HiddenStates(
                builder.memory, config, self._tables, n_blocks=self.n_blocks, rows=max_tokens_per_step
            )
        plan.emit(self._states)
        self._choices = plan.choices
        begins = emit_prediction_layers(plan, self._states) if self._states else []
        self._job, *self._prediction_jobs = builder.finish_in_parts(*begins)
        self._logits = plan.logits.array[:, : config.vocab_size]
        self._hidden = plan.x.array[:, : config.hidden_size]
        self._memory = builder.memory

    @property
    def nbytes(self) -> int:
        """Memory set aside beside the weights: KV, buffers and tables."""
        return self._memory.nbytes

    @property
    def weight_bytes(self) -> int:
        return int(self.store.data.nbytes)

    def run(self, batch: Batch) -> StepOutput:
        recorded = self.routing is not None and self.routing.is_on
        every_row = batch.hidden or recorded or self._states is not None
        wanted = self._tables.fill(batch.chunks, every_row=every_row)
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

    def predict(self, chunks: list[Chunk]) -> list[list[int]]:
        assert self._states is not None
        rows = sum(chunk.count for chunk in chunks)
        ending = [chunk.sequence.token_ids for chunk in chunks if chunk.logits == "last"]
        lengths = [len(ids) for ids in ending]
        try:
            for depth, job in enumerate(self._prediction_jobs, start=1):
                wanted = self._tables.fill(chunks, ahead=depth)
                self._states.choose_rows(rows)
                if self._team.run(job, shared=rows > PRIVATE_ROWS):
                    raise StepCancelled
                for ids, token in zip(ending, self._logits[:wanted].argmax(axis=1).tolist(), strict=True):
                    ids.append(token)  # the next layer reads it
            drafts = iter([ids[length:] for ids, length in zip(ending, lengths, strict=True)])
        finally:
            for ids, length in zip(ending, lengths, strict=True):
                del ids[length:]
        return [next(drafts) if chunk.logits == "last" else [] for chunk in chunks]

    def _normed(self, rows: int) -> NDArray[np.float32]:
        """The last step's hidden states after the final norm."""
        if self._states is not None:
            return self._hidden[:rows].copy()
        norm = self.store.tensors["model.norm.weight"]
        weight = self.store.data[norm.offset : norm.offset + 4 * norm.inputs].view(np.float32)
        return normed_rows(self._hidden[:rows], weight, self.config.rms_norm_eps)

    def copy_block(self, source: int, target: int) -> None:
        self._pool[target] = self._pool[source]
        if self._states is not None:
            self._states.copy_block(source, target)

    def cancel(self) -> None:
        self._team.cancel()

    def close(self) -> None:
        """The team stays: other engines of the process use it."""
