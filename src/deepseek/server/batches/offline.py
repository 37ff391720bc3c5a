"""A batch without a server: the same store, lines and runner around an engine in this process.

Until all is answered the store lies beside the output, in `OUTPUT.progress/`; running the same command again goes on
with it.
"""

import asyncio
import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepseek.checkpoint.atomic import atomic_file
from deepseek.errors import ConfigError, GenerationError
from deepseek.progress import Report, silent
from deepseek.server.app import build_app
from deepseek.server.batches.database import FolderInUse
from deepseek.server.batches.desk import Desk, Store
from deepseek.server.batches.records import FAILED, Job

if TYPE_CHECKING:
    from deepseek.engine.engine import Engine
    from deepseek.server.server_config import ServerConfig

_LOOK_SECONDS = 0.5
_UNLIMITED = 1 << 62
_WINDOW_SECONDS = 100 * 365 * 86_400


@dataclass(frozen=True, slots=True)
class Done:
    """errors: where the lines that were refused are; None: there are none."""

    completed: int
    failed: int
    errors: Path | None


def progress_folder(output: Path) -> Path:
    return output.with_name(f"{output.name}.progress")


def errors_path(output: Path) -> Path:
    return output.with_name(f"{output.stem}.errors{output.suffix}")


def run_file(
    engine: "Engine", config: "ServerConfig", model_name: str, file: Path, output: Path, *,
    sampling_defaults: Mapping[str, Any] | None = None, report: Report = silent,
) -> Done:  # fmt: skip
    """Answer every line of `file` into `output`, in order. Closes the engine.

    Raises GenerationError for a file that holds something else than requests, and ConfigError when an unfinished run
    of another file is in the way.
    """
    folder = progress_folder(output)
    config = replace(
        config, data_dir=str(folder), api_key=(), api_key_file=None, max_batch_lines=_UNLIMITED,
        max_stored_bytes=_UNLIMITED,
    )  # fmt: skip
    app = build_app(config, engine, model_name, sampling_defaults)

    async def work() -> Done:
        async with app.router.lifespan_context(app):
            desk: Desk = app.state.desk
            return await _answered(desk, file, output, report)

    try:
        done = asyncio.run(work())
    except FolderInUse:
        raise ConfigError(f"{output}: another process writes it; wait for it, or give another with -o") from None
    except GenerationError:
        shutil.rmtree(folder)  # nothing of the file was answered
        raise
    shutil.rmtree(folder)
    return done


async def _answered(desk: Desk, file: Path, output: Path, report: Report) -> Done:
    store = await desk.open()
    job = await _begun(store, desk.model, file, output)
    while job.is_open:
        await asyncio.sleep(_LOOK_SECONDS)
        job = await store.jobs.get("", job.id)
        if job.total:
            report(f"{file.name}", job.completed + job.failed, job.total, "lines")
    if job.status == FAILED:
        raise GenerationError(_what_is_wrong(job, file))
    await _write(store, job.output_file_id, output)
    if job.error_file_id is None:
        errors_path(output).unlink(missing_ok=True)
        return Done(job.completed, job.failed, None)
    await _write(store, job.error_file_id, errors_path(output))
    return Done(job.completed, job.failed, errors_path(output))


async def _begun(store: Store, model: str, file: Path, output: Path) -> Job:
    """The batch of this file: the one that was begun, or a new one."""
    digest = await asyncio.to_thread(_digest, file)
    jobs, _ = await store.jobs.listed("", after=None, limit=1)
    if jobs and jobs[0].status != FAILED:
        given = await store.files.get("", jobs[0].input_file_id)
        if given.filename != digest or jobs[0].model != model:
            raise ConfigError(
                f"{progress_folder(output)} holds an unfinished run of another file or model: finish it, delete the "
                "folder, or give another output with -o"
            )
        return jobs[0]
    with file.open("rb") as content:
        given = await store.files.add("", digest, content)
    job = await store.jobs.create(
        "", key_name=None, endpoint=None, model=model, input_file_id=given.id, completion_window="",
        window_seconds=_WINDOW_SECONDS,
    )  # fmt: skip
    store.runner.wake()
    return job


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _what_is_wrong(job: Job, file: Path) -> str:
    errors = job.told()["errors"]["data"]
    told = [f"line {each['line']}: {each['message']}" if each["line"] else each["message"] for each in errors[:5]]
    more = f" (and {len(errors) - 5} more)" if len(errors) > 5 else ""
    return f"{file}: {'; '.join(told)}{more}"


async def _write(store: Store, file_id: str | None, path: Path) -> None:
    with atomic_file(path) as file:
        if file_id is not None:
            async for data in store.files.content(await store.files.get("", file_id)):
                await asyncio.to_thread(file.write, data)
