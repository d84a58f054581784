"""`python -m datasets.prepare check`: read every image and mask of a data set once, and list what
is wrong with them.

What is wrong ends the command with status 1. What loading copes with (grey, CMYK, EXIF ...) is only
counted.
"""

import csv
import hashlib
import io
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datasets.classes import spec_of
from datasets.layouts import items, layout_of
from datasets.lists import Item, spread
from datasets.mask_signs import MOST, fits_stored, look, signs
from datasets.pictures import Picture, load_mask, open_image
from datasets.prepare.parallel import add_workers, crew
from datasets.specs import IGNORE, DatasetSpec
from datasets.tag_sources import find_tags
from utils.common.errors import UserError
from utils.common.files import make_folder
from utils.common.parser import refuse_idle

MISSING = "image missing"
BROKEN = "image truncated or unreadable"
BAD_MASK = "mask unreadable or no label map"
SIZE = "image and mask differ in size"
VALUES = "mask value outside the classes"
TAGS = "tags and mask disagree"
TWICE = "same bytes in two splits"
WRONG = (MISSING, BROKEN, BAD_MASK, SIZE, VALUES, TAGS, TWICE)
GREY = "grey"
CMYK = "CMYK"
PALETTE = "palette"
ALPHA = "transparency (shown on white)"
DEEP = "more than 8 bits per channel"
STRETCHED = "shown by its own largest value, as it fills no range"
TURNED = "turned by EXIF"
NO_MASK = "no mask, though others have one"
NOTED = (GREY, CMYK, PALETTE, ALPHA, DEEP, STRETCHED, TURNED, NO_MASK)
_MODES = {"1": GREY, "L": GREY, "P": PALETTE, "CMYK": CMYK}


class Job(NamedTuple):
    """An image to inspect, the labels its tags give it (None: not known), and whether it should
    have a mask.
    """

    item: Item
    labels: tuple[int, ...] | None
    scored: bool


class Report(NamedTuple):
    """What was found at an image: details by kind (of WRONG and NOTED), and the SHA-256 of its
    file.
    """

    name: str
    found: dict[str, str]
    digest: bytes


def add_command(kinds: Any) -> None:
    """Add the sub-command `check` to an argparse sub-parsers object."""
    parser = kinds.add_parser(
        "check", help="read all images and masks and list what is wrong", description=__doc__
    )
    add = parser.add_argument

    add("--dataset", choices=("voc", "coco", "custom"), help="default: by what --root holds")
    add("--root", required=True, metavar="DIR", help="folder of the data set")
    add(
        "--classes",
        default="",
        metavar="FILE",
        help="class list of a custom data set (default: its classes.yaml)",
    )
    add(
        "--tags",
        default="",
        metavar="FILE",
        help="classes of each image, in any form that `datasets.prepare custom` takes (default: "
        "the data set's own annotations)",
    )
    add(
        "--splits",
        nargs="+",
        metavar="SPLIT",
        help="names in the data set, or list files called after their split"
        " (default: train val, of VOC train_aug val)",
    )
    add_workers(add)
    add(
        "--fix_list",
        type=Path,
        metavar="DIR",
        help="write lists without what is wrong, and faults.csv, here",
    )

    parser.set_defaults(run=_run)


def _run(args: Namespace) -> None:
    args.dataset = args.dataset or layout_of(args.root)
    if args.dataset != "custom":
        idle = f"is for --dataset custom; {args.dataset} has its own classes"
        refuse_idle(vars(args), ("classes",), idle)

    spec = spec_of(args.dataset, args.root, args.classes)
    usual = ["train_aug", "val"] if args.dataset == "voc" else ["train", "val"]
    splits = args.splits or usual
    if args.fix_list:
        make_folder(args.fix_list)

    jobs = {Path(split).stem: _jobs(args, split, spec) for split in splits}
    start = time.perf_counter()
    total = sum(map(len, jobs.values()))

    with crew(args.workers) as each:
        look = partial(inspect, classes=len(spec.classes))
        reports = {
            split: list(each(look, todo, f"checking {split}")) for split, todo in jobs.items()
        }

    seconds = time.perf_counter() - start
    mark_duplicates(reports)
    print(table(reports))
    print(
        f"{total} images in {seconds:.1f} s, {total / seconds:.0f} per second with "
        f"{max(1, args.workers)} processes"
    )
    if args.fix_list:
        write_lists(args.fix_list, reports)

    suspicious = _suspicions(jobs)
    for sentence in suspicious:
        print(f"suspicious: {sentence}")

    if suspicious or any(is_wrong(report) for checked in reports.values() for report in checked):
        raise SystemExit(1)


def _jobs(args: Namespace, split: str, spec: DatasetSpec) -> list[Job]:
    listed = split if split.endswith(".txt") else None
    split = Path(split).stem
    images = items(args.dataset, args.root, split, listed, complete=False)
    scored = any(item.mask is not None for item in images)
    if args.dataset == "voc" and not args.tags and not (Path(args.root) / "Annotations").is_dir():
        print(f"{args.root} has no Annotations: tags of {split} are not compared with its masks")
        return [Job(item, None, scored) for item in images]
    tags = find_tags(
        args.dataset, args.root, split, [item.name for item in images], spec, args.tags
    )
    return [
        Job(item, tuple((row.nonzero()[0] + 1).tolist()), scored) for item, row in zip(images, tags)
    ]


def _suspicions(jobs: dict[str, list[Job]]) -> list[str]:
    """Return sentences on masks whose scores would be meaningless; what is only odd is printed."""
    found = []
    for split, todo in jobs.items():
        masked = [
            (job.item.mask, job.item.image)
            for job in todo
            if job.item.mask is not None and job.item.image.is_file()
        ]
        wrong, odd = signs([look(mask, image) for mask, image in spread(masked, MOST)])
        found += [f"{split}: {sentence}" for sentence in wrong]
        print("".join(f"{split}: {sentence}\n" for sentence in odd), end="")
    return found


def inspect(job: Job, classes: int) -> Report:
    """Read an image and its mask once. `classes` is K, without background."""
    item = job.item
    found: dict[str, str] = {}
    content = b""

    try:
        content = item.image.read_bytes()
        picture = open_image(io.BytesIO(content), item.image)
        size = picture.shape
        picture.decoded()
        found |= {kind: item.name for kind in _kinds(picture)}
        if item.mask is not None:
            found |= _inspect_mask(item.mask, size, job.labels, classes, picture)
        elif job.scored:
            found[NO_MASK] = item.name
    except FileNotFoundError:
        found[MISSING] = f"{item.image} does not exist"
    except (OSError, UserError) as error:
        found[BROKEN] = str(error)

    digest = b""
    if content:
        digest = hashlib.sha256(content).digest()
    return Report(item.name, found, digest)


def _kinds(picture: Picture) -> list[str]:
    """Return which kinds of NOTED a decoded picture is; none for plain RGB."""
    found = []
    if picture.transparent:
        found.append(ALPHA)
    elif picture.deep:
        found.append(DEEP)
    elif picture.mode in _MODES:
        found.append(_MODES[picture.mode])

    if picture.stretched:
        found.append(STRETCHED)
    if picture.turned:
        found.append(TURNED)
    return found


def _inspect_mask(
    path: Path,
    size: tuple[int, int],
    tags: tuple[int, ...] | None,
    classes: int,
    picture: Picture,
) -> dict[str, str]:
    try:
        mask = load_mask(path)
    except UserError as error:
        return {BAD_MASK: str(error)}

    found = {}
    if mask.shape != size:
        found[SIZE] = (
            f"{path} is {mask.shape[1]} x {mask.shape[0]}, its image shows as {size[1]} x {size[0]}"
            + (", turned by EXIF; turn the mask likewise" * fits_stored(mask.shape, picture))
        )

    labels = np.bincount(mask.ravel(), minlength=IGNORE + 1)[:IGNORE].nonzero()[0].tolist()
    if outside := [label for label in labels if label > classes]:
        found[VALUES] = f"{path} holds {outside}; labels are 0..{classes} and {IGNORE}"

    shown = {label for label in labels if 0 < label <= classes}
    if tags is not None and shown != set(tags):
        found[TAGS] = f"{path} shows labels {sorted(shown)}, the tags are {list(tags)}"

    return found


def mark_duplicates(reports: dict[str, list[Report]]) -> None:
    """Add TWICE to images of a split whose bytes occur in a later split."""
    later: dict[bytes, str] = {}
    for split in reversed(reports):
        for report in reports[split]:
            if report.digest in later:
                report.found[TWICE] = f"{report.name} is also {later[report.digest]}"
        later |= {
            report.digest: f"{split} {report.name}" for report in reports[split] if report.digest
        }


def is_wrong(report: Report) -> bool:
    """Tell whether an image has a finding of WRONG."""
    return not report.found.keys().isdisjoint(WRONG)


def table(reports: dict[str, list[Report]]) -> str:
    """Return a line per kind that occurs, with its count in each split and the first case."""
    wide = max(map(len, (*WRONG, *NOTED)))
    lines = ["".join([" " * (wide + 2), *(f"{split:>10}" for split in reports), "  first"])]
    for title, kinds in (("wrong:", WRONG), ("read as they are meant, nothing to do:", NOTED)):
        rows = []
        for kind in kinds:
            cases = {
                split: [r.found[kind] for r in checked if kind in r.found]
                for split, checked in reports.items()
            }
            if first := next((case for found in cases.values() for case in found), None):
                rows.append(
                    f"  {kind:{wide}}"
                    + "".join(f"{len(c):>10}" for c in cases.values())
                    + f"  {first}"
                )
        lines += [title, *(rows or ["  nothing"])]

    return "\n".join(lines)


def write_lists(folder: Path, reports: Mapping[str, Sequence[Report]]) -> None:
    """Write {split}.txt without the wrong images, and faults.csv with every finding."""
    with (folder / "faults.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(("split", "image", "kind", "detail"))
        for split, checked in reports.items():
            writer.writerows(
                (split, r.name, kind, detail) for r in checked for kind, detail in r.found.items()
            )

    for split, checked in reports.items():
        kept = [report.name for report in checked if not is_wrong(report)]
        path = folder / f"{split}.txt"
        path.write_text("".join(f"{name}\n" for name in kept), encoding="utf-8")
        print(f"{path}: {len(kept)} of {len(checked)} images")
