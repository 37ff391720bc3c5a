"""Making models: data, balance, the step, the trainer, and dense models carved into experts.

What may live here: everything that is needed to train and nothing that serving needs. PyTorch is imported by the parts
that compute gradients; `training.data` does without it.
"""
