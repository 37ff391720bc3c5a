"""Files of weights: safetensors, GGUF, FP8 blocks. Read lazily as raw tensors, written beside their place and renamed.

Everything is named as in `families.weights`, whatever the file calls it. Nothing here imports PyTorch.
"""
