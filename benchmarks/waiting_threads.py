"""Training steps with threads that spin while they wait for each other, that sleep, and that spin briefly.

Run: python benchmarks/waiting_threads.py [--rounds 3]        Prints one JSON line; needs `dev`.
Workload: the model of `training_step.py`, 2 x 512 tokens a step, alone on the machine and beside one busy process; 6
steps to warm up, then the median of 5. Medians of alternating rounds, and ratios to sleeping.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

WAITS = {
    "spinning": {"OMP_WAIT_POLICY": "ACTIVE"},
    "sleeping": {"OMP_WAIT_POLICY": "PASSIVE"},
    "brief": {"GOMP_SPINCOUNT": "1000"},
}
STEPS = """
import statistics, time, torch
import training_step
dtype = training_step.choose_dtype("auto", torch.device("cpu"))
_, step = training_step.ours(torch.get_num_threads(), dtype)
tokens = torch.randint(0, training_step.CONFIG.vocab_size, (2, 513))
def timed():
    begun = time.perf_counter()
    step(tokens)
    return time.perf_counter() - begun
print(1024 / statistics.median([timed() for _ in range(11)][6:]))
"""


def tokens_per_second(wait: dict[str, str]) -> float:
    inherited = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    here = Path(__file__).parent
    result = subprocess.run(
        [sys.executable, "-c", STEPS], env=inherited | wait, cwd=here, capture_output=True, text=True, check=True
    )
    return float(result.stdout)


def medians(rounds: int) -> dict[str, float]:
    speeds = [{name: tokens_per_second(wait) for name, wait in WAITS.items()} for _ in range(rounds)]
    found = {name: round(statistics.median(speed[name] for speed in speeds), 1) for name in WAITS}
    for name in ("spinning", "brief"):
        ratio = statistics.median(speed[name] / speed["sleeping"] for speed in speeds)
        found[f"{name}_to_sleeping"] = round(ratio, 2)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    found = {"benchmark": "waiting_threads", "rounds": rounds, "alone": medians(rounds)}
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        found["beside_busy"] = medians(rounds)
    finally:
        busy.kill()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
