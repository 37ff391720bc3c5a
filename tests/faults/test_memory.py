"""Limits of memory: line 39 of the list. What does not fit is refused and says so; nothing dies while it can know."""

import concurrent.futures
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from deepseek.server.access.memory_reserve import RESERVE_BYTES
from served_process import served, until

CHAT = "/v1/chat/completions"
LIMIT = 1 << 30
BODY: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 8}


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group with LIMIT bytes of memory; skips where none can be made."""
    for top, limit in (
        (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
        (Path("/sys/fs/cgroup"), "memory.max"),
    ):
        folder = top / f"deepseek-test-{os.getpid()}"
        try:
            folder.mkdir()
        except OSError:
            continue
        try:
            (folder / limit).write_text(str(LIMIT))
            yield folder
            return
        except OSError:
            continue
        finally:
            until(lambda folder=folder: not (folder / "cgroup.procs").read_text())
            folder.rmdir()
    pytest.skip("no control group of memory can be made here")


def test_a_server_in_a_group_stays_below_its_limit(tiny_folder: Path, group: Path) -> None:
    def enter() -> None:
        (group / "cgroup.procs").write_text(str(os.getpid()))

    with (
        served(tiny_folder, before=enter, engine={"kv_cache_bytes": None}) as (process, address),
        httpx.Client(base_url=address, timeout=120) as client,
    ):
        assert client.get("/v1/server/status").json()["memory"]["available_bytes"] < LIMIT
        long = {"prompt": "word " * 300, "max_tokens": 40, "echo": True, "logprobs": 5, "n": 4, "temperature": 1.0}
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            answers = [pool.submit(client.post, "/v1/completions", json=long) for _ in range(48)]
            assert {answer.result().status_code for answer in answers} <= {200, 429, 503}
        assert process.poll() is None


def test_a_cache_beyond_the_limit_is_refused(tiny_folder: Path, group: Path, tmp_path: Path) -> None:
    def enter() -> None:
        (group / "cgroup.procs").write_text(str(os.getpid()))

    words = ("serve", str(tiny_folder), "--port", "0", "--kv-cache-bytes", str(2 * LIMIT))
    code = "from deepseek.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *words], preexec_fn=enter, capture_output=True, text=True, timeout=300
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "error: kv_cache_bytes is 2147483648, but only" in " ".join(done.stderr.split())


def test_a_server_whose_memory_ends(tiny_folder: Path) -> None:
    """Below the reserve nothing new is taken, what runs goes on, and with memory again all is as before."""
    with served(tiny_folder) as (process, address), httpx.Client(base_url=address, timeout=120) as client:
        assert client.post(CHAT, json=BODY).status_code == 200
        with client.stream("POST", CHAT, json={**BODY, "max_tokens": 1000, "stream": True}) as running:
            lines = running.iter_lines()
            next(lines)
            no_limit = resource.prlimit(process.pid, resource.RLIMIT_AS)
            pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[0])
            allowed = pages * resource.getpagesize() + RESERVE_BYTES // 2
            resource.prlimit(process.pid, resource.RLIMIT_AS, (allowed, no_limit[1]))
            until(lambda: httpx.post(f"{address}{CHAT}", json=BODY).status_code == 503)
            for path, body in ((CHAT, BODY), ("/v1/completions", {"prompt": ["word " * 300] * 200})):
                answer = httpx.post(f"{address}{path}", json=body)
                assert answer.status_code == 503, answer.text
                assert answer.json()["error"]["code"] == "exhausted"
                assert "memory" in answer.json()["error"]["message"]
                assert answer.headers["retry-after"]
            assert httpx.get(f"{address}/health").status_code == 200
            assert [line for line in lines if line][-1] == "data: [DONE]"
            resource.prlimit(process.pid, resource.RLIMIT_AS, no_limit)
        until(lambda: client.post(CHAT, json=BODY).status_code == 200)
        assert process.poll() is None
