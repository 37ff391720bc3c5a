"""A stand-in for the hub on loopback: the few endpoints that huggingface_hub needs, with faults on demand."""

import hashlib
import json
import re
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

BLOCK = 64 * 1024


@dataclass
class Repo:
    """Files by commit. `token` is asked for when set; `gated` lets metadata through but no file."""

    commits: dict[str, dict[str, bytes]]
    refs: dict[str, str]
    token: str | None = None
    gated: bool = False

    @classmethod
    def of(cls, files: dict[str, bytes], commit: str = "a" * 40) -> "Repo":
        return cls(commits={commit: files}, refs={"main": commit})


@dataclass
class Faults:
    """What goes wrong, by file name."""

    cut_after: dict[str, list[int]] = field(default_factory=dict)  # one entry a request: bytes, then hang up
    hold_after: dict[str, int] = field(default_factory=dict)  # bytes, then wait for `released`
    corrupt: dict[str, int] = field(default_factory=dict)  # so many answers have their last byte changed
    status: dict[str, list[int]] = field(default_factory=dict)  # one entry a request
    ignore_range: bool = False
    no_range: bool = False


class HubServer:
    """Start with `with`; `sent[name]` counts the bytes of bodies that left for each file."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.faults = Faults()
        self.sent: dict[str, int] = defaultdict(int)
        self.answered: dict[str, int] = defaultdict(int)  # bodies that ended, whole or not
        self.ranges: list[tuple[str, str | None]] = []
        self.requests: list[str] = []
        self.tokens_at_store: list[str | None] = []
        self.released = threading.Event()
        self.listing_override: list[dict[str, object]] | None = None
        self._http = [ThreadingHTTPServer(("127.0.0.1", 0), _handler_for(self)) for _ in range(2)]
        self.url, self.store_url = (f"http://127.0.0.1:{http.server_address[1]}" for http in self._http)

    def __enter__(self) -> "HubServer":
        self._threads = [threading.Thread(target=http.serve_forever, args=(0.02,)) for http in self._http]
        for http, thread in zip(self._http, self._threads, strict=True):
            http.daemon_threads = True
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        for http, thread in zip(self._http, self._threads, strict=True):
            http.shutdown()
            thread.join()
            http.server_close()

    def forget(self) -> None:
        """Count anew."""
        self.sent.clear()
        self.answered.clear()
        self.ranges.clear()
        self.requests.clear()


def is_large(name: str) -> bool:
    return name.endswith((".safetensors", ".gguf", ".bin"))


def etag_of(name: str, content: bytes) -> str:
    if is_large(name):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content, usedforsecurity=False).hexdigest()


def _sibling(name: str, content: bytes) -> dict[str, object]:
    entry: dict[str, object] = {"rfilename": name, "size": len(content), "blobId": "b" * 40}
    if is_large(name):
        entry["lfs"] = {"sha256": etag_of(name, content), "size": len(content), "pointerSize": 134}
    else:
        entry["blobId"] = etag_of(name, content)
    return entry


def _handler_for(server: HubServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            server.requests.append(f"{self.command} {path}")
            if found := re.fullmatch(r"/api/models/([^/]+/[^/]+?)(?:/revision/(.+))?", path):
                self._model(found[1], found[2] or "main")
            elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
                self._resolve(found[1], found[2], found[3], body)
            elif found := re.fullmatch(r"/store/([^/]+/[^/]+)/([0-9a-f]{40})/(.+)", path):
                server.tokens_at_store.append(self.headers.get("Authorization"))
                content = server.repos[found[1]].commits[found[2]][found[3]]
                self._file(found[3], content, {}, body)
            else:
                self._refuse(404, "EntryNotFound")

        def _repo(self, name: str) -> Repo | None:
            repo = server.repos.get(name)
            if repo is None or (repo.token and self.headers.get("Authorization") != f"Bearer {repo.token}"):
                self._refuse(401, "RepoNotFound")
                return None
            return repo

        def _commit(self, repo: Repo, revision: str) -> str | None:
            commit = revision if revision in repo.commits else repo.refs.get(revision)
            if commit is None:
                self._refuse(404, "RevisionNotFound")
            return commit

        def _model(self, name: str, revision: str) -> None:
            if (repo := self._repo(name)) is None or (commit := self._commit(repo, revision)) is None:
                return
            siblings = [_sibling(file, content) for file, content in repo.commits[commit].items()]
            siblings = server.listing_override or siblings  # type: ignore[assignment]
            self._json({"id": name, "modelId": name, "sha": commit, "siblings": siblings, "private": False})

        def _resolve(self, name: str, revision: str, file: str, body: bool) -> None:
            if (repo := self._repo(name)) is None or (commit := self._commit(repo, revision)) is None:
                return
            if repo.gated:
                self._refuse(403, "GatedRepo")
                return
            if (statuses := server.faults.status.get(file)) and body:
                self._refuse(statuses.pop(0), "")
                return
            content = repo.commits[commit][file]
            headers = {"X-Repo-Commit": commit, "ETag": f'"{etag_of(file, content)}"'}
            if is_large(file):  # as at the hub: another origin serves the bytes
                headers |= {"X-Linked-Etag": headers["ETag"], "X-Linked-Size": str(len(content))}
                headers["Location"] = f"{server.store_url}/store/{name}/{commit}/{file}"
                self._start(302, headers, 0)
            else:
                self._file(file, content, headers, body)

        def _file(self, file: str, content: bytes, headers: dict[str, str], body: bool) -> None:
            asked = self.headers.get("Range") if body else None
            if body:
                server.ranges.append((file, asked))
            begin = 0
            if asked and server.faults.no_range:
                self._refuse(416, "")
                return
            if asked and not server.faults.ignore_range:
                begin = int(asked.removeprefix("bytes=").partition("-")[0])
                headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
            if server.faults.corrupt.get(file) and body:
                server.faults.corrupt[file] -= 1
                content = content[:-1] + bytes([content[-1] ^ 1])
            self._start(206 if "Content-Range" in headers else 200, headers, len(content) - begin)
            if body:
                self._send(file, content[begin:])

        def _send(self, file: str, content: bytes) -> None:
            try:
                self._send_blocks(file, content)
            finally:
                server.answered[file] += 1

        def _send_blocks(self, file: str, content: bytes) -> None:
            cuts = server.faults.cut_after.get(file)
            stop = cuts.pop(0) if cuts else None
            hold = server.faults.hold_after.pop(file, None)
            for begin in range(0, len(content), BLOCK):
                if stop is not None and begin >= stop:
                    self.close_connection = True
                    self.connection.shutdown(2)
                    return
                if hold is not None and begin >= hold:
                    server.released.wait(30)
                    hold = None
                block = content[begin : begin + BLOCK]
                try:
                    self.wfile.write(block)
                except OSError:  # the client is gone
                    self.close_connection = True
                    return
                server.sent[file] += len(block)

        def _json(self, value: object) -> None:
            payload = json.dumps(value).encode()
            self._start(200, {"Content-Type": "application/json"}, len(payload))
            self.wfile.write(payload)

        def _refuse(self, status: int, code: str) -> None:
            self._start(status, {"X-Error-Code": code} if code else {}, 0)

        def _start(self, status: int, headers: dict[str, str], length: int) -> None:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(length))
            self.end_headers()

    return Handler
