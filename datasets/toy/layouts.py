"""The toy's pictures in the folders of PASCAL VOC, of COCO, and as photographs under odd names."""

import csv
import json
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from datasets.prepare.parallel import Each
from datasets.specs import COCO, COCO_IDS, IGNORE, VOC, palette
from datasets.toy.scene import SPLITS, Scene, picture
from datasets.toy.words import wordings
from utils.common.opencv import cv2

_JPEG_QUALITY = 92
_ODD_NAMES = (
    "{}.JPG",
    "Küche/Foto {}.jpeg",
    "a;b, c/深い {}.png",
    "sub dir/sub/IMG ({}).JPEG",
    "dots.v{}.final.webp",
)
Counts = dict[str, int]  # pictures of each split


def fill_voc(root: Path, counts: Counts, size: int, seed: int, each: Each) -> None:
    """Write so many pictures of each split as VOC2012, into an empty folder."""
    for folder in (
        "JPEGImages",
        "SegmentationClassAug",
        "SegmentationClass",
        "Annotations",
        "ImageSets/Segmentation",
    ):
        (root / folder).mkdir(parents=True)

    names: dict[str, list[str]] = {}
    for split in SPLITS:
        write = partial(_write_voc, root, split, size, seed)
        names[split] = list(each(write, range(counts[split]), f"toy {split}"))

    every = {"train_aug": names["train"], "trainval": names["train"] + names["val"], **names}
    for split, members in every.items():
        (root / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(
            "".join(f"{name}\n" for name in members)
        )


def _write_voc(root: Path, split: str, size: int, seed: int, number: int) -> str:
    """Draw a picture of a split, write its files as VOC has them, and return its name."""
    scene = picture(seed, split, number, size)
    name = f"toy_{split}_{number:06d}"
    _save(scene.image, root / "JPEGImages" / f"{name}.jpg")

    mask = Image.fromarray(scene.labels)
    mask.putpalette(palette().ravel().tolist())
    mask.save(root / "SegmentationClassAug" / f"{name}.png")
    mask.save(root / "SegmentationClass" / f"{name}.png")

    (root / "Annotations" / f"{name}.xml").write_text(_xml(name, scene))
    return name


def _xml(name: str, scene: Scene) -> str:
    """Write the VOC annotation of a picture; boxes are 1-based and include their last row and
    column.
    """
    height, width = scene.labels.shape
    lines = [
        f"<annotation><folder>toy</folder><filename>{name}.jpg</filename>",
        f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
        "<segmented>1</segmented>",
    ]
    for k, _, (x, y, w, h) in _boxes(scene):
        lines.append(
            f"<object><name>{VOC.classes[k]}</name><pose>Unspecified</pose><truncated>0</truncated>"
            f"<difficult>0</difficult><bndbox><xmin>{x + 1}</xmin><ymin>{y + 1}</ymin>"
            f"<xmax>{x + w}</xmax><ymax>{y + h}</ymax></bndbox></object>"
        )

    return "\n".join([*lines, "</annotation>\n"])


def fill_coco(root: Path, counts: Counts, size: int, seed: int, each: Each) -> None:
    """Write so many pictures of each split as COCO 2014, into an empty folder."""
    categories = [{"id": i, "name": name} for i, name in zip(COCO_IDS, COCO.classes)]
    (root / "annotations").mkdir()
    before = 0  # pictures of the splits before

    for split in SPLITS:
        (root / "coco2014" / f"{split}2014").mkdir(parents=True)
        (root / "mask" / f"{split}2014").mkdir(parents=True)

        write = partial(_write_coco, root, split, size, seed, before + 1)
        images = []
        annotations = []
        for image, own in each(write, range(counts[split]), f"toy {split}"):
            images.append(image)
            annotations += own
        before += counts[split]

        whole = {"images": images, "annotations": annotations, "categories": categories}
        (root / "annotations" / f"instances_{split}2014.json").write_text(json.dumps(whole))


def _write_coco(
    root: Path, split: str, size: int, seed: int, first_id: int, number: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Draw a picture of a split, whose first has id `first_id`, write image and mask as COCO has
    them, and return its entries among images and annotations.
    """
    scene = picture(seed, split, number, size)
    classes = coco_classes()
    relabel = np.full(256, IGNORE, np.uint8)
    relabel[0] = 0
    relabel[1 : len(classes) + 1] = [k + 1 for k in classes]

    image_id = first_id + number
    stem = f"COCO_{split}2014_{image_id:012d}"
    _save(scene.image, root / "coco2014" / f"{split}2014" / f"{stem}.jpg")
    Image.fromarray(relabel[scene.labels]).save(root / "mask" / f"{split}2014" / f"{stem}.png")

    height, width = scene.labels.shape
    image = {"id": image_id, "file_name": f"{stem}.jpg", "height": height, "width": width}
    annotations = [
        {
            "id": 10 * image_id + place,
            "image_id": image_id,
            "category_id": COCO_IDS[classes[k]],
            "bbox": list(box),
            "area": int(mask.sum()),
            "iscrowd": 0,
            "segmentation": _polygons(mask),
        }
        for place, (k, mask, box) in enumerate(_boxes(scene))
    ]
    return image, annotations


@cache
def coco_classes() -> tuple[int, ...]:
    """Return the COCO class (0-based) of each VOC class, matched by its wordings."""
    return tuple(
        next(k for k, name in enumerate(COCO.classes) if name in wordings(voc_name))
        for voc_name in VOC.classes
    )


def _polygons(mask: np.ndarray) -> list[list[float]]:
    """Return the outlines of a (H, W) mask as flat lists x0, y0, x1, y1, ...; its box if it is too
    thin to have any.
    """
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    x, y, w, h = cv2.boundingRect(mask)
    box = [x, y, x + w, y, x + w, y + h, x, y + h]
    return [contour.ravel().tolist() for contour in contours if len(contour) >= 3] or [box]


def fill_custom(root: Path, counts: Counts, size: int, seed: int, each: Each) -> None:
    """Write so many pictures of each split under odd names, into an empty folder."""
    rows = [("image", "tags")]
    for split in SPLITS:
        write = partial(_write_custom, root, split, size, seed)
        rows += each(write, range(counts[split]), f"toy {split}")

    with (root / "tags.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(rows)

    (root / "classes.yaml").write_text(
        "".join(["classes:\n", *(f"- {name}\n" for name in VOC.classes)])
    )


def _write_custom(root: Path, split: str, size: int, seed: int, number: int) -> tuple[str, str]:
    """Draw a picture of a split, write photograph and mask, and return its line of the tags."""
    scene = picture(seed, split, number, size)
    name = _ODD_NAMES[number % len(_ODD_NAMES)].format(f"{split} {number}")
    image = root / "photos" / name
    mask = root / "masks" / f"{name}.png"

    image.parent.mkdir(parents=True, exist_ok=True)
    mask.parent.mkdir(parents=True, exist_ok=True)
    _save(scene.image, image)
    Image.fromarray(scene.labels).save(mask)
    return name, ";".join(sorted({VOC.classes[k] for k, _, _ in _boxes(scene)}))


def _save(image: np.ndarray, path: Path) -> None:
    Image.fromarray(image).save(path, quality=_JPEG_QUALITY)


def _boxes(scene: Scene) -> Iterator[tuple[int, np.ndarray, tuple[int, int, int, int]]]:
    """List (class, mask (H, W) uint8, (x, y, width, height)) of each object that shows."""
    for number, k in enumerate(scene.objects, start=1):
        mask = ((scene.instances == number) & (scene.labels == k + 1)).astype(np.uint8)
        if mask.any():
            x, y, width, height = cv2.boundingRect(mask)
            yield k, mask, (x, y, width, height)


# Folder form -> what fills an empty folder with so many pictures of a size and a seed, each of them
# where `crew` has it written.
LAYOUTS: dict[str, Callable[[Path, Counts, int, int, Each], None]] = {
    "voc": fill_voc,
    "coco": fill_coco,
    "custom": fill_custom,
}
