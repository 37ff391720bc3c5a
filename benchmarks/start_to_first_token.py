"""From the command to the first token: the whole process, Python's own start and the tokenizer included.

Run: python benchmarks/start_to_first_token.py [MODEL] [--rounds 5]      Prints one JSON line.
Measured: `deepseek generate MODEL --prompt ... --max-tokens 1`, with caches warm (median), and once with an empty cache
folder, where kernels are compiled and weights packed first. The model's own files are there before. With
llama-cpp-python installed and a GGUF file, in alternation: a Python process that makes one token with its `Llama`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

from deepseek import hub

PROMPT = "The capital of France is"
LLAMA_CPP = """
import sys
from llama_cpp import Llama
model = Llama(sys.argv[1], n_ctx=512, n_threads=int(sys.argv[3]), verbose=False)
print(model(sys.argv[2], max_tokens=1, temperature=0)["choices"][0]["text"])
"""


def seconds(command: list[str], **environment: str) -> float:
    begun = time.perf_counter()
    subprocess.run(command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default=hub.DEFAULT_MODEL)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    path = hub.resolve(args.model).path
    script = str(Path(sys.executable).parent / "deepseek")
    commands = {"deepseek": [script, "generate", str(path), "--prompt", PROMPT, "--max-tokens", "1"]}
    if path.suffix == ".gguf" and find_spec("llama_cpp") is not None:
        commands["llama.cpp"] = [sys.executable, "-c", LLAMA_CPP, str(path), PROMPT, str(args.threads)]
    with tempfile.TemporaryDirectory() as empty:
        first = seconds(commands["deepseek"], DEEPSEEK_CACHE=empty)
    times: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(args.rounds + 1):
        for name, command in commands.items():
            taken = seconds(command)
            if number:  # the first round warms the caches up
                times[name].append(taken)
    result = {
        "benchmark": "start_to_first_token",
        "model": path.name,
        "rounds": args.rounds,
        "first_ever_s": round(first, 2),
        "warm_s": {name: round(statistics.median(taken), 3) for name, taken in times.items()},
        "python_alone_s": round(statistics.median(seconds([sys.executable, "-c", ""]) for _ in range(args.rounds)), 3),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
