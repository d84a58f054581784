"""Masks of one's own pictures: found by the pictures' names, or drawn from what a tool exported."""

import unicodedata
from argparse import Namespace
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from datasets.exporting.maps import maps_folder
from datasets.folders import MASK_MARKS
from datasets.lists import Item
from datasets.mask_signs import refuse_suspicious
from datasets.predictions import check_order, told_files
from datasets.prepare.drawn import MASKS, draw_masks, is_export, renewed
from datasets.specs import DatasetSpec
from utils.common.console import say_once
from utils.common.errors import UserError


@contextmanager
def masks_given(
    args: Namespace, names: dict[PurePosixPath, str], spec: DatasetSpec
) -> Iterator[tuple[Path | None, list[str | None]]]:
    """Give the folder of masks, --masks (of a run folder, its label maps) or one below --out in
    which they are drawn from an export, and the path of each picture's mask below it.

    What is drawn gets its place at the end, if nothing is raised till then. Raises UserError where
    masks are suspicious, or none fits a picture.
    """
    if not args.masks:
        yield None, [None] * len(names)

    elif not is_export(args.masks):
        folder = maps_folder(args.masks)
        check_order(folder, spec.label_names)
        masks = masks_of(list(names), folder, args.images)
        _refuse_suspicious(args.images, names, folder, masks, spec)
        yield folder, masks

    else:
        drawn = args.out / MASKS
        with renewed(drawn, args.masks) as folder:
            masks = draw_masks(args.masks, args.images, names, spec, folder)
            _refuse_suspicious(args.images, names, folder, masks, spec, drawn)
            yield drawn, masks


def _refuse_suspicious(
    root: Path,
    files: Iterable[PurePosixPath],
    folder: Path,
    masks: Sequence[str | None],
    spec: DatasetSpec,
    final: Path | None = None,
) -> None:
    """Refuse masks below a folder, which will be `final`, as `refuse_suspicious` does."""
    place = final or folder
    pairs = ((file, mask) for file, mask in zip(files, masks) if mask)
    items = (Item(str(file), root / file, folder / mask) for file, mask in pairs)
    refuse_suspicious(items, len(spec.classes), final=lambda mask: place / mask.relative_to(folder))


def masks_of(files: Sequence[PurePosixPath], folder: Path, root: Path) -> list[str | None]:
    """Return the path of each picture's mask below a folder: the picture's own path with .png in
    place of its suffix, or after it, else one that differs in case alone, or in how its letters
    are composed, else one with a mark at its end, as a_mask.png; None if none. What fits no picture
    is said.

    Pictures below `root` are no masks where they lie in the folder. Raises UserError where the
    folder holds no PNG, or none that fits.
    """
    pictures = {root.resolve() / file for file in files}
    told = told_files(folder, "--masks")
    masks = {name: file.relative_to(folder).as_posix() for name, file in told.items()}
    masks = {name: mask for name, mask in masks.items() if folder.resolve() / mask not in pictures}
    if not masks:
        raise UserError(
            f"--masks {folder} holds no PNG but the pictures; give a folder of label PNGs"
        )

    found, unclear = _fitting(files, masks)
    if unclear:
        _say_unclear(folder, unclear, any(found))
    elif not any(found):
        wanted = f"{files[0].with_suffix('.png')} for {files[0]}"
        raise UserError(
            f"--masks {folder} has {len(masks)} PNGs, first {folder / min(masks.values())}, and "
            f"none is called as a picture with tags ({wanted}); {_remedy(folder, masks, files)}"
        )

    unused = set(masks.values()) - set(found).union(*unclear.values())
    if unused:
        say_once(
            f"unused {folder}",
            f"{len(unused)} of {len(masks)} PNGs in {folder}, first {min(unused)}, are masks of no "
            "picture with tags, and left out",
        )
    _take_shared(files, found, folder)
    return found


def _fitting(
    files: Sequence[PurePosixPath], masks: Mapping[str, str]
) -> tuple[list[str | None], dict[PurePosixPath, set[str]]]:
    """Return each picture's mask, of the masks by path without suffix, and the candidates of
    pictures that have several.
    """
    found = [masks.get(str(file), masks.get(str(file.with_suffix("")))) for file in files]
    taken = set(found)
    alike: dict[str, set[str]] = {}
    for name, mask in masks.items():
        if mask not in taken:
            alike.setdefault(_alike(name), set()).add(mask)

    unclear: dict[PurePosixPath, set[str]] = {}
    for place, file in enumerate(files):
        if found[place] is None:
            candidates = next((alike[name] for name in _names(file) if name in alike), set())
            if not candidates:
                candidates = set().union(*(alike.get(name, ()) for name in _marked(file)))
            if len(candidates) == 1:
                found[place] = next(iter(candidates))
            elif candidates:
                unclear[file] = candidates
    return found, unclear


def _take_shared(files: Sequence[PurePosixPath], found: list[str | None], folder: Path) -> None:
    """Take a mask from pictures that share it, as a.jpg and a.png share a.png: it is of one of
    them, and nothing says of which. Says so, and what to call it.
    """
    times = Counter(mask for mask in found if mask)
    shared = [place for place, mask in enumerate(found) if mask and times[mask] > 1]
    if not shared:
        return

    first = shared[0]
    say_once(
        f"shared {folder}",
        f"{len(shared)} pictures differ in their suffix alone, first {files[first]}, so that "
        f"{folder / str(found[first])} may be the mask of several, and is of none; call it "
        f"{files[first]}.png if it is of {files[first].name}",
    )
    for place in shared:
        found[place] = None


def _say_unclear(folder: Path, unclear: Mapping[PurePosixPath, set[str]], others_fit: bool) -> None:
    """Say which pictures have several masks. Raises UserError where no other has one."""
    file = next(iter(unclear))
    said = (
        f"{len(unclear)} pictures, first {file}, have several PNGs in {folder} that may be their "
        f"masks, {' and '.join(sorted(unclear[file]))}"
    )
    if not others_fit:
        raise UserError(f"{said}; keep one for each picture")
    say_once(f"unclear {folder}", f"{said}, and get none")


def _remedy(folder: Path, masks: Iterable[str], files: Iterable[PurePosixPath]) -> str:
    """Say what to do where no mask is called as a picture: name the folder below in which some are,
    if there is one.
    """
    called = {name for file in files for name in (*_names(file), *_marked(file))}
    for mask in sorted(masks):
        parts = mask.split("/")
        for depth in range(1, len(parts)):
            if _alike("/".join(parts[depth:])) in called:
                return f"give --masks {folder.joinpath(*parts[:depth])}"
    return "rename them, or name the folder that holds the masks"


def _names(file: PurePosixPath) -> tuple[str, str]:
    """Return what a picture's mask may be called, less its .png."""
    return _alike(str(file)), _alike(str(file.with_suffix("")))


def _marked(file: PurePosixPath) -> Iterator[str]:
    """Yield the same with the marks that tools put at the end."""
    return (name + mark for name in _names(file) for mark in MASK_MARKS)


def _alike(name: str) -> str:
    """Return what names have in common that systems take for one another."""
    return unicodedata.normalize("NFC", name).casefold()
