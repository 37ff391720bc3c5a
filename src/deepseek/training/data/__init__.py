"""Text becomes batches: sources, cleaning, duplicates, held-out split, tokenizer, shards, mixture.

`prepare` turns a recipe into a folder; `Batches` reads that folder and is a pure function of a step's number. Nothing
here imports PyTorch, runs code of a package, or writes a file that is not renamed into place when it is whole.
"""

from deepseek.training.data.batches import Batches
from deepseek.training.data.mixture import Mixture, Stage

__all__ = ["Batches", "Mixture", "Stage"]
