"""The one way out for label maps, whoever made them: a folder of any form, whole or not at all."""

import csv
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datasets.exporting import coco, labelme, masks, yolo
from datasets.exporting.maps import read_labels
from datasets.exporting.options import MASKS, ExportOptions
from datasets.exporting.target import Form, Target
from datasets.lists import Item, own_name
from datasets.prepare.parallel import crew
from datasets.specs import IGNORE, DatasetSpec
from utils.common.errors import UserError
from utils.common.files import make_folder, note_leftovers, partial_of

IGNORED = "ignored.csv"
FORMS: dict[str, Form] = {
    "voc": masks,
    "png": masks,
    "coco": coco,
    "labelme": labelme,
    "yolo": yolo,
}


class Written(NamedTuple):
    """What became of one label map: its pixels, those ignored, and what its form says of it."""

    pixels: int
    ignored: int
    content: Any


def export_labels(
    items: Sequence[Item],
    spec: DatasetSpec,
    options: ExportOptions,
    out: Path,
    workers: int = 0,
) -> str:
    """Write label maps in a form that other tools read.

    Memory does not grow with their number, but for their names.

    Args:
        items: photos, whose `mask` is the label map: a PNG of labels 0..K and 255, of the size at
            which the photo is shown.
        spec: names of the labels.
        options: the form, and how it is written.
        out: folder to write; it must not be there yet, or be empty.
        workers: processes; 0: in this one.

    Returns:
        What was written, in words.

    Raises:
        UserError: there is no label map, one cannot be read or does not fit its photo or the
            classes, two photos would be called alike, or the folder is there or cannot be written.
            Nothing is left behind.
    """
    if not items:
        raise UserError("there is no label map to write; make some first")
    if options.keeps_names:
        _refuse_alike(items, options.format)

    form = FORMS[options.format]
    total = IgnoredPixels()
    with _whole_folder(out) as folder, crew(workers) as each:
        target = Target(folder, out, spec, options)
        work = partial(_write_one, target)
        with form.gather(target) as add, _side_file(target, total) as note:
            for item, written in zip(items, each(work, items, options.format)):
                note(item, written)
                add(item, written.content)

    said = f"{len(items)} label maps as {options.format}: {out}"
    if total.images:
        said += f"; {total.sentence(out)}"
    return said


def _refuse_alike(items: Sequence[Item], form: str) -> None:
    """Raise UserError where photos of several folders have one name in theirs."""
    seen: dict[str, Path] = {}
    for item in items:
        name = own_name(item)
        if name in seen:
            raise UserError(
                f"--format {form} calls both {seen[name]} and {item.image} {name!r}; add "
                "--copy_images, which names them apart"
            )
        seen[name] = item.image


def _write_one(target: Target, item: Item) -> Written:
    """Write the files of one label map."""
    labels = read_labels(item, len(target.spec.label_names))
    ignored = int(np.count_nonzero(labels == IGNORE))
    options = target.options
    if ignored and options.ignored == "refuse" and options.format not in MASKS:
        raise UserError(
            f"{item.mask} has {ignored} pixels of {IGNORE}, which --format {options.format} "
            f"cannot hold; use --format {' or '.join(MASKS)}, or --ignored count"
        )
    content = FORMS[options.format].write(target, item, labels)
    return Written(labels.size, ignored, content)


class IgnoredPixels:
    """Counts of pixels that belong to no object, as they are found."""

    def __init__(self) -> None:
        self.images = 0
        self.pixels = 0

    def sentence(self, out: Path) -> str:
        """Say how many there are."""
        return (
            f"{self.pixels} ignored pixels ({IGNORE}) of {self.images} belong to no object, which "
            f"other tools take for background: {out / IGNORED}"
        )


@contextmanager
def _side_file(target: Target, total: IgnoredPixels) -> Iterator[Callable[[Item, Written], None]]:
    """Count ignored pixels of each label map in a table, where the form cannot hold them."""
    if target.options.format in MASKS:
        yield lambda item, written: None
        return

    path = target.folder / IGNORED
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "ignored", "pixels"])

        def note(item: Item, written: Written) -> None:
            """Count one label map, with a row where it has ignored pixels."""
            if written.ignored:
                total.images += 1
                total.pixels += written.ignored
                table.writerow([item.name, written.ignored, written.pixels])

        yield note


@contextmanager
def _whole_folder(out: Path) -> Iterator[Path]:
    """Make a folder that gets its name when all is written, and is removed if that fails.

    Raises UserError where something bears the name.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UserError(f"--out {out} is there already; name a new folder")

    folder = partial_of(out.absolute(), own=True)
    shutil.rmtree(folder, ignore_errors=True)  # of a process of that number that was ended
    note_leftovers(out.absolute())
    try:
        make_folder(folder, out)
        yield folder

        try:
            with suppress(OSError):
                out.rmdir()
            folder.rename(out)
        except OSError as error:
            if not out.exists():
                raise
            raise UserError(f"--out {out} was made meanwhile; name a new folder") from error
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"nothing of {out}, which is written as a whole") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # has its other name if it is whole
