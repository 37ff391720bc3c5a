"""What HTTP costs: tokens a second through the server beside the bare engine, with as many answers at once.

Run: python benchmarks/server_cost.py [MODEL] [--batch 16] [--tokens 128] [--rounds 5]        Prints one JSON line.
Workload: `batch` prompts of `--prompt` tokens, `tokens` generated each, greedily. Rounds alternate between the engine
(`Engine.generate`) and the server: the same engine, streamed to a client in a process of its own, which
reads to the end without parsing. The first round of each side is not counted.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import threading
import time
from typing import Any

from deepseek.engine.engine import Engine
from deepseek.hub import DEFAULT_MODEL
from deepseek.server.app import build_app
from deepseek.server.run import Server
from deepseek.server.server_config import ServerConfig


async def read_answer(port: int, body: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    said = b""
    while piece := await reader.read(65536):
        said += piece
    writer.close()
    assert said.startswith(b"HTTP/1.1 200"), said[:500]
    assert b"data: [DONE]" in said[-40:], said[-500:]


async def client(port: int, bodies: list[bytes]) -> None:
    """For each line on standard input, ask everything at once and print when all have been answered."""
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        await asyncio.gather(*(read_answer(port, body) for body in bodies))
        print("done", flush=True)


def prompts(batch: int, length: int, vocabulary: int) -> list[list[int]]:
    """Different from the first token on, so that nothing is shared."""
    return [[(31 * place + 17 * at + 100) % (vocabulary - 200) + 100 for at in range(length)] for place in range(batch)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default=DEFAULT_MODEL)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--prompt", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--client", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.client is not None:
        asyncio.run(client(args.client, [line.encode() for line in json.loads(sys.stdin.readline())]))
        return
    print(json.dumps(measure(args)))


def measure(args: argparse.Namespace) -> dict[str, Any]:
    engine = Engine.from_pretrained(args.model, enable_prefix_caching=False, speculation="off", max_num_seqs=args.batch)
    asked = prompts(args.batch, args.prompt, engine.model_config.vocab_size)
    fields: dict[str, Any] = {"max_tokens": args.tokens, "temperature": 0.0, "ignore_eos": True}
    config = ServerConfig(port=0, access_log="off")
    started = threading.Event()
    app = build_app(config, engine, "model")
    server = Server(app, config, lambda address: started.set())
    thread = threading.Thread(target=server.run)
    thread.start()
    started.wait()
    port = server.address.rpartition(":")[2]
    other = subprocess.Popen(
        [sys.executable, __file__, "--client", port], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdin is not None
    assert other.stdout is not None
    bodies = [json.dumps({"prompt": ids, "stream": True, **fields}) for ids in asked]
    other.stdin.write(json.dumps(bodies) + "\n")

    def through_the_server() -> None:
        assert other.stdin is not None
        assert other.stdout is not None
        other.stdin.write("\n")
        other.stdin.flush()
        assert other.stdout.readline() == "done\n"

    sides = {"engine": lambda: engine.generate(asked, **fields), "server": through_the_server}
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(args.rounds + 1):
        for side, run in sides.items():
            begun = time.perf_counter()
            run()
            seconds[side].append(time.perf_counter() - begun)
    other.stdin.close()
    other.wait()
    server.should_exit = True
    thread.join()
    tokens = args.batch * args.tokens
    rates = {side: [tokens / one for one in times[1:]] for side, times in seconds.items()}
    ratios = [server / engine for server, engine in zip(rates["server"], rates["engine"], strict=True)]
    return {
        "benchmark": "server_cost", "model": args.model, "batch": args.batch, "prompt": args.prompt,
        "tokens": args.tokens, "rounds": args.rounds,
        **{f"{side}_tokens_per_s": round(statistics.median(found), 1) for side, found in rates.items()},
        "ratio": round(statistics.median(ratios), 4), "ratios": [round(ratio, 4) for ratio in ratios],
    }  # fmt: skip


if __name__ == "__main__":
    main()
