"""The tables of a step with latent attention: rows of generated tokens first, logits in the order of the chunks."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from deepseek.engine.batch import Chunk, LogitsWanted
from deepseek.engine.plan_builder import Memory
from deepseek.engine.step_tables import StepTables
from deepseek.kernels.plan import STATE_ABSORBED_TILES, STATE_EXPANDED_TILES, STATE_SLOTS, STATE_TOKENS


def chunk(first_id: int, n_prompt: int, start: int, count: int, logits: LogitsWanted) -> Chunk:
    ids = list(range(first_id, first_id + 20))
    return Chunk(
        cast(Any, SimpleNamespace(token_ids=ids, n_prompt=n_prompt, block_table=[first_id])), start, count, logits
    )


def test_generated_rows_come_first() -> None:
    state = np.zeros(STATE_SLOTS, np.int64)
    tables = StepTables(Memory(), state, rows=16, chunks=4, blocks=2, logit_rows=16, heads_a_group=1, latent=True)
    wanted = tables.fill([
        chunk(100, 9, 2, 3, "all"),  # a prompt goes on
        chunk(200, 4, 4, 2, "last"),  # generated, computed again
        chunk(300, 4, 0, 4, "last"),  # a whole prompt
        chunk(400, 1, 7, 1, "last"),  # generated
    ])  # fmt: skip
    assert tables.tokens[:10].tolist() == [204, 205, 407, 102, 103, 104, 300, 301, 302, 303]
    assert tables.positions[:10].tolist() == [4, 5, 7, 2, 3, 4, 0, 1, 2, 3]
    assert tables.chunk_of[:10].tolist() == [1, 1, 3, 0, 0, 0, 2, 2, 2, 2]
    assert tables.block_tables[:, 0].tolist() == [100, 200, 300, 400]
    assert tables.logit_rows[:wanted].tolist() == [3, 4, 5, 1, 9, 2]
    assert tables.expanded[:2].tolist() == [[3, 3, 0], [6, 4, 2]]
    assert state[[STATE_TOKENS, STATE_ABSORBED_TILES, STATE_EXPANDED_TILES]].tolist() == [10, 3, 2]
