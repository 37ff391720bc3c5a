"""llama.cpp as a side, through the low-level calls of llama-cpp-python: the C library, and little Python around it."""

import ctypes
import importlib
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepseek.errors import DeepseekError
from deepseek.profiler.perplexity import losses_of
from deepseek.profiler.work import Timing, Work, prompt_ids

INSTALL = (
    "llama.cpp is not installed here. For a fair comparison build it for this processor: "
    'CMAKE_ARGS="-DGGML_NATIVE=ON -DLLAMA_CURL=OFF" pip install --no-binary llama-cpp-python llama-cpp-python'
)
_LEAST_SECONDS = 1.0  # a decode that is over sooner is done again until it took that long
_BATCHES = (128, 256, 512, 2048)


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """What llama.cpp lets a user choose that changes its speed. unified: one cache for all sequences."""

    flash: bool = False
    ubatch: int = 512
    unified: bool = False


def import_llama_cpp() -> Any:
    """Raises DeepseekError, which says how to build it."""
    try:
        return importlib.import_module("llama_cpp")
    except ImportError as error:
        raise DeepseekError(INSTALL) from error


class LlamaCpp:
    """Implements `work.Side` for one GGUF file."""

    def __init__(self, path: Path, *, threads: int) -> None:
        self._lib = import_llama_cpp()
        self._quiet = self._lib.llama_log_callback(lambda level, text, data: None)
        self._lib.llama_log_set(self._quiet, None)
        self._lib.llama_backend_init()
        params = self._lib.llama_model_default_params()
        params.n_gpu_layers = 0
        self._model = self._lib.llama_model_load_from_file(str(path).encode(), params)
        if not self._model:
            raise DeepseekError(f"llama.cpp does not load {path}")
        self._vocab_size: int = self._lib.llama_vocab_n_tokens(self._lib.llama_model_get_vocab(self._model))
        self._threads = threads
        self._tuned: dict[Work, Setting] = {}
        self._context: Any = None
        self._context_of: tuple[Setting, int, int] | None = None
        self._cached: list[int] = []  # tokens of sequence 0 that the context holds

    def tune(self, work: Work) -> dict[str, Any]:
        """First flash attention and the kind of cache, then the batch size, each by one shortened run after a warm one.

        Trying every combination in full would take longer than the measurement itself.
        """
        trial = replace(work, count=min(work.count, 16))
        choices = product((False, True), (False, True) if work.requests > 1 else (False,))
        best = self._fastest(trial, [Setting(flash=flash, unified=unified) for flash, unified in choices])
        if work.kind != "decode":
            sizes = [size for size in _BATCHES if size < 2 * work.context * work.requests]
            best = self._fastest(trial, [best, *(replace(best, ubatch=size) for size in sizes if size != best.ubatch)])
        self._tuned[work] = best
        return asdict(best)

    def _fastest(self, work: Work, settings: Sequence[Setting]) -> Setting:
        rates: dict[Setting, float] = {}
        for setting in settings:
            try:
                if work.kind != "together":
                    self._run(work, setting)
                rates[setting] = self._run(work, setting).rate
            except DeepseekError:  # a combination that this model cannot do
                continue
        if not rates:
            raise DeepseekError(f"llama.cpp cannot do: {work.name}")
        return max(rates, key=lambda setting: rates[setting])

    def run(self, work: Work) -> Timing:
        return self._run(work, self._tuned.get(work, Setting()))

    def _run(self, work: Work, setting: Setting) -> Timing:
        if work.kind == "together":
            return self._together(work, setting)
        self._require_context(setting, work.context + work.count + 8, 1)
        return self._prompt(work) if work.kind == "prompt" else self._decode(work)

    def losses(self, window: list[int]) -> list[float]:
        """With the default settings, in one batch whose every position gives logits."""
        self._require_context(Setting(ubatch=len(window)), len(window), 1)
        self._clear()
        batch = self._lib.llama_batch_init(len(window), 0, 1)
        try:
            for at, token in enumerate(window):
                _put(batch, at, token, at, 0, True)
            self._compute(batch)
        finally:
            self._lib.llama_batch_free(batch)
        logits = self._lib.llama_get_logits(self._context)
        rows: NDArray[np.float32] = np.ctypeslib.as_array(logits, (len(window), self._vocab_size))
        losses: list[float] = losses_of(rows[:-1], window[1:]).tolist()
        return losses

    def facts(self) -> dict[str, Any]:
        system = self._lib.llama_print_system_info().decode()
        enabled = [part.split("=")[0].strip() for part in system.split("|") if part.strip().endswith("= 1")]
        return {"llama_cpp_python": self._lib.__version__, "built_for": " ".join(enabled), "threads": self._threads}

    def _prompt(self, work: Work) -> Timing:
        self._clear()
        ids = prompt_ids(work.context, self._vocab_size)
        begun = time.perf_counter()
        self._feed(ids)
        return Timing(seconds=time.perf_counter() - begun, tokens=work.context)

    def _decode(self, work: Work) -> Timing:
        seconds, tokens = 0.0, 0
        while seconds < _LEAST_SECONDS:
            token = self._prefix(prompt_ids(work.context, self._vocab_size))
            begun = time.perf_counter()
            for _ in range(work.count):
                token = self._feed([token])
            seconds += time.perf_counter() - begun
            tokens += work.count
        return Timing(seconds=seconds, tokens=tokens)

    def _prefix(self, ids: list[int]) -> int:
        """Have exactly `ids` in the cache, at the cost of computing no more than the last of them where they are."""
        if self._cached[: len(ids) - 1] != ids[:-1]:
            self._clear()
            self._feed(ids)
            self._cached = list(ids)
        memory = self._lib.llama_get_memory(self._context)
        self._lib.llama_memory_seq_rm(memory, 0, len(ids) - 1, -1)
        return self._feed(ids[-1:])

    def _together(self, work: Work, setting: Setting) -> Timing:
        each = work.context + work.count
        self._require_context(setting, each * work.requests, work.requests)
        self._clear()
        batch = self._lib.llama_batch_init(work.context * work.requests, 0, 1)
        try:
            return self._all_at_once(work, batch)
        finally:
            self._lib.llama_batch_free(batch)

    def _all_at_once(self, work: Work, batch: Any) -> Timing:
        last = []
        for sequence in range(work.requests):
            for position, token in enumerate(prompt_ids(work.context, self._vocab_size, sequence)):
                at = sequence * work.context + position
                _put(batch, at, token, position, sequence, position == work.context - 1)
            last.append(at)
        begun = time.perf_counter()
        self._compute(batch)
        tokens = [self._best(row) for row in last]
        decoding = time.perf_counter()
        for step in range(work.count - 1):
            for sequence, token in enumerate(tokens):
                _put(batch, sequence, token, work.context + step, sequence, True)
            batch.n_tokens = work.requests
            self._compute(batch)
            tokens = [self._best(row) for row in range(work.requests)]
        ended = time.perf_counter()
        return Timing(seconds=ended - begun, tokens=work.tokens, decode_seconds=ended - decoding)

    def _feed(self, ids: list[int]) -> int:
        """Append to sequence 0; returns the likeliest next token."""
        array = (ctypes.c_int32 * len(ids))(*ids)
        self._compute(self._lib.llama_batch_get_one(array, len(ids)))
        return self._best(-1)

    def _best(self, row: int) -> int:
        logits = self._lib.llama_get_logits_ith(self._context, row)
        return int(np.ctypeslib.as_array(logits, (self._vocab_size,)).argmax())

    def _compute(self, batch: Any) -> None:
        if code := self._lib.llama_decode(self._context, batch):
            raise DeepseekError(f"llama.cpp could not compute a batch of {batch.n_tokens} (code {code})")

    def _clear(self) -> None:
        self._lib.llama_memory_clear(self._lib.llama_get_memory(self._context), True)
        self._cached = []

    def _require_context(self, setting: Setting, tokens: int, sequences: int) -> None:
        wanted = (setting, -(-tokens // 256) * 256, sequences)
        if self._context_of == wanted:
            return
        if self._context is not None:
            self._lib.llama_free(self._context)
        params = self._lib.llama_context_default_params()
        params.n_ctx, params.n_seq_max = wanted[1], sequences
        params.n_batch, params.n_ubatch = max(tokens, setting.ubatch), setting.ubatch
        params.n_threads = params.n_threads_batch = self._threads
        params.flash_attn_type = int(setting.flash)
        params.kv_unified = setting.unified
        params.no_perf = True
        self._context = self._lib.llama_init_from_model(self._model, params)
        self._context_of, self._cached = wanted, []
        if not self._context:
            self._context = self._context_of = None
            raise DeepseekError(f"llama.cpp has no context with {setting}")


def _put(batch: Any, at: int, token: int, position: int, sequence: int, wants_logits: bool) -> None:
    """Fill one place of a batch; the batch ends there."""
    batch.token[at], batch.pos[at] = token, position
    batch.n_seq_id[at], batch.seq_id[at][0] = 1, sequence
    batch.logits[at] = wants_logits
    batch.n_tokens = at + 1
