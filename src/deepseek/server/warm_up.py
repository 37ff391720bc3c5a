"""Everything that a first request would load is loaded before the server listens.

Otherwise the first who asks waits for it, and where no file descriptors are left by then, loading fails for ever.
"""

from importlib import import_module

import numpy as np

from deepseek.engine.sampler import SequenceSampler
from deepseek.sampling import SamplingParams
from deepseek.server.studio.files import read_all

_LATE_IMPORTS = (
    "anyio._backends._asyncio",  # the anyio of starlette, for forms and files
    "anyio.streams.memory",
    "deepseek.engine.structured",
    "deepseek.tokenizer.sandbox",
    "encodings.idna",
    "encodings.unicode_escape",
    "jinja2.compiler",
    "jinja2.sandbox",
    "llguidance.gbnf_to_lark",
    "numpy.ma",
    "pydantic._internal._dataclasses",
)
"""Modules that are imported in functions, ours and those of libraries; a test holds that none is missing."""


def warm_up(*, studio: bool) -> None:
    """studio: read its files too."""
    for name in _LATE_IMPORTS:
        import_module(name)
    _load_choosing()
    if studio:
        read_all()


def _load_choosing() -> None:
    """The compiled functions that choose a token: Numba reads each from its cache when it is first called."""
    params = SamplingParams(seed=0, logprobs=1, allowed_token_ids=(0,))
    SequenceSampler(params, vocab_size=32, prompt_ids=(0,), eos_ids=()).choose(np.zeros(32, np.float32))
