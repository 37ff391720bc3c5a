"""The command `deepseek`: one module a verb, nothing else. Verbs parse, call the library, and print.

This file imports next to nothing, so that Ctrl-C is handled before anything that takes time is imported.
"""

import os
import signal
import sys

INTERRUPTED = 130


def main() -> None:
    """Entry point. Exit codes: 0 done, 1 an error of the user's (in one message), 2 wrong usage, 130 interrupted."""
    handled = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not so under nohup or in a script's `&`
    if handled:
        signal.signal(signal.SIGINT, _leave)
    from deepseek.cli.app import run

    code = run(interruptible=handled)
    if handled:
        signal.signal(signal.SIGINT, _leave)  # while Python shuts down
    sys.exit(code)


def _leave(number: int, frame: object) -> None:
    """Where an exception would be a traceback: outside of any verb."""
    os.write(2, b"interrupted\n")
    os._exit(INTERRUPTED)
