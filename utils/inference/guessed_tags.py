"""The tags that CLIP guessed, in a file that people correct: what they changed there is not lost to
another guess.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from datasets.predictions import Entry
from datasets.specs import DatasetSpec
from datasets.tags import Tags, read_all_tags, write_tags
from utils.common.errors import UserError

GUESSED_TAGS = "guessed_tags.json"


def refuse_changed(folder: Path, tags_file: Path | None, spec: DatasetSpec) -> None:
    """Raise UserError where tags that were perhaps corrected by hand would be written over."""
    file = folder / GUESSED_TAGS
    if is_own(folder, tags_file) or not file.is_file():
        return

    found = read_all_tags(file, spec)
    if not found.source.endswith(digest(found)):
        raise UserError(
            f"{file} was changed since its tags were guessed, or is of an older version; give it "
            f"as --tags {file} if they were corrected, or remove it to guess anew"
        )


def digest(tags: Tags) -> str:
    """Return the SHA-256 of tags, whatever the order of their images."""
    rows = sorted(zip(tags.names, (row.tobytes() for row in tags.matrix)))
    found = hashlib.sha256()
    for name, row in rows:
        found.update(f"{json.dumps(name)}:".encode() + row)
    return found.hexdigest()


def is_own(folder: Path, tags_file: Path | None) -> bool:
    """Tell whether the given tags are those that were guessed in this folder."""
    return tags_file is not None and tags_file.resolve() == (folder / GUESSED_TAGS).resolve()


def write_guessed(path: Path, spec: DatasetSpec, entries: Iterable[Entry], guessed: int) -> None:
    """Write the tags of all pictures, given and guessed, in the form that `--tags` takes; where
    they come from ends with their digest.
    """
    names: list[str] = []
    rows = bytearray()
    for entry in labelled(entries):
        names.append(entry["name"])
        rows += bytes(name in entry["tags"] for name in spec.classes)

    matrix = np.frombuffer(rows, bool).reshape(len(names), len(spec.classes))
    tags = Tags(tuple(names), matrix, "")
    source = f"given, and of {guessed} pictures guessed by CLIP; SHA-256 as guessed {digest(tags)}"
    write_tags(path, spec, replace(tags, source=source))


def labelled(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Yield the entries of pictures that got labels."""
    return (entry for entry in entries if "error" not in entry)
