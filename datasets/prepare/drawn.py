"""Masks drawn from what an annotation tool exports, to score with.

Of objects that overlap, the one that covers fewer pixels is seen, of equal ones the first.
"""

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import numpy as np

from datasets.annotations import class_of, is_ignored, matched
from datasets.forms.detect import rows_of_folder
from datasets.pictures import Picture, mask_png, open_image
from datasets.rows import Region, Row
from datasets.specs import IGNORE, DatasetSpec, palette
from utils.common.console import say_once
from utils.common.errors import UserError
from utils.common.files import (
    make_folder,
    note_leftovers,
    partial_of,
    read_json,
    write_json,
    write_whole,
)
from utils.common.progress import progress

MASKS = "masks"  # folder of them in a prepared one
_MARKER = "drawn_from.json"  # in it: from what, and the digest of all masks


def is_export(path: Path) -> bool:
    """Tell whether masks are to be drawn from a file or folder, rather than being there as PNGs.
    Raises UserError where it cannot be read.
    """
    try:
        return path.is_file() or rows_of_folder(path, (), outlines=False) is not None
    except OSError as error:
        raise UserError(f"--masks {path} cannot be read ({error}); copy it again") from error


def draw_masks(
    source: Path, root: Path, names: dict[PurePosixPath, str], spec: DatasetSpec, folder: Path
) -> list[str | None]:
    """Draw the mask of each picture of which an export shows every object, as palette PNG.

    Args:
        source: file or folder of the export.
        root: folder of the pictures.
        names: what masks are called, without suffix, by the pictures' paths below `root`.
        spec: the classes.
        folder: where to write.

    Returns:
        path of each picture's mask below `folder`, None where it has none.

    Raises:
        UserError: the export is malformed, does not fit the pictures, or has no outline.
    """
    drawn: dict[PurePosixPath, str] = {}
    without: dict[PurePosixPath, Row] = {}
    rows = matched(source, list(names), spec, [root], "--masks", partial=True, outlines=True)
    for file, row in progress(rows, desc="masks", total=len(names)):
        labels = labels_of(row, open_image(root / file), spec)
        if labels is None:
            without[file] = row
            continue
        drawn[file] = f"{names[file]}.png"
        write_whole(folder / drawn[file], mask_png(labels, palette()))

    if without:
        said = f"{len(without)} pictures, first {min(without)}, have tags, boxes or points there"
        if not drawn:
            raise UserError(
                f"--masks {source} has no outline: {said} alone; give it as --tags"
                f"{_maps_beside(source)}"
            )
        say_once(f"without {source}", f"{said} without an outline, and get no mask")
    return [drawn.get(file) for file in names]


def _maps_beside(source: Path) -> str:
    """Name the folder of label PNGs that VOC has beside its boxes; empty where there is none."""
    folder = source / "SegmentationClass"
    if not folder.is_dir():
        return ""
    return f", and {folder}, which may hold label PNGs, as --masks"


def labels_of(row: Row, picture: Picture, spec: DatasetSpec) -> np.ndarray | None:
    """Draw the (H, W) uint8 labels of a picture as shown; None where a class is named without an
    outline.

    Raises UserError where an outline is malformed or made for another size.
    """
    outlined = {region.category for region in row.regions if region.pixels}
    if isinstance(row.words, str) or not set(row.words) <= outlined:
        return None
    if any(region.pixels is None for region in row.regions):
        return None

    _check_size(row, picture)
    layers = list(_layers(row, picture.shape, spec))
    labels = np.zeros(picture.shape, np.uint8)
    for label, pixels in reversed(sorted(layers, key=lambda layer: layer[1].sum())):
        labels[pixels] = label
    return labels


def _layers(
    row: Row, shape: tuple[int, int], spec: DatasetSpec
) -> Iterator[tuple[int, np.ndarray]]:
    """Return the label and (H, W) bool pixels of each object."""
    for number, region in enumerate(row.regions, 1):
        if region.pixels:
            place = f"{row.place}, object {number} ({region.category})"
            yield _label(region, spec, place), region.pixels(*shape, place)


def _label(region: Region, spec: DatasetSpec, place: str) -> int:
    name = class_of(region.category, spec, place)
    if name:
        return spec.classes.index(name) + 1
    if is_ignored(region.category):
        return IGNORE
    return 0


def _check_size(row: Row, picture: Picture) -> None:
    """Refuse outlines of a picture of another size. Sides that are merely exchanged are said."""
    if row.size in (None, picture.shape):
        return

    assert row.size is not None
    there, here = (f"{size[1]} x {size[0]}" for size in (row.size, picture.shape))
    if row.size != picture.shape[::-1]:
        raise UserError(
            f"{row.place} is of a picture of {there}, but {picture.name} has {here}; export it for "
            "these pictures, or give those of the export as --images"
        )
    if picture.turned:
        raise UserError(
            f"{row.place} is of {there}, as {picture.name} is stored, but EXIF turns it to {here}; "
            "save the picture turned and annotate that"
        )

    say_once(
        "exchanged",
        f"{row.place} says {there} of a picture of {here}: width and height are taken as "
        "exchanged there; others likewise",
    )


@contextmanager
def renewed(folder: Path, source: Path) -> Iterator[Path]:
    """Give a new folder to fill, which takes the place of `folder` in the end, or leaves no trace
    after an error.

    Raises UserError where `folder` is there and not as it was made here.
    """
    if folder.exists() and not _is_untouched(folder):
        raise UserError(
            f"{folder} holds masks that were not drawn here, or were changed since; move them "
            "elsewhere, or give them as --masks"
        )

    own = not folder.parent.exists()
    gathering = partial_of(folder, own=True)
    replaced = gathering.with_suffix(".old")
    shutil.rmtree(gathering, ignore_errors=True)  # of a process of that number that was ended
    note_leftovers(folder)
    try:
        make_folder(gathering, folder)
        yield gathering
        marker = {"source": str(source), "sha256": _digest(gathering)}
        write_json(gathering / _MARKER, marker)
        if folder.exists():
            shutil.rmtree(replaced, ignore_errors=True)
            folder.rename(replaced)
        gathering.rename(folder)
    except BaseException:
        made = folder.parent if own else gathering
        shutil.rmtree(made, ignore_errors=True)
        raise
    shutil.rmtree(replaced, ignore_errors=True)


def _is_untouched(folder: Path) -> bool:
    marker = folder / _MARKER
    return marker.is_file() and read_json(marker).get("sha256") == _digest(folder)


def _digest(folder: Path) -> str:
    """Return the SHA-256 of the names and bytes of all masks below a folder."""
    digest = hashlib.sha256()
    files: Sequence[Path] = sorted(path for path in folder.rglob("*") if path.is_file())
    for file in files:
        if file.name != _MARKER:
            digest.update(f"{file.relative_to(folder).as_posix()}\0".encode(errors="replace"))
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
