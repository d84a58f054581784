"""Flags of the commands."""

import argparse
import os
import re
import sys
from collections.abc import Mapping
from typing import Any, NoReturn

from utils.common.errors import MISTAKE, UserError, nearest
from utils.common.options import shown

_SEVERAL = (
    "start several processes by `python -m utils.tools.launch --processes N`, or by torchrun, "
    "which take the same script and flags"
)


def parse_bool(text: str) -> bool:
    """Read `true` or `false`, for argparse."""
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is not true or false")
    return text.lower() == "true"


def refuse_idle(given: Mapping[str, Any], names: tuple[str, ...], why: str) -> None:
    """Refuse flags that would do nothing beside the others, lest their user think that they do.

    Args:
        given: flags by name; None or "" is one that was left out.
        names: of those that would do nothing.
        why: the rest of a sentence that begins with the flag and its value, with the fix.

    Raises:
        UserError: one of them was given.
    """
    for name in names:
        value = given.get(name)
        if value is not None and value != "":
            raise UserError(f"--{name} {shown(value)} {why}")


def called_as() -> str | None:
    """Return how the running module is called, `python -m NAME`; None where a script runs."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is None:
        return None
    return f"python -m {spec.name.removesuffix('.__main__')}"


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

    Flags are not abbreviated. `--help` shows a module as it is called, and its description in the
    lines in which it is written.
    """

    def __init__(self, **options: Any) -> None:
        usual = {
            "allow_abbrev": False,
            "prog": called_as(),
            "formatter_class": argparse.RawDescriptionHelpFormatter,
        }
        super().__init__(**{**usual, **options})

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
            self.error(self._left_over(unknown[0]))
        return parsed, unknown

    def _left_over(self, word: str) -> str:
        """Say of a word that nothing takes what it is."""
        if not word.startswith("-"):
            return f"the word {word!r} belongs to no flag"
        if re.match(r"--local[-_]rank\b", word):
            return f"{word} comes from torch.distributed.launch; {_SEVERAL}"
        return f"unknown flag {word}{nearest(word, self._option_string_actions)}"
