"""Flags of the commands."""

import argparse
import sys
from typing import Any, NoReturn

from utils.common.errors import MISTAKE, nearest


def parse_bool(text: str) -> bool:
    """Read `true` or `false`, for argparse."""
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is not true or false")
    return text.lower() == "true"


def called_as() -> str | None:
    """Return how the running module is called, `python -m NAME`; None where a script runs."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is None:
        return None
    return f"python -m {spec.name.removesuffix('.__main__')}"


class Parser(argparse.ArgumentParser):
    """argparse that says what is wrong in one sentence, naming the nearest flag when one is
    mistyped; exit status 2.

    Flags are not abbreviated. `--help` shows a module as it is called.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, "prog": called_as(), **options})

    def error(self, message: str) -> NoReturn:
        """Print the message in one sentence and exit with 2."""
        self.exit(MISTAKE, f"error: {message}; see --help\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as argparse does, but a flag that is left over is an error."""
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:  # here, where a sub-command knows its own flags
            self.error(self._left_over(unknown[0]))
        return parsed, unknown

    def _left_over(self, word: str) -> str:
        """Say of a word that nothing takes what it is."""
        if not word.startswith("-"):
            return f"the word {word!r} belongs to no flag"
        return f"unknown flag {word}{nearest(word, self._option_string_actions)}"
