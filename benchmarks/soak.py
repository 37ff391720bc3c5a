"""Many clients at twice what the server takes, for as long as you like: a bounded queue, no error but 429, flat memory.

    python benchmarks/soak.py --minutes 10 --clients 64
    python benchmarks/soak.py --minutes 0.2 --model FOLDER          (a glance, as the tests run it)

Starts a server of its own with seats and queue for half the clients, so that half of all requests at any moment are too
many. Every client waits as long as Retry-After says. Some leave in the middle, some send nonsense, some read slowly.
The last line is JSON; the exit code is 0 when all held.
"""

import argparse
import asyncio
import json
import random
import re
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx2 as httpx

WORDS = "the a of model expert layer token night river stone light and because router weight seven slowly".split()
MOST_GROWTH = 1.15  # of resident memory, after a third of the time


@dataclass
class Seen:
    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    most_waiting: int = 0
    resident: list[tuple[float, int]] = field(default_factory=list)
    tokens: int = 0


def main() -> None:
    options = _options()
    seats = max(1, options.clients // 4)
    command = [
        sys.executable, "-c", "from deepseek.cli import main; main()", "serve", "--port", "0", "--access-log", "off",
        "--max-num-seqs", str(seats), "--max-queue", str(seats), *options.serve,
    ]  # fmt: skip
    if options.model:
        command += ["--model", options.model]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            seen = asyncio.run(_soak(_address(server), options))
        finally:
            server.terminate()
            server.communicate(timeout=60)
    _report(seen, server.returncode, seats, options)


def _options() -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--model", help="by default the server's default")
    parser.add_argument("serve", nargs="*", help="further words for `deepseek serve`, after --")
    return parser.parse_args()


def _address(server: "subprocess.Popen[str]") -> str:
    assert server.stderr is not None
    for line in server.stderr:
        if found := re.search(r"API\s+(http\S+)/v1", line):
            return found[1]
    raise SystemExit("the server did not start")


async def _soak(address: str, options: Any) -> Seen:
    seen, until = Seen(), time.monotonic() + 60 * options.minutes
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=address, timeout=600, limits=limits) as client, asyncio.TaskGroup() as group:
        group.create_task(_watch(client, seen, until))
        for number in range(options.clients):
            group.create_task(_client(client, seen, until, random.Random(number)))
    return seen


async def _watch(client: httpx.AsyncClient, seen: Seen, until: float) -> None:
    begun = time.monotonic()
    while time.monotonic() < until:
        status = (await client.get("/v1/server/status")).json()
        seen.most_waiting = max(seen.most_waiting, status["requests"]["waiting"])
        seen.resident.append((time.monotonic() - begun, status["memory"]["resident_bytes"]))
        await asyncio.sleep(min(1.0, max(0.0, until - time.monotonic())))


async def _client(client: httpx.AsyncClient, seen: Seen, until: float, chance: random.Random) -> None:
    while time.monotonic() < until:
        text = " ".join(chance.choices(WORDS, k=chance.randint(3, 200)))
        body: dict[str, Any] = {
            "messages": [{"role": "user", "content": text}], "max_tokens": chance.randint(4, 96), "stream": True,
        }  # fmt: skip
        mood = chance.random()
        if mood < 0.05:
            body["temperature"] = -1
        try:
            async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
                seen.statuses[answer.status_code] += 1
                if answer.status_code == 200:
                    await _read(answer, seen, leaves=mood > 0.9, slow=0.8 < mood < 0.85)
                    continue
                await answer.aread()
        except httpx.HTTPError as error:
            seen.wrong.append(repr(error))
            continue
        if answer.status_code == 429:
            await asyncio.sleep(min(float(answer.headers["Retry-After"]), max(0.0, until - time.monotonic())))
        elif answer.status_code != 400 or "temperature" not in body:
            seen.wrong.append(f"{answer.status_code}: {answer.text[:200]}")


async def _read(answer: httpx.Response, seen: Seen, *, leaves: bool, slow: bool) -> None:
    last = ""
    async for line in answer.aiter_lines():
        last = line or last
        seen.tokens += line.startswith("data: {")
        if '"error"' in line:
            seen.wrong.append(line[:200])
        if leaves and seen.tokens % 7 == 0:
            return
        if slow:
            await asyncio.sleep(0.05)
    if last != "data: [DONE]":
        seen.wrong.append("a stream ended without its end mark")


def _report(seen: Seen, returncode: int, seats: int, options: Any) -> None:
    third = [size for at, size in seen.resident if at > seen.resident[-1][0] / 3]
    growth = third[-1] / third[0]
    held = not seen.wrong and seen.most_waiting <= seats and growth < MOST_GROWTH and returncode == 0
    told = {
        "held": held, "minutes": options.minutes, "clients": options.clients, "seats": seats,
        "statuses": dict(seen.statuses), "chunks": seen.tokens, "most_waiting": seen.most_waiting,
        "resident_mb": [round(size / 1e6, 1) for size in (third[0], max(third), third[-1])],
        "growth": round(growth, 3), "wrong": seen.wrong[:5], "exit_status": returncode,
    }  # fmt: skip
    print(json.dumps(told))
    raise SystemExit(0 if held else 1)


if __name__ == "__main__":
    main()
