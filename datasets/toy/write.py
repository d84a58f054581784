"""Writes the toy data set to disk: in PASCAL VOC or COCO layout, or as a folder of photographs
under odd names.

All hold the same pictures.
"""

import csv
import json
import shutil
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from datasets.specs import COCO, COCO_IDS, IGNORE, VOC, palette
from datasets.toy.scene import Scene, random_classes, render
from datasets.toy.words import wordings
from utils.common.errors import UserError
from utils.common.files import make_folder, partial_of
from utils.common.opencv import cv2

# the toy benchmark; nothing is tuned on this seed
BENCHMARK = {
    "train": 3000,
    "val": 200,
    "size": 256,
    "seed": 2026,
}
_FORMAT = 1
_MARKER = "toy.json"
_SPLITS = ("train", "val")
_JPEG_QUALITY = 92
_ODD_NAMES = (
    "{}.JPG",
    "Küche/Foto {}.jpeg",
    "a;b, c/深い {}.png",
    "sub dir/sub/IMG ({}).JPEG",
    "dots.v{}.final.webp",
)
_LEAST_SIZE = 64  # so that 3/4 of it is a size that `render` accepts
Counts = dict[str, int]  # pictures of each split


def picture(seed: int, split: str, number: int, size: int) -> Scene:
    """Draw picture `number` (from 0) of "train" or "val": a pure function of the arguments, sides
    `size` or 3/4 of it.

    The first class cycles through all classes, so that they are balanced; up to two more are drawn.
    """
    rng = np.random.default_rng((seed, _SPLITS.index(split), number))
    short = size * 3 // 4
    height, width = ((size, size), (size, short), (short, size))[rng.integers(3)]
    return render(rng, height, width, random_classes(rng, main=number % len(VOC.classes)))


def write_voc(root: str | Path, train: int, val: int, size: int, seed: int) -> None:
    """Write `train` + `val` pictures of `size` px as VOC2012: images, palette masks, XML
    annotations, image lists.

    Does nothing if `root` already holds exactly this set. Raises UserError if it holds anything
    else.
    """
    _write(Path(root).absolute(), train, val, size, seed, "voc", _fill_voc)


def write_coco(root: str | Path, train: int, val: int, size: int, seed: int) -> None:
    """Write the same pictures as COCO 2014: coco2014/{train2014,val2014}, mask/...,
    annotations/instances_*.json.

    Masks hold 0, the place of the category among the 80 plus 1, and 255. Does nothing if `root`
    already holds exactly this set. Raises UserError if it holds anything else.
    """
    _write(Path(root).absolute(), train, val, size, seed, "coco", _fill_coco)


def write_custom(root: str | Path, train: int, val: int, size: int, seed: int) -> None:
    """Write the same pictures as one's own might be: photos/ under odd names and suffixes in nested
    folders, tags.csv, classes.yaml, and masks/.

    Does nothing if `root` already holds exactly this set. Raises UserError if it holds anything
    else.
    """
    _write(Path(root).absolute(), train, val, size, seed, "custom", _fill_custom)


def is_drawn(picture: Path) -> bool:
    """Tell whether a picture lies in a toy set that this module wrote."""
    return any(_holds_toy(folder) for folder in picture.absolute().parents)


@cache
def _holds_toy(folder: Path) -> bool:
    try:
        found = json.loads((folder / _MARKER).read_text())
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("layout") in _WRITERS


def add_command(kinds: Any) -> None:
    """Add the sub-command `toy` to an argparse sub-parsers object."""
    parser = kinds.add_parser(
        "toy",
        help="draw the procedural toy data set",
        description="`python -m datasets.prepare toy`: draw pictures of the twenty VOC classes "
        "with exact masks, a pure function of the seed, in the folders of VOC or COCO, or as one's "
        "own pictures might lie.",
    )
    add = parser.add_argument

    add(
        "--layout",
        choices=tuple(_WRITERS),
        default="voc",
        help="folder form (default: %(default)s)",
    )
    add(
        "--root",
        required=True,
        help="folder to write; nothing is done where it is complete already",
    )
    add("--train", type=int, help="training pictures (default: %(default)s)")
    add("--val", type=int, help="validation pictures (default: %(default)s)")
    add("--size", type=int, help="longer side, px (default: %(default)s)")
    add("--seed", type=int, help="another seed, other pictures (default: %(default)s)")

    parser.set_defaults(run=_run, **BENCHMARK)


_WRITERS = {"voc": write_voc, "coco": write_coco, "custom": write_custom}


def _run(args: Namespace) -> None:
    _WRITERS[args.layout](args.root, train=args.train, val=args.val, size=args.size, seed=args.seed)
    print(
        f"{args.root}: {args.train} training and {args.val} validation pictures of seed "
        f"{args.seed} are there"
    )


def _write(
    root: Path,
    train: int,
    val: int,
    size: int,
    seed: int,
    layout: str,
    fill: Callable[[Path, Counts, int, int], None],
) -> None:
    """Fill a temporary sibling folder and rename it when it is whole, so that a half-written set is
    never found.
    """
    for name, number, least in (
        ("size", size, _LEAST_SIZE),
        ("seed", seed, 0),
        ("train", train, 0),
        ("val", val, 0),
    ):
        if number < least:
            raise UserError(f"--{name} {number} of the toy data set must be at least {least}")

    wanted = {
        "format": _FORMAT,
        "layout": layout,
        "seed": seed,
        "train": train,
        "val": val,
        "size": size,
    }
    if _is_written(root, wanted):
        return

    partial = partial_of(root, own=True)
    make_folder(partial, root)
    try:
        fill(partial, {"train": train, "val": val}, size, seed)
        (partial / _MARKER).write_text(json.dumps(wanted) + "\n")
        if not _is_written(root, wanted):  # another process may have been quicker
            partial.rename(root)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _is_written(root: Path, wanted: Mapping[str, object]) -> bool:
    """Tell whether the folder holds the wanted set; False where it is missing or empty. Raises
    UserError for anything else.
    """
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        found = dict(json.loads((root / _MARKER).read_text()))
    except (OSError, ValueError, TypeError):
        raise UserError(
            f"{root} is there already and holds no toy data set; name a new folder"
        ) from None

    if found != wanted:
        raise UserError(
            f"{root} holds another toy data set, of {_told(found, wanted)}; name a new folder, or "
            "remove this one"
        )

    return True


def _told(found: Mapping[str, object], wanted: Mapping[str, object]) -> str:
    """Say in which values the set that was found differs from the one that is wanted."""
    return ", ".join(
        f"{key} {found.get(key)}, not {value}"
        for key, value in wanted.items()
        if found.get(key) != value
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


def _fill_voc(root: Path, counts: Counts, size: int, seed: int) -> None:
    for folder in (
        "JPEGImages",
        "SegmentationClassAug",
        "SegmentationClass",
        "Annotations",
        "ImageSets/Segmentation",
    ):
        (root / folder).mkdir(parents=True)

    colours = palette().ravel().tolist()
    names: dict[str, list[str]] = {split: [] for split in _SPLITS}
    for split in _SPLITS:
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


def coco_classes() -> tuple[int, ...]:
    """Return the COCO class (0-based) of each VOC class, matched by its wordings."""
    return tuple(
        next(k for k, name in enumerate(COCO.classes) if name in wordings(voc_name))
        for voc_name in VOC.classes
    )


def _fill_coco(root: Path, counts: Counts, size: int, seed: int) -> None:
    classes = coco_classes()
    relabel = np.full(256, IGNORE, np.uint8)
    relabel[0] = 0
    relabel[1 : len(classes) + 1] = [k + 1 for k in classes]
    categories = [{"id": i, "name": name} for i, name in zip(COCO_IDS, COCO.classes)]
    (root / "annotations").mkdir()
    image_id = 0

    for split in _SPLITS:
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


def _fill_custom(root: Path, counts: Counts, size: int, seed: int) -> None:
    rows = [("image", "tags")]
    for split in _SPLITS:
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


def _polygons(mask: np.ndarray) -> list[list[float]]:
    """Return the outlines of a (H, W) mask as flat lists x0, y0, x1, y1, ...; its box if it is too
    thin to have any.
    """
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    x, y, w, h = cv2.boundingRect(mask)
    box = [x, y, x + w, y, x + w, y + h, x, y + h]
    return [contour.ravel().tolist() for contour in contours if len(contour) >= 3] or [box]
