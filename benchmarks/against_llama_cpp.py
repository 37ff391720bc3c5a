"""The table of the CPU engine against llama.cpp: both models, both sides from the same Q4_0 file, in alternation.

Run: python benchmarks/against_llama_cpp.py [--quick] [--layers 6] [--only smollm2|v2-lite]
Prints one JSON line a model, the record of `deepseek bench --against llama.cpp`. Needs the extra `bench`; build
llama-cpp-python for this processor, or the comparison is not fair (docs/benchmarks.md). Files are kept in the cache
folder: 92 MB for SmolLM2, 1.8 GB for six layers of the V2-Lite shape, 9 GB for all 27.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from deepseek import hub
from deepseek.hub.cache import cache_folder
from quantize_with_llama_cpp import quantised
from real_text import english_text
from synthetic_moe import VOCABULARY, shaped_like_v2_lite, write_synthetic

FULL_VOCABULARY = 102_400


def smollm2() -> Path:
    return quantised(hub.resolve(hub.DEFAULT_MODEL).path, "Q4_0")


def v2_lite(layers: int) -> Path:
    """All 27 layers have the full vocabulary and no query LoRA, as published."""
    path = cache_folder() / "benchmarks" / f"v2-lite-{layers}.Q4_0.gguf"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        vocabulary = FULL_VOCABULARY if layers == 27 else VOCABULARY
        write_synthetic(path, shaped_like_v2_lite(layers, vocabulary))
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--only", choices=("smollm2", "v2-lite"))
    parser.add_argument("--row", action="append", default=[], help="prompt-512, decode-64, together-16 ...")
    parser.add_argument("--table", action="store_true", help="print the table too")
    args = parser.parse_args()
    command = [str(Path(sys.executable).parent / "deepseek"), "bench", "--against", "llama.cpp"]
    command += ["--quick"] if args.quick else []
    command += [word for row in args.row for word in ("--only", row)]
    command += [] if args.table else ["--json"]
    if args.only != "v2-lite":
        subprocess.run([*command, str(smollm2()), "--text", str(english_text())], check=True)
    if args.only != "smollm2":
        subprocess.run([*command, str(v2_lite(args.layers))], check=True)


if __name__ == "__main__":
    main()
