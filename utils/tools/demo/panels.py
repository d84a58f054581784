"""The stages of a photo as pictures side by side, its legend, and its mask to keep, as HTML that
holds all of it: no file is written.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
import torch
from markupsafe import Markup, escape
from PIL import Image

from clip.resize import resize
from datasets.pictures import mask_png
from datasets.specs import palette
from utils.drawing import coloured, data_uri, heat, label_name
from utils.inference.refinement import sure_labels
from utils.tools.demo.photos import Photo
from utils.tools.demo.stages import MEANING, Stages

SHOWN = 448  # px, longer side of a panel's picture
OPACITY = 0.6
ALL_TAGS = "all tags"
_QUALITY = 88


@dataclass(frozen=True)
class Panel:
    """A titled picture (H, W, 3) uint8, with what a person who does not see it is told."""

    title: str
    picture: np.ndarray
    said: str


def panels(
    stages: Stages,
    names: Sequence[str],
    tag: str = ALL_TAGS,
    opacity: float = OPACITY,
    threshold: float = 0.0,
) -> list[Panel]:
    """Draw every stage over the photo.

    Args:
        stages: of the photo.
        names: of labels 0..K.
        tag: class whose scores maps show, or ALL_TAGS: at each pixel the highest of any.
        opacity: of colours, 0..1.
        threshold: 0..1. A map shows the photo where its score is below it; a label counts as not
            labelled where its share of the scores is.
    """
    image = shrunk(stages.image)
    size = image.shape[:2]
    drawn = [photo_panel(image)]
    chosen = [names[key + 1] == tag for key in stages.keys.tolist()]
    if not any(chosen):
        chosen = [True] * len(chosen)
    rows = torch.tensor(chosen, dtype=torch.bool)

    for title, maps in stages.maps.items():
        scores = resize(maps[rows, None], size)[:, 0].amax(dim=0).numpy()
        shown = scores >= threshold
        picture = np.where(shown[..., None], heat(image, scores, opacity), image)
        said = f"{shown.mean():.0%} of the photo reach {threshold:g}"
        drawn.append(Panel(title, picture, f"{MEANING[title]}; {said}"))

    for title in stages.channels:
        labels = labels_of(stages, title, threshold, size)
        shares = ", ".join(f"{name} {share:.0%}" for _, name, share in areas(labels, names))
        drawn.append(Panel(title, coloured(image, labels, opacity), f"{MEANING[title]}; {shares}"))
    return drawn


def photo_panel(image: np.ndarray) -> Panel:
    """Show an image (H, W, 3) uint8 as it is."""
    return Panel("photo", shrunk(image), "as it is")


def labels_of(
    stages: Stages, title: str, threshold: float, size: Sequence[int] | None = None
) -> np.ndarray:
    """Return the labels (*size) uint8 of one stage, by default at the photo's size; 255 where the
    highest score has less than `threshold` of their sum.
    """
    if size is None:
        size = stages.image.shape[:2]
    with torch.no_grad():
        return sure_labels(stages.keys, stages.channels[title], size, threshold).numpy()


def areas(labels: np.ndarray, names: Sequence[str]) -> list[tuple[int, str, float]]:
    """Return label, name and share, 0..1, of everything in labels (H, W) uint8."""
    found, counts = np.unique(labels, return_counts=True)
    said = (label_name(label, names) for label in found)
    return list(zip(found.tolist(), said, (counts / labels.size).tolist()))


def shrunk(image: np.ndarray, longest: int = SHOWN) -> np.ndarray:
    """Bring the longer side of an image (H, W, 3) uint8 to at most `longest` px."""
    height, width = image.shape[:2]
    scale = min(1.0, longest / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.array(Image.fromarray(image).resize(size, Image.Resampling.BOX))


def as_html(drawn: Sequence[Panel]) -> Markup:
    """Return a figure for each panel."""
    figure = Markup(
        '<figure><img src="{}" alt="{}: {}" width="{}" height="{}">'
        "<figcaption><strong>{}</strong> {}</figcaption></figure>"
    )

    figures = [
        figure.format(
            _jpeg_address(panel.picture),
            panel.title,
            panel.said,
            panel.picture.shape[1],
            panel.picture.shape[0],
            panel.title,
            MEANING.get(panel.title, ""),
        )
        for panel in drawn
    ]
    return Markup('<div class="panels">{}</div>').format(Markup("").join(figures))


def download_html(
    photo: Photo, stages: Stages, title: str, names: Sequence[str], threshold: float
) -> Markup:
    """Return a link that saves the mask of one stage as palette PNG at the photo's size, with the
    class areas in it.
    """
    labels = labels_of(stages, title, threshold)
    content = base64.b64encode(mask_png(labels, palette())).decode()
    stem = PurePath(photo.name).stem

    swatch = Markup('<li><span class="swatch" style="background:rgb{}"></span>{} {:.1%}</li>')
    colours = palette()
    legend = [
        swatch.format(Markup(tuple(colours[label].tolist())), name, share)
        for label, name, share in areas(labels, names)
    ]

    link = Markup(
        '<a class="save" download="{}_mask.png" href="data:image/png;base64,{}">'
        "Save this mask (PNG, {})</a>"
    ).format(stem, Markup(content), photo.size)
    return Markup('<ul class="legend" aria-label="areas of the mask">{}</ul>{}').format(
        Markup("").join(legend), link
    )


def said_html(text: str, bad: bool = False) -> Markup:
    """Return a sentence that screen readers read out when it changes."""
    role = "status"
    if bad:
        role = "alert"
    return Markup('<p class="said {}" role="{}">{}</p>').format(role, role, escape(text))


def example_style(number: int, photo: Photo) -> str:
    """Return CSS that puts an example's picture onto its button."""
    address = _jpeg_address(shrunk(photo.image, 160))
    return f"#example-{number} {{ background-image: url({address}) }}"


def _jpeg_address(picture: np.ndarray) -> str:
    """Return a picture (H, W, 3) uint8 as an address that holds it."""
    return data_uri(Image.fromarray(picture), "jpeg", quality=_QUALITY)
