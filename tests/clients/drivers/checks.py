"""What the drivers share. Each check prints a JSON line, so that one that fails does not hide the others.

The drivers run in the clients' own environments, which have none of this project's packages.
"""

import asyncio
import inspect
import json
import os
import subprocess
import traceback
import urllib.request
from collections.abc import Callable
from typing import Any

BASE_URL = os.environ["BASE_URL"]
API_URL = f"{BASE_URL}/v1"
MODEL = os.environ["MODEL"]
API_KEY = os.environ["API_KEY"]
TIMEOUT = "timeout"


def check(run: Callable[[], Any]) -> None:
    """A decorator that runs the function at once, also a coroutine function."""
    error = ""
    try:
        if inspect.iscoroutinefunction(run):
            asyncio.run(run())
        else:
            run()
    except Exception as caught:  # noqa: BLE001  (any failure of a client is the result)
        traceback.print_exc()
        error = f"{type(caught).__name__}: {caught}"[:500] or type(caught).__name__
    print(json.dumps({"check": run.__name__, "error": error}), flush=True)


def force_tool(name: str) -> None:
    """Makes the model call this tool in answer to the next request that offers it."""
    request = urllib.request.Request(f"{BASE_URL}/force-tool/{name}", method="PUT")
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request):
        pass


def run_command(*command: str, seconds: float = 300, may_fail_with: str = "\0", **variables: str) -> str:
    """Standard output of a command-line client. Raises where it fails or prints nothing.

    may_fail_with: what the client says when a small model, not the server, leaves the task undone; TIMEOUT: the model
    may repeat itself for ever or say nothing after a tool's result (what the client sent is judged all the same).
    """
    environment = {**os.environ, **variables}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=seconds, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired as late:
        if may_fail_with != TIMEOUT:
            raise
        print(f"$ {' '.join(command)}\nstopped after {seconds} s\n{(late.stdout or b'').decode()}", flush=True)
        return ""
    print(f"$ {' '.join(command)}\n{done.stdout}\n--- stderr ---\n{done.stderr}", flush=True)
    if done.returncode and may_fail_with not in done.stdout + done.stderr:
        raise RuntimeError(f"exit status {done.returncode}: {(done.stderr or done.stdout)[-400:]}")
    assert done.stdout.strip() or may_fail_with == TIMEOUT, "nothing was printed"
    return done.stdout
