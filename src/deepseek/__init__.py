"""deepseek: the whole life of a mixture-of-experts model. Public names are imported when first used.

Importing this package loads neither PyTorch nor NumPy, so that a command answers at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deepseek.client import AsyncClient as AsyncClient
    from deepseek.client import Client as Client
    from deepseek.config import ModelConfig as ModelConfig
    from deepseek.engine.engine import Engine as Engine
    from deepseek.models.auto import AutoModel as AutoModel
    from deepseek.sampling import SamplingParams as SamplingParams
    from deepseek.tokenizer import AutoTokenizer as AutoTokenizer

__version__ = "0.1.0.dev0"

_HOME_OF = {
    "AsyncClient": "deepseek.client",
    "AutoModel": "deepseek.models.auto",
    "AutoTokenizer": "deepseek.tokenizer",
    "Client": "deepseek.client",
    "Engine": "deepseek.engine.engine",
    "ModelConfig": "deepseek.config",
    "SamplingParams": "deepseek.sampling",
}
__all__ = [
    "AsyncClient",
    "AutoModel",
    "AutoTokenizer",
    "Client",
    "Engine",
    "ModelConfig",
    "SamplingParams",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'deepseek' has no attribute {name!r}; it has {', '.join(sorted(__all__))}")
    try:
        return getattr(import_module(_HOME_OF[name]), name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ImportError(f"{name} needs PyTorch: pip install 'deepseek-framework[train]'") from None


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
