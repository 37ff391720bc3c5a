"""Inference on CPUs: requests come in, batches go to the runner, tokens come out.

Lives here: the engine that callers see, scheduler and KV blocks in plain Python over small objects, sampling, and the
runner that turns a batch into calls of `deepseek.kernels`. No PyTorch, and no arithmetic on tensors above the runner.
"""
