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


class TooManyTokensError(TokenizerError):
    """A text has more tokens than the caller takes. at_least: so many it has, perhaps more."""

    def __init__(self, at_least: int) -> None:
        super().__init__(f"the text has at least {at_least} tokens: shorten it")
        self.at_least = at_least


class HubError(DeepseekError, OSError):
    """A model could not be found, fetched or verified."""


class GenerationError(DeepseekError, ValueError):
    """A request for text cannot be carried out as asked."""


class ContextLengthError(GenerationError):
    """A prompt does not fit into the context."""


class DataError(DeepseekError, ValueError):
    """Text to train on is missing, damaged, hostile or not what its recipe says."""
