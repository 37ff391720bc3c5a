"""The configuration of a model from whatever describes it: a config.json, a folder, a GGUF file."""

from pathlib import Path

from deepseek.checkpoint.strict_json import read_object
from deepseek.config import ModelConfig
from deepseek.errors import CheckpointError, ConfigError
from deepseek.families import config_from_hf

_MAX_CONFIG_BYTES = 4 << 20  # the largest published one is under 100 kB


def load_config(path: Path, *, allow_unknown: bool = False) -> ModelConfig:
    """`path`: a config.json under any name, a folder with one, or a .gguf file. No weights are needed or read.

    Raises ConfigError or CheckpointError naming the file and the key.
    """
    if path.is_dir() and (path / "config.json").is_file():
        path = path / "config.json"
    if path.suffix == ".json":
        return read_config(path, allow_unknown=allow_unknown)
    from deepseek.checkpoint.checkpoint import open_checkpoint

    with open_checkpoint(path, allow_unknown=allow_unknown) as checkpoint:
        return checkpoint.config


def read_config(path: Path, *, allow_unknown: bool = False) -> ModelConfig:
    """A config.json. Raises ConfigError naming the file and the key."""
    try:
        values = read_object(path, max_bytes=_MAX_CONFIG_BYTES, as_python=True)
    except CheckpointError as error:
        raise ConfigError(str(error)) from None
    return config_from_hf(values, where=str(path), allow_unknown=allow_unknown)
