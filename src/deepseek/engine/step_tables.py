"""What changes from step to step: token ids, positions, which blocks, which rows want logits. Written here, read by
the kernels at fixed addresses.

A span is one run of rows of one sequence at consecutive positions: a chunk.
"""

from collections.abc import Sequence as Items

import numpy as np
from numpy.typing import NDArray

from deepseek.engine.batch import Chunk
from deepseek.engine.plan_builder import Memory
from deepseek.kernels.attention import MOST_TILES_IN_PARTS, TILE_FIELDS, TILE_ROWS, parts_of
from deepseek.kernels.attention_store import BLOCK
from deepseek.kernels.plan import (
    STATE_ABSORBED_TILES,
    STATE_CHUNKS,
    STATE_EXPANDED_TILES,
    STATE_LOGIT_ROWS,
    STATE_PARTS,
    STATE_TILES,
    STATE_TOKENS,
)


class StepTables:
    """rows, chunks: at most in a step. blocks: of one sequence at most. logit_rows: at most wanted in a step.

    heads_a_group: query heads that share a key head, which a tile holds together. latent: for latent attention.
    """

    def __init__(
        self,
        memory: Memory,
        state: NDArray[np.int64],
        *,
        rows: int,
        chunks: int,
        blocks: int,
        logit_rows: int,
        heads_a_group: int,
        latent: bool = False,
    ) -> None:
        self.state = state
        self.tokens = memory.zeros(rows, "int32")
        self.positions = memory.zeros(rows, "int32")
        self.chunk_of = memory.zeros(rows, "int32")
        self.block_tables = memory.zeros(chunks * blocks, "int32").reshape(chunks, blocks)
        self.logit_rows = memory.zeros(logit_rows, "int32")
        self.tiles = memory.zeros(rows * TILE_FIELDS, "int32").reshape(rows, TILE_FIELDS)
        self._tokens_a_tile = max(1, TILE_ROWS // heads_a_group)
        self.expanded = memory.zeros(chunks * TILE_FIELDS, "int32").reshape(chunks, TILE_FIELDS)
        self._latent = latent
        self._tables_as_lists: list[list[int]] = [[] for _ in range(chunks)]

    def fill(self, chunks: Items[Chunk], ahead: int = 0) -> int:
        """Describe a step; returns how many rows of logits it gives. ahead: rows read the tokens so many places on."""
        row = tile = 0
        first_rows = [0] * len(chunks)
        absorbed, expanded = self._by_form(chunks)
        for number in (*absorbed, *expanded):
            chunk = chunks[number]
            end = row + chunk.count
            first_rows[number] = row
            if chunk.count == 1:
                self.tokens[row] = chunk.sequence.token_ids[chunk.start + ahead]
                self.positions[row] = chunk.start
                self.chunk_of[row] = number
                self.tiles[tile] = (row, 1, number)
                tile += 1
            else:
                first = chunk.start + ahead
                self.tokens[row:end] = chunk.sequence.token_ids[first : first + chunk.count]
                self.positions[row:end] = np.arange(chunk.start, chunk.start + chunk.count)
                self.chunk_of[row:end] = number
                tile = self._add_tiles(tile, row, chunk.count, number)
            self._set_blocks(number, chunk.sequence.block_table)
            row = end
        wanted = self._set_logit_rows(chunks, first_rows)
        for place, number in enumerate(expanded):
            self.expanded[place] = (first_rows[number], chunks[number].count, number)
        self.state[STATE_TOKENS] = row
        self.state[STATE_CHUNKS] = len(chunks)
        self.state[STATE_LOGIT_ROWS] = wanted
        self.state[STATE_TILES] = tile
        self.state[STATE_PARTS] = self._parts(chunks)
        self.state[STATE_ABSORBED_TILES] = sum(chunks[number].count for number in absorbed)
        self.state[STATE_EXPANDED_TILES] = len(expanded)
        return wanted

    def _by_form(self, chunks: Items[Chunk]) -> tuple[list[int], list[int]]:
        """Numbers of the chunks of generated tokens and of prompts, which latent attention computes differently.

        Rows of the former come first in a step (`kernels.latent`). Other attention makes no difference.
        """
        numbers = range(len(chunks))
        if not self._latent:
            return list(numbers), []
        prompts = [chunk.start < chunk.sequence.n_prompt for chunk in chunks]
        return [number for number in numbers if not prompts[number]], [number for number in numbers if prompts[number]]

    @staticmethod
    def _parts(chunks: Items[Chunk]) -> int:
        """Few single tokens are attended in parts, so that all threads have work; room for the rounds to come too."""
        if len(chunks) > MOST_TILES_IN_PARTS or any(chunk.count > 1 for chunk in chunks):
            return 0
        return parts_of(max(len(chunk.sequence.block_table) for chunk in chunks) * BLOCK)

    def _set_logit_rows(self, chunks: Items[Chunk], first_rows: list[int]) -> int:
        wanted = 0
        for chunk, first in zip(chunks, first_rows, strict=True):
            if chunk.logits == "last":
                self.logit_rows[wanted] = first + chunk.count - 1
                wanted += 1
            elif chunk.logits == "all":
                self.logit_rows[wanted : wanted + chunk.count] = np.arange(first, first + chunk.count)
                wanted += chunk.count
        return wanted

    def _add_tiles(self, tile: int, row: int, count: int, number: int) -> int:
        size = min(self._tokens_a_tile, max(2, count // 8))  # small enough that all threads have work
        starts = np.arange(0, count, size)
        end = tile + len(starts)
        self.tiles[tile:end, 0] = row + starts
        self.tiles[tile:end, 1] = np.minimum(size, count - starts)
        self.tiles[tile:end, 2] = number
        return end

    def _set_blocks(self, number: int, table: list[int]) -> None:
        if self._tables_as_lists[number] != table:
            self.block_tables[number, : len(table)] = table
            self._tables_as_lists[number] = list(table)
