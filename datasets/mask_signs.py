"""Signs that masks do not say what they seem to, looked for before a score is made of them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from datasets.lists import Item, Items, spread
from datasets.pictures import Picture, load_palette_mask, open_image
from datasets.specs import IGNORE, palette
from utils.common.console import say_once
from utils.common.errors import UserError

MOST = 200  # masks that are looked at, evenly spread; signs are of a set rather than of one mask


@dataclass(frozen=True)
class Look:
    """What one mask shows: its labels, whether it fits its picture as stored instead of as shown,
    whether the picture is turned, a label whose colour is that of another, and why it cannot be
    used at all, if so.
    """

    path: Path
    labels: frozenset[int]
    stored: bool = False
    turned: bool = False
    recoloured: tuple[int, int] | None = None
    fault: str = ""


def refuse_suspicious(
    items: Iterable[Item],
    classes: int,
    faults: bool = True,
    final: Callable[[Path], Path] = Path,
) -> None:
    """Look at some masks of images with so many classes, background left out. Raises UserError
    where any score made with them would be meaningless; says once what is odd and may be right.

    faults: whether to refuse masks too that cannot be read as labels or have another size than
    their picture, before work is done that needs them in the end. final: tells what a mask will
    be called that is not at its place yet.
    """
    images = Items.of(items)
    masked = images.at(spread(np.flatnonzero(images.masked).tolist(), MOST))
    looks = [look(item.mask, item.image) for item in masked if item.mask]
    looks = [replace(one, path=final(one.path)) for one in looks]

    wrong, odd = signs(looks)
    if faults:
        wrong += _faulty(looks)
    wrong += _foreign(looks, classes)

    for sentence in odd:
        say_once(sentence, sentence)
    if wrong:
        raise UserError(wrong[0])


def look(mask: Path, image: Path | None = None) -> Look:
    """Tell what a mask shows; nothing where its picture cannot be read, which is said when it is
    needed, and its fault alone where it has one.
    """
    try:
        values, colours = load_palette_mask(mask)
    except UserError as error:
        return Look(mask, frozenset(), fault=str(error))

    picture = None
    if image is not None:
        try:
            picture = open_image(image)
        except UserError:
            return Look(mask, frozenset())
        if values.shape != picture.shape and not fits_stored(values.shape, picture):
            return Look(mask, frozenset(), fault=misfit(mask, values.shape, image, picture))

    labels = frozenset(np.unique(values).tolist())
    turned = picture is not None and picture.turned
    stored = picture is not None and fits_stored(values.shape, picture)
    return Look(mask, labels, stored, turned, _recoloured(labels, colours))


def fits_stored(shape: tuple[int, ...], picture: Picture) -> bool:
    """Tell whether a mask of this (height, width) fits the picture's pixels as stored, and not as
    shown.
    """
    return picture.turned and shape != picture.shape and shape == picture.shape[::-1]


def misfit(mask: str | Path, shape: tuple[int, ...], image: str | Path, picture: Picture) -> str:
    """Say that a mask (height, width) has another size than its picture, which is the file
    `image`.
    """
    turned = ""
    if fits_stored(shape, picture):
        turned = ", which EXIF turns"
    return (
        f"mask {mask} is {shape[1]} x {shape[0]} but its image {image} is "
        f"{picture.shape[1]} x {picture.shape[0]}{turned}; make the mask again from this image"
    )


def signs(looks: Sequence[Look]) -> tuple[list[str], list[str]]:
    """Return the sentences about what makes every score meaningless, and about what is odd."""
    looks = [one for one in looks if one.labels]
    wrong, odd = (
        [said for test, sentence in known if (said := _said(test, sentence, looks))]
        for known in (_WRONG, _ODD)
    )
    return wrong, odd


def _faulty(looks: Sequence[Look]) -> list[str]:
    """Return a sentence about masks that cannot be used."""
    found = [one.fault for one in looks if one.fault]
    if not found:
        return []
    return [f"{len(found)} of {len(looks)} masks looked at cannot be used, the first: {found[0]}"]


def _foreign(looks: Sequence[Look], classes: int) -> list[str]:
    """Return a sentence about labels that no class has, which no score would count."""
    known = {*range(classes + 1), IGNORE}
    found = [one for one in looks if one.labels - known]
    if not found:
        return []
    example = min(found[0].labels - known)
    return [
        f"{len(found)} masks, first {found[0].path}, hold labels outside 0..{classes} and "
        f"{IGNORE}, such as {example}, whose pixels no score would count; give masks of these "
        "classes, or list all classes that they have, in the order of their labels"
    ]


def _said(
    test: Callable[[Sequence[Look]], Sequence[Look]], sentence: str, looks: Sequence[Look]
) -> str:
    if not looks:
        return ""
    found = test(looks)
    if not found:
        return ""
    return sentence.format(n=len(found), first=found[0].path)


def _all(condition: Callable[[Look], bool]) -> Callable[[Sequence[Look]], Sequence[Look]]:
    """Make a test that finds all masks, if the condition holds for each."""
    return lambda looks: looks if all(map(condition, looks)) else []


def _some(condition: Callable[[Look], bool]) -> Callable[[Sequence[Look]], Sequence[Look]]:
    return lambda looks: [one for one in looks if condition(one)]


def _binary(looks: Sequence[Look]) -> Sequence[Look]:
    """Return all masks, if none has another label than 0 and 255 and some have the latter."""
    shown = frozenset().union(*(one.labels for one in looks))
    if IGNORE in shown and shown <= {0, IGNORE}:
        return looks
    return []


def _without_background(looks: Sequence[Look]) -> Sequence[Look]:
    shown = frozenset().union(*(one.labels for one in looks))
    if IGNORE in shown and 0 not in shown:
        return looks
    return []


_WRONG = (
    (
        _binary,
        f"the masks hold 0 and {IGNORE} alone ({{n}} looked at, first {{first}}), of which "
        f"{IGNORE} does not count, so that nothing can be scored; write the number of the class, "
        "from 1 on, in its place",
    ),
    (
        _some(lambda one: one.stored),
        "{n} masks, first {first}, have the size of their pictures as stored, but EXIF turns these "
        "pictures; turn the masks likewise",
    ),
)
_ODD = (
    (
        _some(lambda one: one.turned),
        "{n} pictures with masks, first that of {first}, are turned by EXIF; make sure that the "
        "masks are drawn on the pictures as they are shown",
    ),
    (
        _all(lambda one: one.labels == {0}),
        "all {n} masks looked at, first {first}, are background alone; a score says nothing of the "
        "classes",
    ),
    (
        _all(lambda one: len(one.labels - {IGNORE}) < 2 and one.labels != {0}),
        "each of the {n} masks looked at, first {first}, is one label all over; make sure that "
        "they are masks of objects",
    ),
    (
        _without_background,
        f"none of the {{n}} masks looked at, first {{first}}, has background (0), and some have "
        f"{IGNORE}; where labels were counted from 0, add 1 to each and make {IGNORE} 0",
    ),
    (
        _some(lambda one: one.recoloured is not None),
        "{n} masks, first {first}, have labels in the colours of other labels, as after a palette "
        "was put in another order; make sure that their pixels hold the labels",
    ),
)


def _recoloured(labels: frozenset[int], colours: np.ndarray | None) -> tuple[int, int] | None:
    """Return a label and the other whose VOC colour it has, where that holds for all labels."""
    if colours is None:
        return None
    in_order = list(enumerate(palette().tolist()))
    meant = {tuple(colour): label for label, colour in reversed(in_order)}

    shown = [label for label in sorted(labels - {0, IGNORE}) if label < len(colours)]
    found = [(label, meant.get(tuple(colours[label].tolist()), label)) for label in shown]
    moved = [pair for pair in found if pair[0] != pair[1]]
    if moved and len(moved) == len(found):
        return moved[0]
    return None
