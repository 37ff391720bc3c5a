"""What the READMEs say of the server is there: every path and every flag."""

import re
from dataclasses import fields
from pathlib import Path

import pytest
from fastapi.routing import APIRoute

from deepseek.server.app import ROUTERS
from deepseek.server.server_config import ServerConfig
from readme_tables import READMES


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.name)
def test_paths_and_flags_of_the_server_exist(path: Path) -> None:
    text = path.read_text()
    routes = {route.path for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)}
    table = text[text.index("`/v1/chat/completions`") : text.index("from openai import OpenAI")]
    named = set(re.findall(r"`(/[\w/.-]*)`", table))
    assert len(named) > 15
    assert named <= routes | {"/openapi.json"}
    flags = {f"--{each.name.replace('_', '-')}" for each in fields(ServerConfig)}
    assert set(re.findall(r"`(--[\w-]+)`", table)) <= flags
