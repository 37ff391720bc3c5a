"""Compiled inner loops for CPUs, written in Python: Numba with vector intrinsics over LLVM.

Here: vector types and intrinsics, matrix tiles, rows, attention, routing, sampling, the thread team and the plan that a
step runs. A kernel is a native function of an operation's address and a thread's number, `void(int64, int64)`, and its
operation is a row of a plan (see `plan`). No Python objects inside a kernel, no exceptions, no allocation.

Not here: models, requests, files (`deepseek.engine`, `deepseek.checkpoint`), PyTorch. What the numbers mean is defined
by `deepseek.packing` and by the arithmetic contract in docs/decisions/010: the same bits for every thread count, tile
shape and processor tier.
"""
