"""Drives real clients against `deepseek serve`, records what they send, and writes the table of README.md.

python tests/clients/run.py                 every client but the very large ones
python tests/clients/run.py codex langchain these
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from install import CLIENTS, HERE, Client, all_clients, install
from recording_proxy import Exchange, Recording, recording
from table import write_table
from trim import as_json, trimmed

MODEL = "qwen2.5-coder-0.5b-q4"
START_SECONDS = 900
QUIET = {
    "DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1", "DISABLE_AUTOUPDATER": "1",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "OPENAI_AGENTS_DISABLE_TRACING": "1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LANGSMITH_TRACING": "false", "HAYSTACK_TELEMETRY_ENABLED": "False",
    "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "AI_SDK_LOG_WARNINGS": "false",
    "CONTINUE_TELEMETRY_ENABLED": "0", "OPENCODE_DISABLE_AUTOUPDATE": "1", "OPENCODE_DISABLE_MODELS_FETCH": "1",
}  # fmt: skip
"""Switches off what would use the network, and nothing that shapes a request."""


@contextmanager
def served_model() -> Iterator[str]:
    """The address of a `deepseek serve` of MODEL on a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    CLIENTS.mkdir(exist_ok=True)
    with (CLIENTS / "server.log").open("w") as log:
        start = "from deepseek.cli import main; main()"
        command = [sys.executable, "-c", start, "serve", MODEL, "--port", str(port), "--access-log", "json"]
        server = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            _await_health(url, server)
            yield url
        finally:
            server.terminate()
            server.wait(60)


def _await_health(url: str, server: "subprocess.Popen[bytes]") -> None:
    print(f"Starting {MODEL} (fetches 456 MB the first time); log in {CLIENTS / 'server.log'}", flush=True)
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except OSError:
            time.sleep(1)
    raise SystemExit(f"the server did not start: see {CLIENTS / 'server.log'}")


def environment(client: Client, url: str, home: Path) -> dict[str, str]:
    """That of a fresh user account; hosts other than the server's are led to the proxy, which refuses them."""
    other_hosts = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), url)
    here = dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost")
    path = f"{client.folder / 'bin'}:{client.folder / 'node_modules' / '.bin'}:{os.environ['PATH']}"
    own = {"BASE_URL": url, "MODEL": MODEL, "API_KEY": "local-key", "CLIENT_FOLDER": str(client.folder)}
    return {"PATH": path, "HOME": str(home), "LANG": "C.UTF-8", "TERM": "dumb", **QUIET, **other_hosts, **here, **own}


def drive(client: Client, server_url: str) -> dict[str, Any]:
    """Runs the client's driver in an empty home and a small project; what came out, for results.json."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch, recording(server_url) as kept:
        home, project = Path(scratch) / "home", Path(scratch) / "project"
        home.mkdir()
        project.mkdir()
        (project / "hello.py").write_text('def greet(name):\n    return "Hello, " + name\n')
        try:
            checks, note = _run_driver(client, kept, home, project)
        finally:
            _stop_left_behind(home)
        paths = {str(home): "/home/user", str(project): "/home/user/project", str(client.folder): "/opt/client"}
        paths |= {scratch: "/home", kept.url: "http://server"}
        taken = [each for each in kept.exchanges if not _is_expected_refusal(client, each)]
        requests = trimmed(taken, paths)
    (client.folder / "exchanges.json").write_text(json.dumps([each.as_dict() for each in kept.exchanges], indent=1))
    if requests:
        (HERE / "recordings" / f"{client.name}.json").write_text(as_json(requests))
    refused = _refused(taken)
    elsewhere = sorted(kept.elsewhere)
    return {"checks": checks, "note": note, "refused": refused, "sent": len(kept.exchanges), "elsewhere": elsewhere}


def _run_driver(client: Client, kept: Recording, home: Path, project: Path) -> tuple[dict[str, str], str]:
    """What each check said ("" where it passed), and why the driver itself ended badly, if it did."""
    script = client.driver
    if script.suffix == ".mjs":  # Node looks for packages from where a script lies
        for file in (script, HERE / "drivers" / "checks.mjs"):
            (client.folder / file.name).write_text(file.read_text())
        command = ["node", str(client.folder / script.name)]
    else:
        python = client.folder / "bin" / "python"
        command = [str(python) if python.exists() else sys.executable, str(script)]
    variables = environment(client, kept.url, home)
    try:
        done = subprocess.run(
            command, cwd=project, env=variables, capture_output=True, text=True, timeout=client.seconds,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        output, errors, note = done.stdout, done.stderr, f"exit status {done.returncode}" if done.returncode else ""
    except subprocess.TimeoutExpired as late:
        output, errors = ((part or b"").decode(errors="replace") for part in (late.stdout, late.stderr))
        note = f"not finished after {client.seconds} s"
    (client.folder / "output.txt").write_text(f"{output}\n--- stderr ---\n{errors}")
    said = [json.loads(line) for line in output.splitlines() if line.startswith('{"check"')]
    checks = {each["check"]: each["error"] for each in said}
    return checks, note or ("" if checks else "the driver made no check")


def _stop_left_behind(home: Path) -> None:
    """Ends what a client started in this home and left running, such as its own daemon, where /proc tells."""
    mark = f"HOME={home}\0".encode()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_bytes() + b"\0":
                os.kill(int(process.name), signal.SIGKILL)
        except OSError:  # another user's, or ended meanwhile
            continue


def _is_expected_refusal(client: Client, exchange: Exchange) -> bool:
    return exchange.status >= 400 and any(words in exchange.answer for words in client.expected)


def _refused(exchanges: list[Exchange]) -> list[str]:
    found = {
        f"{each.method} {each.path.split('?')[0]}: {each.status or 'no answer'} {each.answer[:300]}": None
        for each in exchanges
        if not 200 <= each.status < 400
    }
    return list(found)


def test(client: Client, url: str) -> dict[str, Any]:
    print(f"{client.name}: installing {', '.join(client.versions)}", flush=True)
    try:
        install(client)
    except (OSError, subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:  # OSError: there is no npm
        result: dict[str, Any] = {"checks": {}, "note": f"not installed: {error}"[:300], "refused": [], "sent": 0}
    else:
        result = drive(client, url)
    result["passed"] = not result["note"] and not result["refused"] and not any(result["checks"].values())
    print(f"{client.name}: {'passed' if result['passed'] else 'FAILED'}, {result['sent']} requests", flush=True)
    failures = [f"{name}: {error}" for name, error in result["checks"].items() if error]
    for line in [*failures, *result["refused"], *([result["note"]] if result["note"] else [])]:
        print(f"    {line[:400]}", flush=True)
    return {"versions": client.versions, **result}


def main() -> None:
    known = {client.name: client for client in all_clients()}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"clients: {', '.join(known)}")
    parser.add_argument("--server", metavar="URL", help="use this running server instead of starting one")
    options = parser.parse_args()
    if unknown := set(options.names) - set(known):
        parser.error(f"unknown client {sorted(unknown)[0]!r}; known are {', '.join(known)}")
    chosen = [known[name] for name in options.names] or [client for client in known.values() if not client.large]
    results: dict[str, Any] = {}
    if options.server:
        results = {client.name: test(client, options.server) for client in chosen}
    else:
        with served_model() as url:
            results = {client.name: test(client, url) for client in chosen}
    write_table(results)
    raise SystemExit(0 if all(result["passed"] for result in results.values()) else 1)


if __name__ == "__main__":
    main()
