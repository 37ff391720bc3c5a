"""The probe reads all of its buffer, in every thread; how fast is the machine's business."""

import pytest

from deepseek.profiler import memory_limit


@pytest.mark.parametrize("threads", [1, 2])
def test_every_pass_reads_the_whole_buffer(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_limit, "SECONDS", 0.0)
    read: list[int] = []
    total = memory_limit._total
    monkeypatch.setattr(memory_limit, "_total", lambda part: read.append(part.nbytes) or total(part))
    probe = memory_limit.MemoryLimit(threads, buffer_bytes=1 << 20)
    read.clear()
    speed = probe.measure()
    assert sum(read) == memory_limit.LEAST_PASSES * (1 << 20)
    assert speed > 0
