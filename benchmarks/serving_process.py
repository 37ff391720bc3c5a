"""Servers as processes of their own: `deepseek serve` and llama.cpp's `llama-server`, each at its best for a load."""

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SEQUENCE = 1024  # tokens of prompt and answer; more than any has
START_SECONDS = 120.0


@dataclass(frozen=True)
class Serving:
    """A server that answers on 127.0.0.1."""

    port: int
    process: "subprocess.Popen[bytes]"

    def resident(self) -> int:
        """Bytes of memory; Linux only."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * 4096


@contextmanager
def ours(model: Path, threads: int, clients: int, options: list[str]) -> Iterator[Serving]:
    """Activations in 8 bits, as llama.cpp's; no speculation, which greedy answers that repeat themselves flatter."""
    command = [
        str(Path(sys.executable).parent / "deepseek"), "serve", str(model), "--threads", str(threads),
        "--max-num-seqs", str(clients), "--activation-bits", "8", "--speculation", "off", "--access-log", "off",
    ]  # fmt: skip
    with _serving(command, options) as serving:
        yield serving


@contextmanager
def llama_server(program: str, model: Path, threads: int, clients: int, options: list[str]) -> Iterator[Serving]:
    """A slot a client, and no caches of prompts, because none comes twice.

    -ub 2048: tried once each with 16 clients, 2048 gave 128 tokens a second, 512 123, 256 125, 128 111: near the noise.
    --kv-unified gave 71. Others may be tried with --theirs.
    """
    command = [
        program, "-m", str(model), "-t", str(threads), "-tb", str(threads), "-np", str(clients),
        "-c", str(SEQUENCE * clients), "-cb", "-fa", "on", "-b", "2048", "-ub", "2048", "--no-webui",
        "--no-cache-prompt", "--cache-ram", "0", "--log-disable",
    ]  # fmt: skip
    with _serving(command, options) as serving:
        yield serving


@contextmanager
def _serving(command: list[str], options: list[str]) -> Iterator[Serving]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([*command, *options, "--port", str(port)], stdout=subprocess.DEVNULL)
    try:
        _wait(process, port)
        yield Serving(port, process)
    finally:
        process.terminate()
        process.wait()


def _wait(process: "subprocess.Popen[bytes]", port: int) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if process.poll() is not None:
            raise SystemExit(f"{process.args!r:.200} ended with status {process.returncode}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise SystemExit(f"{process.args!r:.200} did not answer within {START_SECONDS:g} seconds")
