"""Where responses are kept."""

import sqlite3
from pathlib import Path

import pytest

from deepseek.errors import ConfigError
from deepseek.server.response_store import ResponseStore


def put(store: ResponseStore, tenant: str, name: str, length: int = 10) -> None:
    store.put(tenant, name, name.encode().ljust(length), b"")


def kept(store: ResponseStore, tenant: str, *names: str) -> list[str]:
    return [name for name in names if store.response(tenant, name) is not None]


def test_a_tenants_oldest_are_forgotten_and_nobody_elses() -> None:
    store = ResponseStore(None, most_bytes=35)
    put(store, "b", "other", 30)
    for name in "uvwxyz":
        put(store, "a", name)
    assert kept(store, "a", *"uvwxyz") == ["x", "y", "z"]
    assert kept(store, "b", "other") == ["other"]


def test_the_newest_is_kept_whatever_its_length() -> None:
    store = ResponseStore(None, most_bytes=35)
    put(store, "a", "x")
    put(store, "a", "y", 100)
    assert kept(store, "a", "x", "y") == ["y"]
    put(store, "a", "z")
    assert kept(store, "a", "y", "z") == ["z"]


def test_what_was_deleted_makes_room() -> None:
    store = ResponseStore(None, most_bytes=35)
    for name in "xyz":
        put(store, "a", name)
    assert not store.delete("b", "x")
    assert store.delete("a", "y")
    assert not store.delete("a", "y")
    put(store, "a", "w")
    assert kept(store, "a", *"wxyz") == ["w", "x", "z"]


def test_lengths_are_known_again_after_a_restart(tmp_path: Path) -> None:
    path = str(tmp_path / "kept.sqlite")
    store = ResponseStore(path, most_bytes=35)
    for name in "xyz":
        put(store, "a", name)
    store.close()
    store = ResponseStore(path, most_bytes=35)
    put(store, "a", "w")
    assert kept(store, "a", *"wxyz") == ["w", "y", "z"]
    store.close()


def test_files_that_are_none_of_ours(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("no database" * 100)
    newer = tmp_path / "newer"
    with sqlite3.connect(newer) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    for path in (text, newer, tmp_path / "no" / "folder", tmp_path):
        with pytest.raises(ConfigError, match=r"response_store: .* cannot be used .*: choose another file"):
            ResponseStore(str(path), 100)
