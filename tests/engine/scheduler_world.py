"""A scheduler over the fake runner, driven step by step."""

from dataclasses import dataclass
from typing import Any

from deepseek.engine.advance import advance
from deepseek.engine.kv_blocks import KVBlocks
from deepseek.engine.outputs import TokenEvent
from deepseek.engine.pace import Pace
from deepseek.engine.prediction import PredictionLayers
from deepseek.engine.scheduler import Scheduler
from deepseek.engine.sequence import Request, Sequence
from deepseek.engine.speculation import Speculator, TextDrafter
from fake_runner import VOCAB, FakeRunner, HashSampler, expected


@dataclass(frozen=True)
class Params:
    """The fields of SamplingParams that scheduling reads."""

    max_tokens: int = 8
    n: int = 1
    seed: int | None = None
    min_p: float = 0.0
    logprobs: int | None = None
    prompt_logprobs: int | None = None


class World:
    """The scheduler, its runner, and the tokens of every request and sample so far."""

    def __init__(self, runner: FakeRunner, *, max_sequences: int = 4, speculator: Any = None, **settings: Any) -> None:
        self.runner = runner
        caching = settings.pop("caching", True)
        self.blocks = KVBlocks(
            n_blocks=runner.n_blocks, block_size=runner.block_size, copy_block=runner.copy_block, caching=caching
        )
        runner.pool = self.blocks.pool
        pace = settings.pop("pace", Pace())
        if runner.prediction_layers:
            speculator = Speculator(PredictionLayers(runner, self.blocks), pace, always=True)
        self.scheduler = Scheduler(
            blocks=self.blocks, pace=pace, max_sequences=max_sequences, max_tokens=runner.max_tokens_per_step,
            logit_rows=64, speculator=speculator, **settings,
        )  # fmt: skip
        self.tokens: dict[tuple[str, int], list[int]] = {}
        self.count = 0

    def add(
        self,
        prompt: list[int],
        params: Params,
        *,
        priority: int = 0,
        salt: bytes = b"",
        ends: frozenset[int] = frozenset(),
        sampler: type[HashSampler] = HashSampler,
    ) -> Request:
        self.count += 1
        request = Request(
            id=str(self.count),
            prompt_ids=prompt,
            params=params,  # type: ignore[arg-type]
            make_sampler=lambda index: sampler(params, VOCAB, prompt, (), index),
            limit=min(len(prompt) + params.max_tokens, self.runner.n_blocks * self.runner.block_size),
            priority=priority,
            prefix_root=salt,
            ends=ends,
        )
        request.arrive(self.count, 1.0)
        self.scheduler.add(request)
        return request

    def step(self) -> None:
        batch = self.scheduler.schedule()
        output = self.runner.run(batch)
        for request, event in advance(self.scheduler, batch, output):
            assert isinstance(event, TokenEvent), event
            assert event.token_id is not None
            self.tokens.setdefault((request.id, event.sample), []).append(event.token_id)

    def run(self, limit: int = 2000) -> None:
        for _ in range(limit):
            if not self.scheduler.has_work:
                return
            self.step()
        raise AssertionError("work is left: somebody starves")

    def check(self, request: Request) -> None:
        for index in range(request.params.n):
            assert self.tokens[request.id, index] == expected(
                request.prompt_ids, request.params, request.limit, index, request.ends
            ), f"request {request.id}, sample {index}"

    def check_all_returned(self) -> None:
        assert self.blocks.pool.n_free == self.runner.n_blocks


class Oracle(TextDrafter):
    """Drafts from the known answer, wrong at every `wrong`-th place."""

    def __init__(self, wrong: int = 0) -> None:
        self.wrong = wrong

    def guess(self, sequence: Sequence, limit: int) -> list[int]:
        request = sequence.request
        answer = expected(request.prompt_ids, request.params, request.limit + 20, sequence.index)
        begin = sequence.n_generated
        drafts = answer[begin : begin + limit]
        return [
            (token + 1) % VOCAB if self.wrong and (begin + place) % self.wrong == 0 else token
            for place, token in enumerate(drafts)
        ]
