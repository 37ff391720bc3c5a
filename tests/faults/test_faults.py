"""What happens to machines, keys and connections: lines 33 to 41 of the list, as far as other tests lack them.

tests/faults/README.md says where each line is.
"""

import concurrent.futures
import hmac
import json
import os
import resource
import shutil
import signal
import socket
import time
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from deepseek.checkpoint.packed.cache import store_path
from deepseek.server import metrics
from deepseek.server.access.keys import Keyring
from deepseek.server.routes.status import resident_bytes
from live_server import Live, live, tiny_engine
from served_process import served, until

TEXT = "/v1/completions"
LONG: dict[str, Any] = {"prompt": "go on", "max_tokens": 1500, "ignore_eos": True, "temperature": 0}


def test_every_guess_of_a_key_takes_the_same_comparisons(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = Keyring(("first", "second", "third"), None)
    compared: list[int] = []
    compare = hmac.compare_digest

    def counted(a: bytes, b: bytes) -> bool:
        compared.append(len(b))
        return compare(a, b)

    monkeypatch.setattr(hmac, "compare_digest", counted)
    for guess in ("first", "third", "firs", "", "x" * 10_000, "' OR '1'='1"):
        compared.clear()
        assert (keys.find(guess) is not None) == (guess in ("first", "third"))
        assert compared == [32, 32, 32]


@pytest.mark.parametrize("name", ["' OR 1=1 --", "x'; DROP TABLE files; --", "../../etc/passwd", "%00", "a" * 5000])
def test_names_of_files_and_batches_are_only_names(tiny_folder: Path, name: str, tmp_path: Path) -> None:
    with live(tiny_engine(tiny_folder), data_dir=str(tmp_path)) as server:
        kept = server.client.post("/v1/files", data={"purpose": "batch"}, files={"file": (name[:100], b"x")}).json()
        quoted = httpx.URL(f"http://x/{name[:200]}").raw_path.decode().lstrip("/").replace("/", "%2F")
        for path in (f"/v1/files/{quoted}", f"/v1/files/{quoted}/content", f"/v1/batches/{quoted}"):
            assert server.client.get(path).status_code == 404
        assert server.client.delete(f"/v1/files/{quoted}").status_code == 404
        assert server.client.get("/v1/files", params={"after": name[:100]}).status_code == 404
        assert [file["id"] for file in server.client.get("/v1/files").json()["data"]] == [kept["id"]]


def test_a_killed_server_breaks_its_streams_and_says_the_same_again(tiny_folder: Path) -> None:
    """A stream that was cut has no end mark, so that nobody takes it for whole; asked again, it begins alike."""
    told: list[str] = []
    with served(tiny_folder) as (process, address), httpx.Client(base_url=address, timeout=60) as client:
        ended = False
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):  # noqa: PT012, SIM117
            with client.stream("POST", TEXT, json={**LONG, "stream": True}) as answer:
                for line in answer.iter_lines():
                    ended |= line == "data: [DONE]"
                    if line.startswith("data: {"):
                        told.append(json.loads(line[6:])["choices"][0]["text"])
                    if len(told) == 20:
                        process.send_signal(signal.SIGKILL)
        assert not ended
    with served(tiny_folder) as (_, address), httpx.Client(base_url=address, timeout=60) as client:
        whole = client.post(TEXT, json=LONG).json()["choices"][0]["text"]
    assert len(told) >= 20
    assert whole.startswith("".join(told))
    assert len(whole) > len("".join(told))


def test_weights_cut_while_they_are_mapped(tiny_folder: Path, tmp_path: Path) -> None:
    """The process says why and ends, never by a signal nor with a wrong answer; the next start mends the store."""
    folder = tmp_path / "cut"  # of its own: this process may have mapped the store of the other one
    shutil.copytree(tiny_folder, folder)
    store, log = store_path(folder, "f32"), tmp_path / "log"
    with (
        served(folder, log=log) as (process, address),
        httpx.Client(base_url=address, timeout=60) as client,
    ):
        good = client.post(TEXT, json={**LONG, "max_tokens": 20}).json()["choices"][0]["text"]
        os.truncate(store, 4096)
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            client.post(TEXT, json={**LONG, "max_tokens": 20, "prompt": "another"})
        assert process.wait(60) == 1
        assert "error: a file of weights cannot be read any more" in log.read_text()
    with served(folder) as (_, address), httpx.Client(base_url=address, timeout=60) as client:
        assert client.post(TEXT, json={**LONG, "max_tokens": 20}).json()["choices"][0]["text"] == good


def test_weights_that_are_replaced_by_renaming_stay_as_they_were(tiny_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "replaced"
    shutil.copytree(tiny_folder, folder)
    store = store_path(folder, "f32")
    with served(folder) as (process, address), httpx.Client(base_url=address, timeout=60) as client:
        ask = {**LONG, "max_tokens": 20}
        good = client.post(TEXT, json=ask).json()["choices"][0]["text"]
        other = store.with_suffix(".other")
        other.write_bytes(b"\0" * 8192)
        other.replace(store)
        assert client.post(TEXT, json={**ask, "cache_salt": "x"}).json()["choices"][0]["text"] == good
        assert process.poll() is None


def test_a_database_that_cannot_be_read(tiny_folder: Path, tmp_path: Path) -> None:
    """Who needs it gets a typed error; answers go on."""
    with live(tiny_engine(tiny_folder), data_dir=str(tmp_path), response_store=str(tmp_path / "kept.sqlite")) as server:
        kept = server.post("/v1/responses", {"input": "a", "max_output_tokens": 2}).json()["id"]
        server.client.post("/v1/files", data={"purpose": "batch"}, files={"file": ("a", b"x")}).raise_for_status()
        for path in tmp_path.iterdir():
            if path.suffix != ".lock":
                with path.open("r+b") as file:
                    file.write(b"\xff" * path.stat().st_size)
        for answer in (server.client.get("/v1/files"), server.client.get(f"/v1/responses/{kept}")):
            assert answer.status_code == 500, answer.text
            assert answer.json()["error"]["code"] == "storage"
        assert server.chat("hi", max_tokens=2).status_code == 200
        assert server.post("/v1/responses", {"input": "a", "store": False, "max_output_tokens": 2}).status_code == 200


def test_no_descriptors_left(tiny_folder: Path) -> None:
    def starve() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))

    with served(tiny_folder, before=starve) as (process, address), httpx.Client(base_url=address, timeout=60) as client:
        short = {**LONG, "max_tokens": 5}
        assert client.post(TEXT, json=short).status_code == 200  # its connection stays
        port = int(address.rpartition(":")[2])
        crowd = [socket.create_connection(("127.0.0.1", port)) for _ in range(150)]
        assert client.post(TEXT, json=short).status_code == 200
        for one in crowd:
            one.close()
        with httpx.Client(base_url=address, timeout=60) as late:
            assert late.post(TEXT, json=short).status_code == 200
        assert process.poll() is None


def test_who_reads_slowly_keeps_nobody_waiting(target: Live) -> None:
    before = resident_bytes() or 0
    port = int(target.url.rpartition(":")[2])
    body = json.dumps({**LONG, "max_tokens": 300, "stream": True, "n": 4, "logprobs": 5}).encode()
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", port))
        slow.sendall(
            b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        until(lambda: target.engine.load().running > 0)
        for _ in range(5):
            assert target.chat("hi", max_tokens=3).status_code == 200
        until(lambda: target.engine.load().running == 0)  # the engine does not wait for readers
        assert (resident_bytes() or 0) - before < 64 << 20
    until(lambda: target.engine._core.n_requests == 0)


def test_a_clock_that_jumps(target: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits of time go by the steady clock; only what is told and what expires goes by the other."""
    real = time.time
    for jump in (86_400 * 365, -86_400 * 365, 0):
        monkeypatch.setattr(time, "time", lambda jump=jump: real() + jump)
        answer = target.chat("hi", max_tokens=5)
        assert answer.status_code == 200
        assert abs(answer.json()["created"] - real() - jump) < 60
        assert target.client.get("/health").status_code == 200
        assert target.client.get("/v1/server/status").status_code == 200


def test_a_storm_of_scrapes_costs_little(target: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many ask at once, the metrics are put together a few times."""
    made: list[int] = []
    generate = metrics.generate_latest

    def counted(registry: Any) -> bytes:
        made.append(1)
        return generate(registry)

    monkeypatch.setattr(metrics, "generate_latest", counted)
    monkeypatch.setattr(metrics, "SCRAPE_SECONDS", 3600.0)

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        asked = pool.map(lambda _: target.client.get("/metrics").status_code, range(200))
        assert target.chat("hi", max_tokens=20).status_code == 200
        assert set(asked) == {200}
    assert len(made) <= 1
    assert target.client.get("/metrics").text.count("deepseek:num_requests_running") >= 1
