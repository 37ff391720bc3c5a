"""Compile one grammar in a process of its own, which may not work longer nor take more memory than it is told.

Run as a file, never imported: a JSON line {"grammar", "limits", "cpu_seconds", "bytes"} on standard input. llguidance
bounds most work by itself, but intersecting patterns and large multiples take it minutes and gigabytes, and a thread
cannot be stopped. Exit status 0 means that compiling ends in time, with or without an error.
"""

import json
import sys


def limit(cpu_seconds: int, memory: int) -> None:
    try:
        import resource
    except ImportError:  # Windows: the caller's deadline is all there is
        return
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


class Bytes:
    """A vocabulary of single bytes."""

    eos_token_id = 256
    bos_token_id = None
    tokens = (*(bytes([value]) for value in range(256)), b"<end>")
    special_token_ids = (256,)

    def __call__(self, text: bytes | str) -> list[int]:
        return list(text if isinstance(text, bytes) else text.encode())


def main() -> None:
    from llguidance import LLMatcher, LLParserLimits, LLTokenizer
    from llguidance._tokenizer import TokenizerWrapper

    task = json.loads(sys.stdin.readline())
    limit(task["cpu_seconds"], task["bytes"])
    tokenizer = LLTokenizer(TokenizerWrapper(Bytes()))
    LLMatcher(tokenizer, task["grammar"], log_level=0, limits=LLParserLimits(**task["limits"])).compute_bitmask()


if __name__ == "__main__":
    main()
