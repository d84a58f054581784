"""Flags of the commands."""

import argparse
import os
import re
import sys
from typing import Any, NoReturn

from utils.common.errors import MISTAKE, nearest

_SEVERAL = (
    "start several processes by `python -m utils.tools.launch --processes N`, or by torchrun, "
    "which take the same script and flags"
)


def parse_bool(text: str) -> bool:
    """Read `true` or `false`, for argparse."""
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is not true or false")
    return text.lower() == "true"


def at_home(word: str) -> str:
    """Put the home folder in place of `~` in a path, or a flag with a path, that begins with `~/`.

    A folder of that name would be made otherwise.
    """
    flag, equals, path = word.partition("=")
    if equals and flag.startswith("--") and path.startswith("~/"):
        return f"{flag}={os.path.expanduser(path)}"
    if word.startswith("~/"):
        return os.path.expanduser(word)
    return word


class Parser(argparse.ArgumentParser):
    """argparse that says what is wrong in one sentence, naming the nearest flag when one is
    mistyped; exit status 2.

    Flags are not abbreviated.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **options})

    def error(self, message: str) -> NoReturn:
        """Print the message in one sentence and exit with 2."""
        self.exit(MISTAKE, f"error: {message}; see --help\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as argparse does, but a flag that is left over is an error, and `~/` is the home
        folder in `--flag=~/folder` too, where shells leave it as it is.
        """
        words = sys.argv[1:] if args is None else args
        parsed, unknown = super().parse_known_args([at_home(word) for word in words], namespace)
        if unknown:  # here, where a sub-command knows its own flags
            if re.match(r"--local[-_]rank\b", unknown[0]):
                self.error(f"{unknown[0]} comes from torch.distributed.launch; {_SEVERAL}")
            self.error(
                f"unknown flag {unknown[0]}{nearest(unknown[0], self._option_string_actions)}"
            )
        return parsed, unknown
