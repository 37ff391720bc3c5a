"""The command `deepseek`: one module a verb, nothing else. Verbs parse, call the library, and print."""

from deepseek.cli.app import main

__all__ = ["main"]
