"""Which images a report shows, and how they get into one HTML file: thumbnails with see-through
label maps.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from datasets.pictures import load_image, load_mask
from datasets.specs import IGNORE, palette
from utils.common.errors import UserError
from utils.drawing import data_uri, label_name
from utils.report.folder import Scored

GROUPS = ("best", "median", "worst")
LONG = 440  # px of a thumbnail's longer side
MANY = 40  # with more classes than this only the worst image of each is added
# labels of an error map; right is 0
WRONG = 1
UNSURE = 2
ERRORS = np.array([(0, 0, 0), (230, 40, 60), (150, 150, 150)], np.uint8)

COLOURS = tuple("#" + bytes(colour).hex() for colour in palette())  # of labels 0..255, for CSS


@dataclass(frozen=True)
class Tile:
    """A see-through PNG over the photograph, as a data URI; "" shows the photograph alone."""

    title: str
    overlay: str


@dataclass(frozen=True)
class Card:
    """An image of the gallery: the photograph as a data URI, its tiles and width : height."""

    scored: Scored
    group: str
    photo: str
    ratio: float
    tiles: tuple[Tile, ...]


def choose(images: Sequence[Scored], each: int) -> dict[str, list[Scored]]:
    """Choose the `each` best, median and worst images by mIoU, none twice; under "class" those with
    the extreme IoU of each class.

    Images without truth are no part of it, unless none has any: then the first are all "predicted".
    """
    ranked = sorted(
        (image for image in images if not math.isnan(image.miou)), key=lambda image: -image.miou
    )
    if not images:
        return {}
    if not ranked:
        return {"predicted": list(images[:each])}

    best = ranked[:each]
    rest = ranked[each:]
    worst = rest[::-1][:each]
    rest = rest[: max(0, len(rest) - each)]
    first = max(0, (len(rest) - each) // 2)
    groups = dict(zip(GROUPS, (best, rest[first : first + each], worst)))
    taken = {image.name for group in groups.values() for image in group}
    extreme: dict[str, Scored] = {}
    labels = sorted({label for image in ranked for label in image.ious} - {0})

    for label in labels:
        having = sorted(
            (image for image in ranked if label in image.ious), key=lambda image: image.ious[label]
        )
        ends = having[:1]
        if len(labels) <= MANY:
            ends = [having[0], having[-1]]
        extreme |= {image.name: image for image in ends if image.name not in taken}

    return {
        name: group for name, group in {**groups, "class": list(extreme.values())}.items() if group
    }


def cards(chosen: dict[str, list[Scored]], predictions: Path) -> tuple[list[Card], list[str]]:
    """Return cards in order, and the names of images whose picture, mask or prediction PNG is gone
    or unreadable.
    """
    made = []
    gone = []
    for group, images in chosen.items():
        for scored in images:
            try:
                made.append(_card(scored, group, predictions / f"{scored.name}.png"))
            except (OSError, UserError, ValueError):  # gone, unreadable, or of another size
                gone.append(scored.name)
    return made, gone


def labels_of(cards: Sequence[Card]) -> list[int]:
    """Return labels 1..K that are told of some card, ascending: what the cards are filtered by."""
    return sorted({label for card in cards for label in card.scored.labels} - {0, IGNORE})


def names_of(names: Sequence[str]) -> dict[int, str]:
    """Return what each label 0..255 is called, by the names of labels 0..K."""
    return {label: label_name(label, names) for label in range(IGNORE + 1)}


def thumbnail(picture: Image.Image, long: int = LONG) -> str:
    """Return a JPEG data URI of at most `long` px a side."""
    small = picture.convert("RGB")
    small.thumbnail((long, long), Image.Resampling.LANCZOS)
    return data_uri(small, "jpeg", quality=82)


def _card(scored: Scored, group: str, prediction: Path) -> Card:
    for file in (scored.image, scored.mask, prediction):
        if file is not None:
            file.stat()  # what is gone is told at once, where reading would try again for a second

    image = load_image(scored.image)
    predicted = load_mask(prediction)
    tiles = [Tile("image", ""), Tile("prediction", _overlay(predicted, palette()))]
    if scored.mask is not None:
        truth = load_mask(scored.mask)
        errors = np.where(truth == IGNORE, UNSURE, np.where(truth == predicted, 0, WRONG))
        tiles[1:1] = [Tile("truth", _overlay(truth, palette()))]
        tiles.append(Tile("errors", _overlay(errors.astype(np.uint8), ERRORS)))
    height, width = image.shape[:2]
    return Card(scored, group, thumbnail(Image.fromarray(image)), width / height, tuple(tiles))


def _overlay(labels: np.ndarray, colours: np.ndarray) -> str:
    """Return labels (H, W) uint8 as a palette PNG data URI; label 0 is see-through."""
    picture = Image.fromarray(labels)
    picture.thumbnail((LONG, LONG), Image.Resampling.NEAREST)
    picture.putpalette(colours.ravel().tolist())
    return data_uri(picture, "png", transparency=0, optimize=True)
