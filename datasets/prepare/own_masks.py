"""Masks of one's own pictures: found by the pictures' names, or drawn from what a tool exported."""

import unicodedata
from argparse import Namespace
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from datasets.lists import Item
from datasets.mask_signs import refuse_suspicious
from datasets.predictions import told_files
from datasets.prepare.drawn import MASKS, draw_masks, is_export, renewed
from datasets.specs import DatasetSpec


@contextmanager
def masks_given(
    args: Namespace, names: dict[PurePosixPath, str], spec: DatasetSpec
) -> Iterator[tuple[Path | None, list[str | None]]]:
    """Give the folder of masks, --masks or one below --out in which they are drawn from an export,
    and the path of each picture's mask below it.

    What is drawn gets its place at the end, if nothing is raised till then. Raises UserError where
    masks are suspicious.
    """
    if not args.masks:
        yield None, [None] * len(names)

    elif not is_export(args.masks):
        masks = masks_of(list(names), args.masks)
        _refuse_suspicious(args.images, names, args.masks, masks, spec)
        yield args.masks, masks

    else:
        drawn = args.out / MASKS
        with renewed(drawn, args.masks) as folder:
            masks = draw_masks(args.masks, args.images, names, spec, folder)
            _refuse_suspicious(args.images, names, folder, masks, spec)
            yield drawn, masks


def _refuse_suspicious(
    root: Path,
    files: Iterable[PurePosixPath],
    folder: Path,
    masks: Sequence[str | None],
    spec: DatasetSpec,
) -> None:
    pairs = ((file, mask) for file, mask in zip(files, masks) if mask)
    items = (Item(str(file), root / file, folder / mask) for file, mask in pairs)
    refuse_suspicious(items, len(spec.classes))


def masks_of(files: Sequence[PurePosixPath], folder: Path) -> list[str | None]:
    """Return the path of each picture's mask below a folder: the picture's own path with .png in
    place of its suffix, or after it, else one that differs in case alone, or in how its letters
    are composed; None if none.

    Raises UserError where the folder holds no PNG.
    """
    masks = {
        name: file.relative_to(folder).as_posix()
        for name, file in told_files(folder, "--masks").items()
    }
    found = [masks.get(str(file), masks.get(str(file.with_suffix("")))) for file in files]

    taken = set(found)
    alike: dict[str, set[str]] = {}
    for name, mask in masks.items():
        if mask not in taken:
            alike.setdefault(_alike(name), set()).add(mask)

    for place, file in enumerate(files):
        if found[place] is None:
            names = (_alike(str(file)), _alike(str(file.with_suffix(""))))
            candidates = next((alike[name] for name in names if name in alike), set())
            if len(candidates) == 1:
                found[place] = next(iter(candidates))
    return found


def _alike(name: str) -> str:
    """Return what names have in common that systems take for one another."""
    return unicodedata.normalize("NFC", name).casefold()
