"""Measuring: the engine's speed, memory and perplexity, beside llama.cpp and beside what the machine can do at all.

What lives here: the work that is measured, the two sides that do it (each in a process of its own), rounds in which
they take turns, the memory limit, and the arithmetic of perplexity. What may not: PyTorch, printing (`deepseek.cli`),
and any judgement of what is fast enough (`docs/benchmarks.md`).
"""
