"""Several prompts of one request, as many at a time as run together."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, TypeVar

from deepseek.server.generation import Answer

if TYPE_CHECKING:
    from deepseek.server.service import Service

Result = TypeVar("Result")


async def run_all(service: "Service", count: int, run: Callable[[int], Awaitable[Result]]) -> list[Result]:
    """What `run` gives for each number below `count`, in order. The first error ends the others and is raised."""
    seats = asyncio.Semaphore(2 * service.config.max_num_seqs)

    async def seated(place: int) -> Result:
        async with seats:
            return await run(place)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(seated(place)) for place in range(count)]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


async def finish(answer: Answer) -> Answer:
    """The same answer, when nothing more comes of it."""
    async with aclosing(answer.steps()) as steps:
        async for _ in steps:
            pass
    return answer
