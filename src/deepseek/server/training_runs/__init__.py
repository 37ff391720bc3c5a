"""The records of training runs as the studio reads them: which runs there are, and their lines from where one stopped.

Reads files only: nothing here knows PyTorch, the trainer or the HTTP framework. `docs/training.md` says what a run
folder holds. Whatever stands in it may be half-written, damaged or hostile.
"""
