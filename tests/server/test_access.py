"""Keys, quotas, Host and Origin, and what the access log holds."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deepseek.errors import ConfigError
from deepseek.server.access.access_log import AccessLog, RequestRecord
from deepseek.server.access.keys import Keyring
from deepseek.server.access.origins import Origins
from deepseek.server.access.quotas import Quota
from deepseek.server.errors import ApiError
from live_server import Live, live, tiny_engine

KEYS = """
keys:
  - {name: alice, key: sk-alice}
  - {name: bob, sha256: 3a1f0b3a7d4c5ecf3c2c2b0d8d6ac2b5a5d9c1f5c3a1e6ad7f2f7a6f1f0a9e11, requests_per_minute: 2}
  - {name: carol, key: sk-carol, requests_per_minute: 2}
  - {name: dora, key: sk-dora, tenant: alice}
  - {name: erin, key: sk-erin}
"""


@pytest.fixture(scope="module")
def guarded(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    file = tmp_path_factory.mktemp("keys") / "keys.yaml"
    file.write_text(KEYS)
    with live(tiny_engine(tiny_folder), api_key_file=str(file), allowed_origins=("https://app.example",)) as server:
        yield server


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_every_route_but_health_and_page_needs_a_key(guarded: Live) -> None:
    paths = guarded.client.get("/openapi.json", headers=bearer("sk-alice")).json()["paths"]
    assert len(paths) > 9
    for path, methods in [*paths.items(), ("/openapi.json", ["get"]), ("/nothing", ["get"])]:
        for method in methods:
            for headers in ({}, bearer("sk-wrong"), {"x-api-key": "sk-alic"}, bearer("' OR 1=1 --")):
                status = guarded.client.request(method, path, headers=headers).status_code
                assert status == (200 if path in ("/health", "/ready") else 401), path
    for path in ("/healthz", "/livez", "/readyz", "/ping", "//health/", "/v1/health"):
        assert guarded.client.get(path).status_code == 200, path
    for path in (
        "/models",
        "//v1/models",
        "/v1/v1/models",
        "/health/../v1/models",
        "/studio/../v1/models",
        "/v1/models/x",
    ):
        assert guarded.client.request("HEAD", path).status_code in (401, 404), path
    assert guarded.client.get("/").status_code == 200


def test_both_headers_take_a_key(guarded: Live) -> None:
    for headers in (bearer("sk-alice"), {"x-api-key": "sk-alice"}):
        assert guarded.client.get("/v1/models", headers=headers).status_code == 200


def test_a_rate_limit_says_when_to_come_back(guarded: Live) -> None:
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
    answers = [guarded.post("/v1/chat/completions", body, headers=bearer("sk-carol")) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert 1 <= int(answers[2].headers["retry-after"]) <= 30
    assert answers[2].json()["error"]["code"] == "requests_per_minute"


def test_cached_prompts_stay_within_a_tenant(guarded: Live) -> None:
    body = {"prompt": "the same long prompt for everybody " * 4, "max_tokens": 1}

    def cached(key: str) -> int:
        usage = guarded.post("/v1/completions", body, headers=bearer(key)).json()["usage"]
        return int(usage["prompt_tokens_details"]["cached_tokens"])

    assert cached("sk-alice") == 0
    assert cached("sk-alice") > 0
    assert cached("sk-dora") > 0
    assert cached("sk-erin") == 0


def test_a_page_of_another_origin_is_kept_out_or_let_in(guarded: Live) -> None:
    preflight = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST",
                 "Access-Control-Request-Headers": "authorization"}  # fmt: skip
    answer = guarded.client.request("OPTIONS", "/v1/chat/completions", headers=preflight)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    assert answer.headers["access-control-allow-headers"] == "authorization"
    read = guarded.client.get("/health", headers={"Origin": "https://app.example"})
    assert read.headers["access-control-allow-origin"] == "https://app.example"
    for origin in ("https://evil.example", "null"):
        assert guarded.client.get("/health", headers={"Origin": origin}).status_code == 403
    assert guarded.client.get("/health", headers={"Origin": guarded.url}).status_code == 200


LOCAL_NAMES = (
    "127.0.0.1:8000", "localhost:8000", "[::1]:8000", "192.168.0.7", "api.example", "a.localhost", "localhost.",
    "host.docker.internal:8000", "deepseek:8000", "my_service", "mypc.local:8000", "MyPC.Local", "nas.lan",
    "pc.home.arpa", "llm.default.svc.cluster.local", "gpu.corp", "a.ts.example.net", "box.internal.", "localhost:",
)  # fmt: skip
STRANGERS_NAMES = (
    "evil.example", "127.0.0.1.evil.example:80", "local.evil.com", "localhost.evil.com", "evil.com.", "fritz.box",
    "internal.com", "xlocal.com", "a.arpa", "ts.example.net.evil.com", "127.0.0.1.nip.io",
)  # fmt: skip


@pytest.mark.parametrize("own", ["127.0.0.1", "0.0.0.0"])
def test_names_that_no_stranger_can_own_are_taken(own: str) -> None:
    origins = Origins(own, ["api.example", "*.ts.example.net"], [])
    for host in LOCAL_NAMES:
        origins.check_host([host])
    for host in STRANGERS_NAMES:
        with pytest.raises(ApiError, match="--allowed-hosts"):
            origins.check_host([host])
    for malformed in ("", "a b", "localhost:8000:1", "[::1", "x@localhost", "localhost:port", "a/b"):
        with pytest.raises(ApiError, match="a name or an address"):
            origins.check_host([malformed])
    Origins(own, ["*"], []).check_host(["evil.example"])


def test_how_often_a_host_is_named() -> None:
    origins = Origins("127.0.0.1", [], [])
    origins.check_host([], "1.0")
    with pytest.raises(ApiError, match="a name or an address"):
        origins.check_host([])
    with pytest.raises(ApiError, match="two Host headers"):
        origins.check_host(["localhost", "localhost"])


OWN_PAGES = (
    "http://localhost:3000", "https://localhost", "http://127.0.0.1:5173", "http://[::1]:8080", "http://0.0.0.0:3000",
    "http://tauri.localhost", "app://obsidian.md", "vscode-webview://1abc", "chrome-extension://abcdefgh",
    "moz-extension://0d5a-11", "safari-web-extension://1B2C", "tauri://localhost", "capacitor://localhost",
    "ionic://localhost", "file://", "http://nas.local:3000",
)  # fmt: skip
STRANGERS_PAGES = (
    "https://evil.example", "null", "", "http://localhost.evil.example", "http://evil.example:8000",
    "https://chrome-extension.evil.example", "http://127.0.0.1.evil.example", "http://nas.local.evil.example",
    "http://192.168.0.9:3000", "localhost:3000", "http://localhost:3000/", "http://", "//localhost",
    "javascript:alert(1)", "ftp://evil.example", "wss://evil.example",
)  # fmt: skip


def test_pages_and_apps_of_this_machine_may_use_the_api() -> None:
    origins = Origins("127.0.0.1", [], ["https://app.example/", "null"])
    for origin in (*OWN_PAGES, "https://app.example"):
        assert origins.check_origin(origin, "nas.local:8000"), origin
    assert origins.check_origin("null", "localhost:8000")
    strict = Origins("127.0.0.1", [], [])
    for origin in STRANGERS_PAGES:
        with pytest.raises(ApiError, match="may not use the API"):
            strict.check_origin(origin, "nas.local:8000")
    assert not strict.check_origin(None, "localhost")
    assert not strict.check_origin("http://nas.local:8000", "nas.local:8000")


def test_with_a_key_any_name_will_do(guarded: Live) -> None:
    public = {"Host": "llm.example.com"}
    assert guarded.client.get("/v1/models", headers={**public, **bearer("sk-alice")}).status_code == 200
    assert guarded.client.get("/v1/models", headers={**public, **bearer("guess")}).status_code == 401


def test_a_preflight_may_ask_for_the_private_network(tiny: Live) -> None:
    asked = {
        "Origin": "http://localhost:3000", "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-stainless-os",
        "Access-Control-Request-Private-Network": "true",
    }  # fmt: skip
    answer = tiny.client.request("OPTIONS", "/v1/chat/completions", headers=asked)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-private-network"] == "true"
    assert answer.headers["access-control-allow-headers"] == asked["Access-Control-Request-Headers"]
    assert {"HEAD", "OPTIONS", "DELETE"} <= set(answer.headers["access-control-allow-methods"].split(", "))


def test_quotas_by_a_clock() -> None:
    now = 0.0
    quota = Quota(tokens_per_minute=60, max_concurrent=2, clock=lambda: now)
    quota.enter()
    quota.enter()
    with pytest.raises(ApiError, match="max_concurrent"):
        quota.enter()
    quota.leave(90)
    quota.leave(0)
    with pytest.raises(ApiError, match="tokens_per_minute") as refused:
        quota.enter()
    assert refused.value.headers == {"Retry-After": "31"}
    now = 31.5
    quota.enter()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "must hold `keys:`"),
        ("keys: [{name: a}]", "give key or sha256"),
        ("keys: [{name: a, key: b, limit: 3}]", "unknown 'limit'"),
        ("keys: [{name: 'a b', key: b}]", "name must be"),
        ("keys: [{name: a, key: b, tokens_per_day: 0}]", "tokens_per_day must be"),
        ("keys: [{name: a, key: b}, {name: c, key: b}]", "the same key"),
        ("keys: [", "cannot be read as YAML"),
    ],
)
def test_a_bad_keys_file_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "keys.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        Keyring((), str(tmp_path / "keys.yaml"))


def test_log_lines_are_json_and_one_each() -> None:
    file = io.StringIO()
    log = AccessLog(file)
    log.write(RequestRecord("id", "127.0.0.1", "GET", '/a\n{"status": 200}', status=404))
    log.close()
    (line,) = file.getvalue().splitlines()
    told: dict[str, Any] = json.loads(line)
    assert told["path"] == '/a\n{"status": 200}'
    assert told["status"] == 404
    assert set(told) == {"request_id", "client", "method", "path", "time", "status"}


def test_request_ids(guarded: Live) -> None:
    assert guarded.client.get("/health", headers={"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"
    assert guarded.client.get("/health", headers={"x-request-id": "a b"}).headers["x-request-id"] != "a b"


def test_a_proxy_may_leave_the_root_path_or_take_it_away(tiny_folder: Path) -> None:
    with live(tiny_engine(tiny_folder), root_path="/llm", api_key=("sk",)) as server:
        address = server.url.removesuffix("/llm")
        for path in ("/llm/health", "/health", "/", "/llm/"):
            assert server.client.get(f"{address}{path}").status_code == 200
        for path in ("/llm/v1/models", "/v1/models"):
            assert server.client.get(f"{address}{path}").status_code == 401
            assert server.client.get(f"{address}{path}", headers=bearer("sk")).status_code == 200
