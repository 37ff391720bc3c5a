"""From text to a trained model: data, loss, balance of experts, the trainer and its checkpoints.

PyTorch throughout, on whatever device the model is. What may not live here: serving, and building blocks of models.
"""
