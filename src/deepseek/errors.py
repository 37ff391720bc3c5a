"""Errors that a user can mend. Each message names the file or field and says what to do.

Our own bugs stay `AssertionError` or whatever Python raises; the command line prints only these without a traceback.
"""


class DeepseekError(Exception):
    """Base of every error below."""


class ConfigError(DeepseekError, ValueError):
    """An architecture or a setting is unknown, contradictory or out of range."""


class CheckpointError(DeepseekError, ValueError):
    """A file of weights is damaged, hostile or does not fit its configuration."""


class TokenizerError(DeepseekError, ValueError):
    """A tokenizer or chat template is damaged, hostile or of an unknown kind."""


class HubError(DeepseekError, OSError):
    """A model could not be found, fetched or verified."""


class GenerationError(DeepseekError, ValueError):
    """A request for text cannot be carried out as asked."""


class DataError(DeepseekError, ValueError):
    """Text to train on is missing, damaged, hostile or not what its recipe says."""
