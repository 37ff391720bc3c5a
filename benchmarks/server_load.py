"""`deepseek serve` under load, beside llama.cpp's `llama-server` on the same GGUF file. Prints one JSON line.

Run: python benchmarks/server_load.py [FILE.gguf] [--llama-server PATH] [--clients 1 --clients 16] [--rounds 3]
     python benchmarks/server_load.py [FILE.gguf] --only repeated-prefix|idle

Without FILE: SmolLM2-135M-Instruct in Q4_0. Without --llama-server ours runs alone.

Load: N clients ask /v1/completions for streams, one request after another, until the round's list is done: the same
list for both. Prompts are consecutive pieces of real text, so that no two begin alike; their lengths, and those
of the answers, are log-normal like those of chats (--help has the figures). ignore_eos makes lengths equal, sampling is
greedy. Both servers live as long as an N is measured and sleep while the other is asked; the order changes from round
to round; before the first round both answer N short requests. The client shares the processors with the server.

repeated-prefix: seconds to the first token of a chat with a system prompt of 1,000 tokens, new and seen before; median
of five.
idle: one client's answers with and without 1,000 idle connections, and the server's memory.
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from deepseek import hub
from deepseek.tokenizer import AutoTokenizer
from quantize_with_llama_cpp import quantised
from real_text import english_text
from serving_process import Serving, llama_server, ours
from streaming_client import Timed, clients, post, stream

PROMPT = {"median": 120, "sigma": 0.8, "least": 20, "most": 600}
ANSWER = {"median": 64, "sigma": 0.7, "least": 16, "most": 200}
REQUESTS = {1: 24, 4: 32, 16: 64, 64: 96}  # of a round: 10 to 20 seconds for ours on two cores
SYSTEM_PROMPT = 1000
IDLE = 1000


class Text:
    """Real text, cut into prompts of given numbers of tokens; no piece is given twice."""

    def __init__(self, model: Path) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(model)
        self._ids = self._tokenizer.encode(english_text().read_text(encoding="utf-8"), add_special_tokens=False)
        self._at = 0

    def piece(self, length: int) -> str:
        if self._at + length > len(self._ids):
            raise SystemExit("the text is used up: ask for fewer rounds or requests")
        self._at += length
        return self._tokenizer.decode(self._ids[self._at - length : self._at])


def lengths(source: random.Random, of: dict[str, Any]) -> int:
    drawn = of["median"] * source.lognormvariate(0, of["sigma"])
    return round(min(max(drawn, of["least"]), of["most"]))


def completion(prompt: str, tokens: int) -> bytes:
    return post("/v1/completions", {"prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True})


@dataclass(frozen=True)
class Round:
    """tokens_per_s: of answers. first: seconds to each first token. client_share: of one processor, by the client."""

    tokens_per_s: float
    first: list[float]
    prompt_tokens: int
    generated_tokens: int
    client_share: float


def run_round(port: int, requests: list[bytes], count: int) -> Round:
    begun, busy = time.perf_counter(), time.process_time()
    answers: list[Timed] = uvloop.run(clients(port, requests, count))
    seconds, busy = time.perf_counter() - begun, time.process_time() - busy
    generated = sum(answer.generated_tokens for answer in answers)
    return Round(
        generated / seconds,
        [answer.first for answer in answers],
        sum(answer.prompt_tokens for answer in answers),
        generated,
        busy / seconds,
    )


def load(args: argparse.Namespace, text: Text, count: int) -> dict[str, Any]:
    """One number of clients, both sides."""
    source = random.Random(count)
    n_requests = args.requests or REQUESTS.get(count, max(2 * count, 24))
    found: dict[str, list[Round]] = {}
    with ExitStack() as stack:
        sides: dict[str, Serving] = {"deepseek": stack.enter_context(ours(args.model, args.threads, count, args.ours))}
        if args.llama_server:
            started = llama_server(args.llama_server, args.model, args.threads, count, args.theirs)
            sides["llama-server"] = stack.enter_context(started)
        warming = [completion(text.piece(32), 16) for _ in range(count)]
        for side in sides.values():
            run_round(side.port, warming, count)
        for number in range(args.rounds):
            asked = [(lengths(source, PROMPT), lengths(source, ANSWER)) for _ in range(n_requests)]
            requests = [completion(text.piece(prompt), answer) for prompt, answer in asked]
            for name in list(sides)[:: 1 if number % 2 == 0 else -1]:
                side = sides[name]
                one = run_round(side.port, requests, count)
                wanted = sum(answer for _, answer in asked)
                if one.generated_tokens != wanted:
                    raise SystemExit(f"{name} generated {one.generated_tokens} tokens, not {wanted}")
                found.setdefault(name, []).append(one)
                print(f"{count} clients, round {number}, {name}: {shown(one)}", file=sys.stderr)
    row: dict[str, Any] = {"clients": count, "requests": n_requests}
    for name, rounds in found.items():
        row[name] = {
            "tokens_per_s": round(statistics.median(one.tokens_per_s for one in rounds), 1),
            "first_token_s": {
                "median": round(statistics.median(first for one in rounds for first in one.first), 4),
                "p99": round(percentile([first for one in rounds for first in one.first], 0.99), 4),
            },
            "prompt_tokens": sum(one.prompt_tokens for one in rounds),
            "generated_tokens": sum(one.generated_tokens for one in rounds),
            "client_share": round(max(one.client_share for one in rounds), 3),
        }
    if len(found) == 2:
        pairs = list(zip(*found.values(), strict=True))
        row["throughput_ratio"] = rounded_median(mine.tokens_per_s / other.tokens_per_s for mine, other in pairs)
        row["first_token_ratio"] = rounded_median(
            statistics.median(other.first) / statistics.median(mine.first) for mine, other in pairs
        )
        row["first_token_p99_ratio"] = round(
            row["llama-server"]["first_token_s"]["p99"] / row["deepseek"]["first_token_s"]["p99"], 3
        )
    return row


def shown(one: Round) -> str:
    return (
        f"{one.tokens_per_s:.0f} tokens/s, first token {statistics.median(one.first):.3f} s,"
        f" p99 {percentile(one.first, 0.99):.3f} s, client {one.client_share:.1%}"
    )


def rounded_median(values: Iterator[float]) -> float:
    return round(statistics.median(values), 3)


def percentile(values: list[float], share: float) -> float:
    """The smallest value that so many are not above."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def repeated_prefix(args: argparse.Namespace, text: Text) -> dict[str, Any]:
    def ask(port: int, system: str) -> float:
        messages = [{"role": "system", "content": system}, {"role": "user", "content": text.piece(12)}]
        body = {"messages": messages, "max_tokens": 8, "temperature": 0}
        return uvloop.run(stream(port, post("/v1/chat/completions", body))).first

    cold, repeated = [], []
    with ours(args.model, args.threads, 4, args.ours) as side:
        ask(side.port, text.piece(SYSTEM_PROMPT))
        for _ in range(5):
            system = text.piece(SYSTEM_PROMPT)
            cold.append(ask(side.port, system))
            repeated.append(ask(side.port, system))
            print(f"cold {cold[-1]:.4f} s, repeated {repeated[-1]:.4f} s", file=sys.stderr)
    medians = statistics.median(cold), statistics.median(repeated)
    return {
        "cold_s": round(medians[0], 4),
        "repeated_s": round(medians[1], 4),
        "ratio": round(medians[0] / medians[1], 1),
    }


def idle(args: argparse.Namespace, text: Text) -> dict[str, Any]:
    requests = [completion(text.piece(64), 64) for _ in range(20)]
    with ours(args.model, args.threads, 4, args.ours) as side:
        run_round(side.port, requests[:4], 1)
        alone = run_round(side.port, requests[4:12], 1)
        before = side.resident()
        with connections(side.port, IDLE) as still_open:
            beside = run_round(side.port, requests[12:], 1)
            during = side.resident()
            answered = still_open()
        after = side.resident()
    return {
        "connections": IDLE, "open_afterwards": answered,
        "tokens_per_s": {"alone": round(alone.tokens_per_s, 1), "beside_idle": round(beside.tokens_per_s, 1)},
        "first_token_s": {
            "alone": round(statistics.median(alone.first), 4), "beside_idle": round(statistics.median(beside.first), 4)
        },
        "resident_bytes": {"before": before, "during": during, "after": after},
        "bytes_a_connection": (during - before) // IDLE,
    }  # fmt: skip


@contextmanager
def connections(port: int, count: int) -> Iterator[Any]:
    """So many connections that have been answered once and are kept. Gives what counts those that answer again."""
    request = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"

    async def open_all() -> list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        opened = []
        for _ in range(count):
            opened.append(await asyncio.open_connection("127.0.0.1", port))
            await ask(*opened[-1])
        return opened

    async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split()[0]))
        return head.startswith(b"HTTP/1.1 200")

    async def ask_all() -> int:
        return sum([await ask(*one) for one in opened])

    async def close_all() -> None:
        for _, writer in opened:
            writer.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        opened = runner.run(open_all())
        yield lambda: runner.run(ask_all())
        runner.run(close_all())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"Tokens, log-normal: prompts {PROMPT}, answers {ANSWER}. Requests a round by clients: {REQUESTS}.",
    )
    parser.add_argument("model", nargs="?", type=Path)
    parser.add_argument("--llama-server", metavar="PATH", help="built for this processor, see docs/benchmarks.md")
    parser.add_argument("--clients", type=int, action="append", help="several times; without it 1, 4, 16 and 64")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, help="of a round; by default by the number of clients")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=("load", "repeated-prefix", "idle"), default="load")
    parser.add_argument("--ours", metavar="OPTION", action="append", default=[], help="further --ours=--option=value")
    parser.add_argument("--theirs", metavar="OPTION", action="append", default=[], help="the same for llama-server")
    args = parser.parse_args()
    args.model = args.model or quantised(hub.resolve(hub.DEFAULT_MODEL).path, "Q4_0")
    text = Text(args.model)
    result: dict[str, Any] = {"benchmark": "server_load", "model": args.model.name, "only": args.only}
    if args.only == "load":
        result |= {"rounds": args.rounds, "threads": args.threads, "ours": args.ours, "theirs": args.theirs}
        result["rows"] = [load(args, text, count) for count in args.clients or REQUESTS]
    else:
        result |= (repeated_prefix if args.only == "repeated-prefix" else idle)(args, text)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
