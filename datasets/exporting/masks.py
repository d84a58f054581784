"""Label maps as PNGs: with VOC's palette in VOC's folders, as CVAT's "Segmentation mask" has them
too; or as plain numbers. Both come with the class list of this project.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import yaml

from datasets.classes import CLASSES
from datasets.exporting.target import Collector, Target, copy_photo, photo_name
from datasets.lists import Item
from datasets.pictures import mask_png
from datasets.specs import IGNORE, palette
from utils.common.errors import UserError
from utils.common.files import write_whole

FOLDER = "SegmentationClass"
LIST = "ImageSets/Segmentation/default.txt"  # the name that CVAT gives what is of no other split
COLOURS = "labelmap.txt"


def write(target: Target, item: Item, labels: np.ndarray) -> bool:
    """Write a label map (H, W) uint8 as PNG; returns whether some pixels are ignored."""
    if target.options.format == "png":
        write_whole(target.folder / f"{item.name}.png", mask_png(labels))
    else:
        content = mask_png(labels, palette())
        write_whole(target.folder / FOLDER / f"{item.name}.png", content)
        if target.options.copy_images:
            copy_photo(item, target.folder / "JPEGImages" / photo_name(item))
    return bool((labels == IGNORE).any())


@contextmanager
def gather(target: Target) -> Iterator[Collector]:
    """Write the class list, and for VOC the list of names and that of colours.

    Raises UserError where the list of colours cannot hold a class.
    """
    spec = target.spec
    apart = next((name for name in spec.classes if ":" in name), None)
    if apart is not None and target.options.format == "voc":
        raise UserError(
            f"--format voc cannot hold the class {apart!r}, as {COLOURS} has : between its "
            "columns; name it otherwise, or use --format png"
        )

    text = yaml.safe_dump({"classes": list(spec.classes)}, allow_unicode=True)
    write_whole(target.folder / CLASSES, text.encode())
    if target.options.format == "png":
        yield lambda item, ignored: None
        return

    listed = target.folder / LIST
    listed.parent.mkdir(parents=True)
    shown = set()
    with listed.open("w", encoding="utf-8", newline="\n") as names:

        def add(item: Item, ignored: bool) -> None:
            """Write the name of one photo, and keep whether it has ignored pixels."""
            shown.add(ignored)
            names.write(f"{item.name}\n")

        yield add

    lines = [
        "# label:color_rgb:parts:actions",
        *map(_line, range(len(spec.label_names)), spec.label_names),
    ]
    if True in shown:
        lines.append(_line(IGNORE, "ignored"))
    write_whole(target.folder / COLOURS, "".join(f"{line}\n" for line in lines).encode())


def _line(label: int, name: str) -> str:
    colour = ",".join(map(str, palette()[label].tolist()))
    return f"{name}:{colour}::"
