"""Bounds on numbers that a foreign file may say, checked before anything is listed by them."""

MAX_LAYERS = 10_000
MAX_EXPERTS = 1 << 20  # over all layers
