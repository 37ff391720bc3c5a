"""Resident memory of the engine after real work, beside what it must hold: weights, KV, and 300 MB for all the rest.

Run: python benchmarks/memory.py [MODEL] [--tokens 2048]      Prints one JSON line; Linux only.
A process loads the model with room for so many tokens of KV, reads a prompt that fills half of it and decodes; then the
system is asked what it holds. With llama-cpp-python installed and a GGUF file, the same there.
"""

import argparse
import json
from importlib.util import find_spec

from deepseek import hub
from deepseek.checkpoint.configuration import load_config
from deepseek.checkpoint.packed.cache import store_path
from deepseek.families.sizes import cache_elements_per_token
from deepseek.profiler.remote import RemoteSide, SideName
from deepseek.profiler.sizes import size_of
from deepseek.profiler.work import Work

REST = 300e6
KV_BYTES = 4  # of an element, at most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default=hub.DEFAULT_MODEL)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    path = hub.resolve(args.model).path
    kv = args.tokens * cache_elements_per_token(load_config(path)) * KV_BYTES
    names: list[SideName] = ["deepseek"]
    if path.suffix == ".gguf" and find_spec("llama_cpp") is not None:
        names.append("llama.cpp")
    found = {}
    for name in names:
        settings = {"kv_cache_bytes": kv} if name == "deepseek" else None
        with RemoteSide(name, path, threads=args.threads, settings=settings) as side:
            side.run(Work(kind="prompt", context=args.tokens // 2))
            side.run(Work(kind="decode", context=64, count=64))
            found[name] = side.memory_now()
    weights = store_path(path).stat().st_size
    ours = found["deepseek"]
    allowed = weights + kv + REST
    result = {
        "benchmark": "memory",
        "model": path.name,
        "file_bytes": size_of(path).weight_bytes,
        "store_bytes": weights,
        "kv_bytes": kv,
        "allowed": round(allowed),
        "memory": found,
        "within": None if ours is None else ours["resident"] <= allowed,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
