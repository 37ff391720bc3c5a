"""What the routes of files and batches turn to: opens the store when it is first needed, or has work left to do."""

import asyncio
import logging
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deepseek.errors import ConfigError
from deepseek.hub.cache import temporary_folder
from deepseek.server.access.keys import Keyring
from deepseek.server.batches.database import NAME, Database, FolderInUse
from deepseek.server.batches.files import Files
from deepseek.server.batches.jobs import Jobs
from deepseek.server.batches.lines import Rules
from deepseek.server.batches.runner import Runner
from deepseek.server.errors import ApiError, out_of

if TYPE_CHECKING:
    from fastapi import FastAPI

    from deepseek.server.service import Service

ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")
_log = logging.getLogger("deepseek.server")


def default_folder() -> Path:
    """`deepseek` in `XDG_STATE_HOME` or ~/.local/state: what is here, unlike a cache, cannot be made again."""
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    try:
        return Path(base).expanduser().absolute() / "deepseek"
    except RuntimeError:
        folder = temporary_folder("deepseek-state")
        _log.warning("there is no home folder: files and batches go to %s; --data-dir names another", folder)
        return folder


@dataclass(frozen=True)
class Store:
    database: Database
    files: Files
    jobs: Jobs
    runner: Runner


class Desk:
    """One for an application."""

    def __init__(self, app: "FastAPI", service: "Service", keys: Keyring, paths: Collection[str]) -> None:
        """paths: of the application's routes."""
        config = service.config
        self._app = app
        self._service = service
        self._keys = keys
        self._folder = default_folder() if config.data_dir is None else Path(config.data_dir)
        self.endpoints = tuple(path for path in ENDPOINTS if path in paths)
        """Those that a batch may name here."""
        self._store: Store | None = None
        self._opening = asyncio.Lock()
        self.model = service.model_names[0]
        """For which batches are made here."""

    async def begin(self) -> None:
        """Go on with what an earlier process left. Raises ConfigError for a store that cannot be read."""
        if (self._folder / NAME).exists():
            try:
                await self.open()
            except FolderInUse:
                _log.warning("another server works on the batches in %s: this one takes none", self._folder)

    async def store(self) -> Store:
        """Raises ApiError where there can be none."""
        try:
            return await self.open()
        except FolderInUse:
            raise ApiError(
                503, "another server has the folder for files and batches: give this one its own with --data-dir",
                code="data_dir_in_use",
            ) from None  # fmt: skip
        except ConfigError as error:
            _log.error("%s", error)
            raise out_of(error) or ApiError(
                500, "the server's storage cannot be opened; its log says why", code="storage"
            ) from None

    async def open(self) -> Store:
        """Raises FolderInUse, or ConfigError where the folder cannot be used."""
        async with self._opening:
            if self._store is None:
                self._store = await self._open()
            return self._store

    async def _open(self) -> Store:
        config = self._service.config
        database = Database(self._folder)
        jobs = Jobs(database)
        try:
            await jobs.purge()
        except BaseException:
            database.close()
            raise
        rules = Rules(
            endpoint=None, endpoints=self.endpoints, models=self._service.model_names,
            most_lines=config.max_batch_lines, most_bytes=config.max_body_bytes,
        )  # fmt: skip
        files = Files(database, most_bytes=config.max_stored_bytes)
        return Store(database, files, jobs, Runner(self._app, self._service, self._keys, jobs, rules))

    async def close(self) -> None:
        """End what runs; it goes on when the store is next opened."""
        if self._store is not None:
            await self._store.runner.stop()
            self._store.database.close()
            self._store = None
