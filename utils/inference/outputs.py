"""The files that prediction leaves for each picture, and the class areas of all; each whole or not
at all.
"""

import itertools
import json
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from datasets.predictions import PREDICTION, Entry
from datasets.specs import palette
from utils.common.files import written_whole
from utils.drawing import coloured, label_name

AREAS = "areas.json"
# Where the files of a picture are, by its name.
LABELS = PREDICTION + "/{}.png"
COLOURS = "prediction_cmap/{}.png"
OVERLAY = "overlay/{}."  # and the suffix
LOGITS = "logits/{}.npy"
JPEG_LONGEST = 65500  # px; the format holds no longer side
STRIP = 512  # rows that are blended at a time
Saver = Callable[[BinaryIO], Any]


def write_labels(labels: np.ndarray, name: str, folder: Path) -> list[str]:
    """Write labels (H, W) uint8 as `prediction/` PNG with the VOC palette and as `prediction_cmap/`
    RGB PNG; return their paths.
    """
    colours = palette()
    indexed = Image.fromarray(labels)
    indexed.putpalette(colours.ravel().tolist())
    coloured_map = indexed.convert("RGB")
    return [
        _write(folder, LABELS.format(name), lambda file: _save_flat(indexed, file)),
        _write(folder, COLOURS.format(name), lambda file: _save_flat(coloured_map, file)),
    ]


def _save_flat(picture: Image.Image, file: BinaryIO) -> None:
    """Save a picture of flat regions as PNG: counting repetitions takes half the time of looking
    for patterns. Palette files become 29% larger, RGB files no larger.
    """
    picture.save(file, "PNG", compress_type=zlib.Z_RLE)


def write_overlay(image: np.ndarray, labels: np.ndarray, name: str, folder: Path) -> str:
    """Draw labels (H, W) uint8 over a picture (H, W, 3) uint8, in `overlay/`; a JPEG unless a side
    is too long for one.
    """
    kind, suffix = ("JPEG", "jpg") if max(labels.shape) <= JPEG_LONGEST else ("PNG", "png")
    strips = (slice(top, top + STRIP) for top in range(0, len(labels), STRIP))
    blended = Image.fromarray(
        np.concatenate([coloured(image[rows], labels[rows]) for rows in strips])
    )
    return _write(
        folder, OVERLAY.format(name) + suffix, lambda file: blended.save(file, kind, quality=92)
    )


def write_logits(logits: np.ndarray, name: str, folder: Path) -> str:
    """Write logits (K+1, h, w) as float16 .npy in `logits/`."""
    return _write(
        folder, LOGITS.format(name), lambda file: np.save(file, logits.astype(np.float16))
    )


def clear(name: str, folder: Path) -> None:
    """Remove what an earlier prediction left of a picture, so that it never passes for what is
    predicted now, should that fail or be of fewer files.
    """
    overlays = (OVERLAY.format(name) + suffix for suffix in ("jpg", "png"))
    for file in (LABELS.format(name), COLOURS.format(name), LOGITS.format(name), *overlays):
        (folder / file).unlink(missing_ok=True)


def write_areas(
    entries: Iterable[Entry], classes: Sequence[str], facts: dict[str, Any], folder: Path
) -> Path:
    """Write `areas.json`: facts, then pixels and share (0..1) of each class found in each picture,
    by its name; those without a label are "not labelled".
    """

    def save(file: BinaryIO) -> None:
        """Write the facts, then picture by picture."""
        head = json.dumps(facts, indent=1).removesuffix("\n}")
        file.write(f'{head},\n "images": {{'.encode())
        separator = "\n  "
        for entry in entries:
            areas = json.dumps(_areas(entry, classes), indent=1).replace("\n", "\n  ")
            file.write(f"{separator}{json.dumps(entry['name'])}: {areas}".encode())
            separator = ",\n  "
        file.write(b"\n }\n}")

    return folder / _write(folder, AREAS, save)


def read_facts(folder: Path) -> dict[str, Any]:
    """Read the facts of `areas.json`, and nothing of the pictures that follow; none where there is
    no such file. Raises ValueError where it is broken.
    """
    path = folder / AREAS
    if not path.is_file():
        return {}

    with path.open(encoding="utf-8") as file:
        head = "".join(itertools.takewhile(lambda line: not line.startswith(' "images": '), file))
    facts: dict[str, Any] = json.loads(head.rstrip().rstrip(",") + "}")
    return facts


def _areas(entry: Entry, classes: Sequence[str]) -> dict[str, Any]:
    """Return what `areas.json` says of one picture."""
    total = entry["size"][0] * entry["size"][1]
    found = {label_name(int(label), classes): own for label, own in entry["pixels"].items()}
    return {
        "image": entry["image"],
        "size": entry["size"],
        **{key: entry[key] for key in ("tags", "guessed", "error") if key in entry},
        "classes": {
            name: {"pixels": pixels, "share": round(pixels / total, 6)}
            for name, pixels in found.items()
        },
    }


def _write(folder: Path, name: str, save: Saver) -> str:
    """Write a file of the folder, whole or not at all; its `name`, relative to the folder."""
    with written_whole(folder / name) as file:
        save(file)
    return name
