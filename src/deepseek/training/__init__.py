"""Training: data, the loss and its balance terms, the loop, checkpoints that lose nothing, and the run folder.

PyTorch is imported by the modules that compute, never by this package itself. Optimisers are in `deepseek.optim`.
"""
