"""deepseek: the whole life of a mixture-of-experts model. Public names are imported when first used.

Importing this package loads neither PyTorch nor NumPy, so that a command answers at once.
"""

from importlib import import_module as _import_module

TYPE_CHECKING = False  # type checkers know the name; until Ctrl-C is handled, as little as possible is imported
if TYPE_CHECKING:
    from deepseek.client import AsyncClient as AsyncClient
    from deepseek.client import Client as Client
    from deepseek.client import ClientError as ClientError
    from deepseek.config import ModelConfig as ModelConfig
    from deepseek.engine.engine import Engine as Engine
    from deepseek.errors import CheckpointError as CheckpointError
    from deepseek.errors import ConfigError as ConfigError
    from deepseek.errors import DataError as DataError
    from deepseek.errors import DeepseekError as DeepseekError
    from deepseek.errors import GenerationError as GenerationError
    from deepseek.errors import HubError as HubError
    from deepseek.errors import TokenizerError as TokenizerError
    from deepseek.models.auto import AutoModel as AutoModel
    from deepseek.sampling import SamplingParams as SamplingParams
    from deepseek.sampling import StructuredOutput as StructuredOutput
    from deepseek.tokenizer import AutoTokenizer as AutoTokenizer

__version__ = "0.1.0.dev0"

_MODULES = {
    "deepseek.client": ("AsyncClient", "Client", "ClientError"),
    "deepseek.config": ("ModelConfig",),
    "deepseek.engine.engine": ("Engine",),
    "deepseek.errors": (
        "CheckpointError", "ConfigError", "DataError", "DeepseekError", "GenerationError", "HubError", "TokenizerError",
    ),
    "deepseek.models.auto": ("AutoModel",),
    "deepseek.sampling": ("SamplingParams", "StructuredOutput"),
    "deepseek.tokenizer": ("AutoTokenizer",),
}  # fmt: skip
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}
_INSTEAD = {"LLM": "Engine.from_pretrained(name)"}  # what users of other libraries look for
__all__ = [
    "AsyncClient",
    "AutoModel",
    "AutoTokenizer",
    "CheckpointError",
    "Client",
    "ClientError",
    "ConfigError",
    "DataError",
    "DeepseekError",
    "Engine",
    "GenerationError",
    "HubError",
    "ModelConfig",
    "SamplingParams",
    "StructuredOutput",
    "TokenizerError",
    "__version__",
]


def __getattr__(name: str) -> object:
    if name in _INSTEAD:  # `from deepseek import LLM` shows the message of an ImportError only
        raise ImportError(f"deepseek has no {name}: use {_INSTEAD[name]}")
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'deepseek' has no attribute {name!r}; it has {', '.join(sorted(__all__))}")
    try:
        return getattr(_import_module(_MODULE_OF[name]), name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ImportError(f"{name} needs PyTorch: pip install 'deepseek-framework[train]'") from None


def __dir__() -> list[str]:
    return sorted(__all__)
