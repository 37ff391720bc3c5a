"""What the engine's Python costs a decode step: schedule, choose, text, finish, post. The runner does nothing.

Run: python benchmarks/scheduler_overhead.py [--steps 2000]        Prints one JSON line: median microseconds a step.
Workload: 1, 4 and 16 sequences that decode together, one token a step, and eight tokens a step ("multi", a token each).
Speculation by prompt look-up is on, over a text without repetition, so it looks and finds nothing.
"""

import argparse
import json
import statistics
import time
from types import SimpleNamespace
from typing import Any

import numpy as np

from deepseek.engine.advance import advance
from deepseek.engine.answer_text import AnswerText
from deepseek.engine.batch import StepOutput
from deepseek.engine.kv_blocks import KVBlocks
from deepseek.engine.mailboxes import ThreadMailbox
from deepseek.engine.pace import Pace
from deepseek.engine.scheduler import Scheduler
from deepseek.engine.sequence import Request
from deepseek.engine.speculation import PromptLookup, Speculator
from deepseek.sampling import SamplingParams

VOCAB = 49152


class Counter:
    """A sampler without arithmetic: counts upwards."""

    is_simple = True

    def __init__(self) -> None:
        self.choice = SimpleNamespace(token=1000, logprob=None, top=[])

    def choose(self, logits: Any) -> Any:
        self.choice.token += 1
        return self.choice

    def observe(self, token: int) -> None:
        self.choice.token = token


class Decoder:
    def push(self, token: int) -> str:
        return " word"

    def flush(self) -> str:
        return ""


def step_microseconds(sequences: int, steps: int, several: int) -> float:
    pace = Pace()
    pace.observe(sequences, 0, 1e-4 if several > 1 else 1.0)
    blocks = KVBlocks(n_blocks=sequences * (steps * several // 32 + 20), block_size=32, copy_block=lambda a, b: None)
    scheduler = Scheduler(
        blocks=blocks, pace=pace, max_sequences=32, max_tokens=2048, logit_rows=64, max_decode_steps=several,
        speculator=Speculator(PromptLookup(), pace),
    )  # fmt: skip
    params = SamplingParams(max_tokens=steps * several + 100, stop=("zzz",))
    mailbox = ThreadMailbox()
    for number in range(sequences):
        request = Request(
            id=str(number), prompt_ids=[number] * 64, params=params, make_sampler=lambda index: Counter(),
            limit=64 + params.max_tokens, ends=frozenset({0}), make_answer=lambda: AnswerText(Decoder(), params),
            mailbox=mailbox,
        )  # fmt: skip
        request.arrive(number, 1.0)
        scheduler.add(request)
    logits = np.zeros((64, VOCAB), np.float32)
    times = []
    for _ in range(steps):
        begun = time.perf_counter()
        batch = scheduler.schedule()
        computed = time.perf_counter()
        if batch.steps > 1:
            first = [chunk.sequence.token_ids[-1] + 1 for chunk in batch.chunks]
            output = StepOutput(logits[:0], [[token + place for place in range(batch.steps)] for token in first])
        else:
            output = StepOutput(logits)
        resumed = time.perf_counter()
        mailbox.post(advance(scheduler, batch, output))
        if len(batch.chunks) == sequences and batch.steps == several:
            times.append(computed - begun + time.perf_counter() - resumed)
    return statistics.median(times) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000)
    steps = parser.parse_args().steps
    result: dict[str, object] = {"benchmark": "scheduler_overhead", "unit": "microseconds a step"}
    for sequences in (1, 4, 16):
        result[f"sequences_{sequences}"] = round(step_microseconds(sequences, steps, 1), 1)
        result[f"sequences_{sequences}_multi_8"] = round(step_microseconds(sequences, steps // 4, 8), 1)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
