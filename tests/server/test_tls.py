"""HTTPS: with a certificate the server speaks nothing else."""

import json
import ssl
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from live_server import live, tiny_engine

FOLDER = Path(__file__).parent / "tls"


def test_https_with_a_certificate(tiny_folder: Path) -> None:
    files = {"ssl_certfile": str(FOLDER / "certificate.pem"), "ssl_keyfile": str(FOLDER / "key.pem")}
    with live(tiny_engine(tiny_folder), **files) as server:
        assert server.url.startswith("https://")
        trusted = ssl.create_default_context(cafile=files["ssl_certfile"])
        body = json.dumps({"prompt": "a", "max_tokens": 2}).encode()
        request = urllib.request.Request(f"{server.url}/v1/completions", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60, context=trusted) as answer:
            assert json.load(answer)["usage"]["completion_tokens"] == 2
        with pytest.raises(urllib.error.URLError, match="certificate verify failed"):
            urllib.request.urlopen(f"{server.url}/health", timeout=60, context=ssl.create_default_context())
        with pytest.raises((urllib.error.URLError, ConnectionError, OSError)):
            urllib.request.urlopen(f"{server.url.replace('https', 'http')}/health", timeout=60)
