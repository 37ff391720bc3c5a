"""Decoding beside one busy process, with threads that spin while they wait and with threads that sleep, in alternation.

Run: python benchmarks/waiting_threads.py [--rounds 3]        Prints one JSON line; needs the extra `train`.
Workload: SmolLM2-135M-Instruct in bf16, 8 tokens after a prompt of 8, the first not counted.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys

DECODE = """
import time
from deepseek import AutoModel
model = AutoModel.from_pretrained("smollm2", dtype="bfloat16")
times = [time.perf_counter() for _ in model.stream(list(range(100, 108)), max_tokens=9, temperature=0, ignore_eos=True)]
print((len(times) - 1) / (times[-1] - times[0]))
"""


def tokens_per_second(policy: str) -> float:
    environment = {**os.environ, "OMP_WAIT_POLICY": policy}
    result = subprocess.run([sys.executable, "-c", DECODE], env=environment, capture_output=True, text=True, check=True)
    return float(result.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        speeds = [(tokens_per_second("ACTIVE"), tokens_per_second("PASSIVE")) for _ in range(rounds)]
    finally:
        busy.kill()
    spinning, sleeping = zip(*speeds, strict=True)
    result = {
        "benchmark": "waiting_threads",
        "rounds": rounds,
        "spinning": round(statistics.median(spinning), 2),
        "sleeping": round(statistics.median(sleeping), 2),
        "ratio": round(statistics.median(b / a for a, b in speeds), 1),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
