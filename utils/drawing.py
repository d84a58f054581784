"""Pictures of what the method computes: heat maps over the image, labels in the field's colours,
titled rows.
"""

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from datasets.specs import IGNORE, palette
from utils.common.opencv import cv2

MARGIN = 8  # px around a panel
TITLE = 22  # px above it
UNLABELLED = "not labelled"  # name of IGNORE
_FADING = 0.6  # share of its light that background loses under opaque labels


def heat(image: np.ndarray, scores: np.ndarray, opacity: float = 0.6) -> np.ndarray:
    """Draw scores (H, W) in 0..1 as a heat map, of an opacity in 0..1, over an image (H, W, 3)
    uint8.
    """
    colours = cv2.applyColorMap((255 * scores.clip(0, 1)).astype(np.uint8), cv2.COLORMAP_TURBO)[
        ..., ::-1
    ]
    return ((1 - opacity) * image + opacity * colours).astype(np.uint8)


def coloured(image: np.ndarray, labels: np.ndarray, opacity: float = 0.75) -> np.ndarray:
    """Draw labels (H, W) in the VOC palette, of an opacity in 0..1, over an image (H, W, 3) uint8;
    background shows the image, which is the darker the more opaque labels are.
    """
    over = (1 - opacity) * image + opacity * palette()[labels]
    faded = (1 - _FADING * opacity) * image
    return np.where((labels > 0)[..., None], over, faded).astype(np.uint8)


def titled_row(panels: list[tuple[str, np.ndarray]]) -> Image.Image:
    """Draw titled panels (H, W, 3) uint8 of one size side by side on white, under their titles."""
    height, width = panels[0][1].shape[:2]
    step = max(width, *(int(_font().getlength(title)) for title, _ in panels)) + MARGIN
    canvas = Image.new("RGB", (len(panels) * step + MARGIN, height + TITLE + 2 * MARGIN), "white")
    draw = ImageDraw.Draw(canvas)
    for number, (title, panel) in enumerate(panels):
        middle = MARGIN + number * step + (step - MARGIN) // 2
        draw.text((middle, MARGIN + TITLE / 2), title, "black", _font(), anchor="mm")
        canvas.paste(Image.fromarray(panel), (middle - width // 2, MARGIN + TITLE))
    return canvas


def label_name(label: int, names: Sequence[str]) -> str:
    """Return the name of a label of maps, from those of labels 0..K; IGNORE is "not labelled", and
    one that no class has is told by its number.
    """
    if label == IGNORE:
        return UNLABELLED
    if label >= len(names):
        return f"label {label}"
    return names[label]


def legend(labels: Sequence[np.ndarray], names: Sequence[str], width: int) -> Image.Image:
    """Draw a swatch and the name of each class in label maps, in lines of at most `width` px on
    white.

    names: of labels 0..K. Background has no entry; IGNORE is "not labelled".
    """
    present = np.unique(np.concatenate([np.unique(part) for part in labels]))
    entries = [(label, label_name(label, names)) for label in present.tolist() if label]
    places = []
    left = MARGIN
    top = 0
    height = MARGIN

    for _, name in entries:
        wide = int(_font().getlength(name)) + TITLE + 2 * MARGIN
        if left > MARGIN and left + wide > width:
            left = MARGIN
            top += TITLE
        places.append((left, top))
        left += wide
        height = top + TITLE + MARGIN

    canvas = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(canvas)
    for (label, name), (left, top) in zip(entries, places):
        draw.rectangle(
            (left, top + 3, left + 14, top + 17), tuple(palette()[label].tolist()), "black"
        )
        draw.text((left + TITLE, top + 10), name, "black", _font(), anchor="lm")

    return canvas


def stacked(rows: list[Image.Image]) -> Image.Image:
    """Put rows of pictures one under the other on white."""
    canvas = Image.new(
        "RGB", (max(row.width for row in rows), sum(row.height for row in rows)), "white"
    )
    top = 0
    for row in rows:
        canvas.paste(row, (0, top))
        top += row.height
    return canvas


def data_uri(picture: Image.Image, kind: str, **options: object) -> str:
    """Return an address that holds a picture, saved as "jpeg" or "png" with Pillow's options."""
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(15)
