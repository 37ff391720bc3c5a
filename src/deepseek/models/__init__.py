"""The models in PyTorch: readable, trainable, on any device. The truth that the fast engine is checked against.

Every module is built from a ModelConfig; parameter names are those of `families.weights`, but for the experts of a
layer, which are fused. What may not live here: serving, training loops, anything that only one device can run.
"""
