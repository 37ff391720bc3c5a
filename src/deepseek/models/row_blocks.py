"""Work of several passes over a large matrix goes block of rows by block of rows, so that it stays in a CPU's cache."""

from collections.abc import Iterator

from torch import Tensor

ELEMENTS = 3 << 18  # of a block: a few such matrices fit a shared cache of 16 MB (measured: 1.5 to 2 times faster)


def row_blocks(matrix: Tensor) -> Iterator[slice]:
    """Slices that cover the rows of a matrix; on other devices than a CPU, or if it is small, one."""
    rows, columns = matrix.shape
    step = max(1, ELEMENTS // columns) if matrix.device.type == "cpu" else max(1, rows)
    for start in range(0, rows, step):
        yield slice(start, start + step)
