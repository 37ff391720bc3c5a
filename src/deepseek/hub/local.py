"""Folders as users name them: a model's own, or the folder of a run of `deepseek train`, which holds several."""

from pathlib import Path

from deepseek.errors import HubError

_CHECKPOINTS, _FINAL = "checkpoints", "final"
_MODEL_FILES = (".gguf", ".safetensors")
_MOST_NAMED = 8


def model_path(path: Path) -> Path:
    """`path`, or the final checkpoint where it is a run's folder or its `checkpoints`.

    Raises HubError for a run that has none yet, naming the checkpoints that it has.
    """
    if not path.is_dir() or _holds_model(path):
        return path
    folder = path / _CHECKPOINTS if (path / _CHECKPOINTS).is_dir() else path
    if _holds_model(folder / _FINAL):
        return folder / _FINAL
    if found := models_in(folder):
        raise HubError(f"{folder} holds no final checkpoint but {_listed(found)}: give the path of one")
    return path


def model_name(path: Path) -> str:
    """What a model at `path` is called: its folder or file, or for a run's checkpoint the run."""
    if path.parent.name != _CHECKPOINTS or not path.is_dir():
        return path.name
    run = path.parent.parent.name
    return run if path.name == _FINAL else f"{run}-{path.name}"


def models_in(folder: Path) -> list[str]:
    """The names of the models in a folder; none where there is no such folder."""
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return []
    return [entry.name for entry in entries if not entry.name.startswith(".") and _is_model(entry)]


def missing(name: str) -> HubError:
    """The error for a path at which there is nothing: where it was looked for, and what lies beside it."""
    beside = models_in(Path(name).expanduser().parent) if Path(name).parent != Path(".") else []
    hint = f"; there {'is' if len(beside) == 1 else 'are'} {_listed(beside)}" if beside else ""
    return HubError(f"there is no file or folder {name}{hint}: check the path (this is {Path.cwd()})")


def _is_model(path: Path) -> bool:
    return path.suffix == ".gguf" if path.is_file() else _holds_model(path)


def _holds_model(folder: Path) -> bool:
    try:
        return any(file.name == "config.json" or file.suffix in _MODEL_FILES for file in folder.iterdir())
    except OSError:
        return False


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[-_MOST_NAMED:]) + more
