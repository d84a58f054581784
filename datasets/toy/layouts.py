"""The toy's pictures in the folders of PASCAL VOC, of COCO, and as photographs under odd names."""

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

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


def fill_voc(root: Path, counts: Counts, size: int, seed: int) -> None:
    """Write so many pictures of each split as VOC2012, into an empty folder."""
    for folder in (
        "JPEGImages",
        "SegmentationClassAug",
        "SegmentationClass",
        "Annotations",
        "ImageSets/Segmentation",
    ):
        (root / folder).mkdir(parents=True)

    colours = palette().ravel().tolist()
    names: dict[str, list[str]] = {split: [] for split in SPLITS}
    for split in SPLITS:
        for number, scene in _scenes(split, counts[split], size, seed):
            name = f"toy_{split}_{number:06d}"
            _save(scene.image, root / "JPEGImages" / f"{name}.jpg")
            mask = Image.fromarray(scene.labels)
            mask.putpalette(colours)
            mask.save(root / "SegmentationClassAug" / f"{name}.png")
            mask.save(root / "SegmentationClass" / f"{name}.png")
            (root / "Annotations" / f"{name}.xml").write_text(_xml(name, scene))
            names[split].append(name)

    every = {"train_aug": names["train"], "trainval": names["train"] + names["val"], **names}
    for split, members in every.items():
        (root / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(
            "".join(f"{name}\n" for name in members)
        )


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


def fill_coco(root: Path, counts: Counts, size: int, seed: int) -> None:
    """Write so many pictures of each split as COCO 2014, into an empty folder."""
    classes = coco_classes()
    relabel = np.full(256, IGNORE, np.uint8)
    relabel[0] = 0
    relabel[1 : len(classes) + 1] = [k + 1 for k in classes]
    categories = [{"id": i, "name": name} for i, name in zip(COCO_IDS, COCO.classes)]
    (root / "annotations").mkdir()
    image_id = 0

    for split in SPLITS:
        images = []
        annotations = []
        pictures = root / "coco2014" / f"{split}2014"
        masks = root / "mask" / f"{split}2014"
        pictures.mkdir(parents=True)
        masks.mkdir(parents=True)

        for _, scene in _scenes(split, counts[split], size, seed):
            image_id += 1
            stem = f"COCO_{split}2014_{image_id:012d}"
            _save(scene.image, pictures / f"{stem}.jpg")
            Image.fromarray(relabel[scene.labels]).save(masks / f"{stem}.png")
            height, width = scene.labels.shape
            images.append(
                {"id": image_id, "file_name": f"{stem}.jpg", "height": height, "width": width}
            )
            annotations += [
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

        whole = {"images": images, "annotations": annotations, "categories": categories}
        (root / "annotations" / f"instances_{split}2014.json").write_text(json.dumps(whole))


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


def fill_custom(root: Path, counts: Counts, size: int, seed: int) -> None:
    """Write so many pictures of each split under odd names, into an empty folder."""
    rows = [("image", "tags")]
    for split in SPLITS:
        for number, scene in _scenes(split, counts[split], size, seed):
            name = _ODD_NAMES[number % len(_ODD_NAMES)].format(f"{split} {number}")
            image = root / "photos" / name
            mask = root / "masks" / f"{name}.png"
            image.parent.mkdir(parents=True, exist_ok=True)
            mask.parent.mkdir(parents=True, exist_ok=True)
            _save(scene.image, image)
            Image.fromarray(scene.labels).save(mask)
            rows.append((name, ";".join(sorted({VOC.classes[k] for k, _, _ in _boxes(scene)}))))

    with (root / "tags.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(rows)

    (root / "classes.yaml").write_text(
        "".join(["classes:\n", *(f"- {name}\n" for name in VOC.classes)])
    )


def _scenes(split: str, count: int, size: int, seed: int) -> Iterator[tuple[int, Scene]]:
    for number in tqdm(range(count), desc=f"toy {split}", disable=None):
        yield number, picture(seed, split, number, size)


def _save(image: np.ndarray, path: Path) -> None:
    Image.fromarray(image).save(path, quality=_JPEG_QUALITY)


def _boxes(scene: Scene) -> Iterator[tuple[int, np.ndarray, tuple[int, int, int, int]]]:
    """List (class, mask (H, W) uint8, (x, y, width, height)) of each object that shows."""
    for number, k in enumerate(scene.objects, start=1):
        mask = ((scene.instances == number) & (scene.labels == k + 1)).astype(np.uint8)
        if mask.any():
            x, y, width, height = cv2.boundingRect(mask)
            yield k, mask, (x, y, width, height)


# Folder form -> what fills an empty folder with so many pictures of a size and a seed.
LAYOUTS: dict[str, Callable[[Path, Counts, int, int], None]] = {
    "voc": fill_voc,
    "coco": fill_coco,
    "custom": fill_custom,
}
