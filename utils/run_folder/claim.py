"""A run folder: the lock that keeps it to one process, and the count of pictures that could not be
read.
"""

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from utils.common.disk import Held, locked
from utils.common.errors import UserError

LOCK = ".lock"
# seconds; loading processes of a killed run hold its lock until they notice, 5 s at most
PATIENCE = 12.0
BAD_IMAGES = "bad_images.jsonl"


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process; the claim dies with it. Raises UserError where another
    process holds it.
    """
    try:
        with locked(folder / LOCK, PATIENCE):
            yield
    except Held:
        raise UserError(
            f"the folder {folder} is in use by another process; wait for its end or name another"
        ) from None


def note_bad_image(folder: Path, place: str, reason: str) -> None:
    """Say that a picture was skipped, and keep that in the run folder: one JSON line {"place",
    "reason"} per picture.
    """
    tqdm.write(f"{place}: skipped, {reason}")
    with (folder / BAD_IMAGES).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"place": place, "reason": reason}) + "\n")


def readable(
    samples: Iterable[dict[str, Any]], note: Callable[[str], None]
) -> Iterator[dict[str, Any]]:
    """Yield the samples of `MaskedImages` without an "error"; `note` is told those of the rest."""
    for sample in samples:
        if "error" in sample:
            note(sample["error"])
        else:
            yield sample


def bad_images(folder: Path) -> list[dict[str, str]]:
    """Return what `note_bad_image` kept in a run folder, repetitions by resumed runs and torn lines
    left out.
    """
    file = folder / BAD_IMAGES
    if not file.is_file():
        return []

    text = file.read_text(encoding="utf-8", errors="replace")
    noted = []
    for line in dict.fromkeys(text.split("\n")):
        with contextlib.suppress(ValueError):
            noted.append(json.loads(line))
    return noted
