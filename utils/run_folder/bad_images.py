"""The count of pictures of a run that could not be read."""

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

BAD_IMAGES = "bad_images.jsonl"


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
