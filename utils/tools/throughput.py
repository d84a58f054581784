"""How fast data flows, per CPU core: `python -m utils.tools.throughput --dataset voc --root
VOCdevkit/VOC2012`.

Loading of training crops (decoding, augmentation), the check of images and masks, and for COCO the
conversion of its annotations to masks. Every figure is images per second of CPU time in one
process, so that other work on the machine hardly matters; files are read once before, so that disks
do not either.
"""

import time
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from datasets.classes import spec_of
from datasets.coco_json import coco_annotations, read_instances
from datasets.data import TaggedImages
from datasets.layouts import items
from datasets.lists import Item
from datasets.prepare.check import Job, inspect
from datasets.prepare.coco import write_mask
from utils.common.entry import command
from utils.common.errors import UserError
from utils.common.parser import Parser


def rate(work: Callable[[int], object], count: int) -> float:
    """Measure calls of `work(i)`, i = 0 .. count - 1, per second of this process's CPU time."""
    start = time.process_time()
    for number in range(count):
        work(number)
    return count / (time.process_time() - start)


def loading(images: Sequence[Item], crop: int, longest: int) -> float:
    """Measure training crops per second."""
    data = TaggedImages(images, np.zeros((len(images), 1), bool), crop, longest=longest)
    return rate(lambda number: data[0, number], len(images))


def checking(images: Sequence[Item], classes: int) -> float:
    """Measure images checked per second, with their masks."""
    jobs = [Job(item, (), False) for item in images]
    return rate(lambda number: inspect(jobs[number], classes), len(jobs))


def converting(annotations: Path, count: int) -> float:
    """Measure masks written per second from an instance JSON; reading it is not counted."""
    images = list(islice(cycle(read_instances(annotations, outlines=True)), count))
    with TemporaryDirectory() as folder:
        return rate(lambda number: write_mask(Path(folder), annotations, images[number]), count)


def main() -> None:
    """Read the command line and do what it asks."""
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("--dataset", choices=("voc", "coco", "custom"), default="voc", help="default: %(default)s")
    add("--root", required=True, metavar="DIR", help="folder of the data set")
    add("--split", default="train", help="list of images (default: %(default)s)")
    add(
        "--images",
        type=int,
        default=500,
        metavar="N",
        help="images to measure with; few are repeated (default: 500)",
    )
    add("--crops", type=int, nargs="+", default=[320, 448], metavar="PX", help="default: 320 448")
    add(
        "--train_long",
        type=int,
        default=0,
        metavar="PX",
        help="as in training (default: 0, images stay as they are)",
    )
    args = parser.parse_args()
    for name, number, least in (
        ("images", args.images, 1),
        ("crops", min(args.crops), 1),
        ("train_long", args.train_long, 0),
    ):
        if number < least:
            raise UserError(f"--{name} {number} must be at least {least}")

    classes = len(spec_of(args.dataset, args.root).classes)
    images = list(islice(cycle(items(args.dataset, args.root, args.split)), args.images))
    size = sum(len(item.image.read_bytes()) for item in images) / len(images)
    print(
        f"{len(images)} images of {args.split}, {size / 1e3:.0f} kB on average; images per second "
        "on one core:"
    )

    for crop in args.crops:
        print(f"  loading, crop {crop}: {loading(images, crop, args.train_long):.0f}")

    print(f"  check: {checking(images, classes):.0f}")
    if args.dataset == "coco":
        print(
            "  annotations to masks: "
            f"{converting(coco_annotations(args.root, args.split), args.images):.0f}"
        )


if __name__ == "__main__":
    command(main)()
