"""What a stream and /health feel while other clients send prompts far too long, and what memory is left behind.

Run: python benchmarks/long_prompts.py [MODEL] [--megabytes 15] [--seconds 15]        Prints one JSON line.
A server in a process of its own. One client streams an answer, alone, then beside 1 and 3 clients that send prompts of
`--megabytes` without end; /health is asked every 20 ms. RSS: of the server, MB; at last after 10 idle seconds.
"""

import argparse
import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

from deepseek.hub import DEFAULT_MODEL


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20


def post(port: int, body: bytes) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
    return connection.getresponse()


def watch_health(port: int, stop: threading.Event, longest: list[float]) -> None:
    while not stop.is_set():
        begun = time.monotonic()
        urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=600).read()
        longest[0] = max(longest[0], time.monotonic() - begun)
        stop.wait(0.02)


def send_long(port: int, body: bytes, stop: threading.Event, statuses: list[int]) -> None:
    while not stop.is_set():
        response = post(port, body)
        response.read()
        statuses.append(response.status)


def stream(port: int, seconds: float) -> tuple[int, float]:
    """Tokens that came in this time, and the longest gap between two."""
    fields = {"max_tokens": 8000, "stream": True, "ignore_eos": True, "messages": [{"role": "user", "content": "hi"}]}
    response = post(port, json.dumps(fields).encode())
    begun = last = time.monotonic()
    tokens, gap = 0, 0.0
    while last - begun < seconds:
        line = response.readline()
        if line.startswith(b"data: "):
            now = time.monotonic()
            tokens, gap, last = tokens + 1, max(gap, now - last), now
    response.close()
    return tokens, gap


def beside(port: int, pid: int, clients: int, body: bytes, seconds: float) -> dict[str, Any]:
    stop, longest, statuses = threading.Event(), [0.0], []  # type: tuple[threading.Event, list[float], list[int]]
    threads = [threading.Thread(target=watch_health, args=(port, stop, longest))]
    threads += [threading.Thread(target=send_long, args=(port, body, stop, statuses)) for _ in range(clients)]
    for thread in threads:
        thread.start()
    tokens, gap = stream(port, seconds)
    stop.set()
    for thread in threads:
        thread.join()
    return {
        "tokens_per_second": round(tokens / seconds, 1), "longest_gap": round(gap, 3), "health": round(longest[0], 3),
        "rss": resident(pid), "refused": len(statuses), "statuses": sorted(set(statuses)),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default=DEFAULT_MODEL)
    parser.add_argument("--megabytes", type=float, default=15.0)
    parser.add_argument("--seconds", type=float, default=15.0)
    args = parser.parse_args()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = "from deepseek.cli import main; main()"
    server = subprocess.Popen([sys.executable, "-c", command, "serve", args.model, "--port", str(port)],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    try:
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).read()
                break
            except OSError:
                time.sleep(0.2)
        words = "word " * int(args.megabytes * 200_000)
        body = json.dumps({"messages": [{"role": "user", "content": words}], "max_tokens": 4}).encode()
        told: dict[str, Any] = {"rss_at_start": resident(server.pid)}
        for clients in (0, 1, 3):
            told[f"beside_{clients}"] = beside(port, server.pid, clients, body, args.seconds)
        time.sleep(10)
        print(json.dumps({**told, "rss_after_10_s": resident(server.pid)}))
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
