"""A server in a process of its own, to be killed and starved; and waiting for what other threads do."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent.parent
SCRIPT = """
import sys
from pathlib import Path
sys.path[:0] = [{server!r}]
from live_server import tiny_engine
from deepseek.server.app import build_app
from deepseek.server.bus_errors import end_clearly_on_bus_errors
from deepseek.server.run import Server
from deepseek.server.server_config import ServerConfig
config = ServerConfig(port=0, access_log="off", **{settings!r})
end_clearly_on_bus_errors()
engine = tiny_engine(Path({folder!r}), **{engine!r})
Server(build_app(config, engine, "tiny"), config, lambda address: print(address, flush=True)).run()
"""


@contextmanager
def served(
    folder: Path,
    *,
    engine: dict[str, Any] | None = None,
    before: Callable[[], None] | None = None,
    log: Path | None = None,
    **settings: Any,
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The process and its address; it is killed in the end. before: runs in the new process first; log: its stderr."""
    script = SCRIPT.format(
        server=str(TESTS / "server"), folder=str(folder), settings=settings,
        engine={"max_decode_steps": 1, **(engine or {})},
    )  # fmt: skip
    with (log or Path(os.devnull)).open("wb") as errors, subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=errors, preexec_fn=before, env={**os.environ}
    ) as process:  # fmt: skip
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().decode().strip()
        finally:
            process.kill()
            process.wait()


def until(condition: Callable[[], Any]) -> None:
    """Waits for what others do; gives up after a minute."""
    for _ in range(6000):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("did not happen")
