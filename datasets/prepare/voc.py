"""`python -m datasets.prepare voc`: PASCAL VOC 2012's lists, tags, and with SBD its augmented
masks. Where the augmented masks are there already, the list train_aug is made from their names.

Training reads JPEGImages, a list, and the tags file, or where that is missing or older the XML
files in Annotations; masks are needed for scores only.
"""

from argparse import Namespace
from functools import partial
from pathlib import Path
from typing import Any

from datasets.layouts import found_instead, items
from datasets.list_files import read_list
from datasets.lists import Items
from datasets.prepare.parallel import Each, add_workers, crew
from datasets.prepare.sbd import augment, list_from_masks
from datasets.specs import VOC
from datasets.tag_sources import VOC_TAGS, differences, tags_from_masks, tags_from_voc_xml
from datasets.tags import Tags, write_tags
from utils.common.claim import claimed_to_write
from utils.common.errors import UserError
from utils.common.files import make_folder, write_whole
from utils.common.parser import refuse_idle

FULL = {"train_aug": 10582, "train": 1464, "val": 1449}  # images in the lists of the whole data set


def add_command(kinds: Any) -> None:
    """Add the sub-command `voc` to an argparse sub-parsers object."""
    parser = kinds.add_parser(
        "voc", help="PASCAL VOC 2012: lists, tags, SegmentationClassAug", description=__doc__
    )
    add = parser.add_argument

    add(
        "--root",
        default="VOCdevkit/VOC2012",
        help="folder that holds JPEGImages/ and Annotations/ (%(default)s)",
    )
    add(
        "--sbd",
        metavar="DIR",
        help="SBD's folder (cls/, train.txt, val.txt): make SegmentationClassAug and train_aug",
    )
    add(
        "--tags_from",
        choices=("xml", "masks"),
        default="xml",
        help="where tags come from (default: %(default)s)",
    )
    difficult = (
        "objects marked difficult in the XML give tags too, as in the field's "
        "cls_labels.npy (default: true)"
    )
    add("--difficult", choices=("true", "false"), help=difficult)
    add(
        "--out",
        metavar="DIR",
        help="folder for tags_train_aug.json and tags_val.json (default: --root)",
    )
    add_workers(add, "in this one, but for --sbd")

    parser.set_defaults(run=run)


def run(args: Namespace) -> None:
    """Write masks and list from SBD if it is given, else the list from the masks; then a tags file
    per list. What is there already is not made again.

    Raises UserError where a folder, list, image or annotation is missing or malformed.
    """
    root = Path(args.root)
    if args.tags_from == "masks":
        idle = "is of objects in the XML, and --tags_from masks reads none; leave one of them out"
        refuse_idle(vars(args), ("difficult",), idle)
    _check_layout(root, args.tags_from)
    make_folder(Path(args.out or root))
    workers = args.workers
    if args.sbd and workers == 0:
        workers = 1  # SciPy's reader may crash on a damaged .mat

    with crew(workers) as each, claimed_to_write(Path(args.out or root)):
        if args.sbd:
            print(augment(root, Path(args.sbd), each))
        elif not _list(root, "train_aug").is_file() and (said := list_from_masks(root)):
            print(said)
        present = [split for split in FULL if _list(root, split).is_file()]
        counts = {split: len(read_list(_list(root, split))) for split in present}
        print(_described(root, counts))
        for split in (split for split in VOC_TAGS if split in counts):
            print(f"{split}: {_write_tags(root, split, Path(args.out or root), args, each)}")


def _check_layout(root: Path, tags_from: str) -> None:
    inner = next(
        (root / part for part in ("VOC2012", "VOCdevkit/VOC2012") if (root / part).is_dir()), None
    )
    if inner:
        raise UserError(f"--root {root} is the folder around VOC 2012; give --root {inner}")

    needed = ["JPEGImages", "ImageSets/Segmentation"]
    if tags_from == "xml":
        needed.append("Annotations")
    missing = [folder for folder in needed if not (root / folder).is_dir()]
    if missing:
        raise UserError(
            f"--root {root} has no folder {missing[0]}; give the VOC2012 folder of the unpacked "
            "archive"
        )


def _list(root: Path, split: str) -> Path:
    return root / "ImageSets" / "Segmentation" / f"{split}.txt"


def _described(root: Path, counts: dict[str, int]) -> str:
    """State the numbers of images in the lists, and how they compare with the whole data set's."""
    if not any(split in counts for split in VOC_TAGS):
        raise UserError(
            f"{_list(root, 'train_aug')} does not exist, nor val.txt; copy the lists of VOC 2012 "
            "there"
        )

    found = ", ".join(f"{split} {counts.get(split, 'no list')}" for split in FULL)
    if counts == FULL:
        return f"{found}: the whole of VOC 2012"

    whole = ", ".join(f"{split} {count}" for split, count in FULL.items())
    advice = ""
    if "train_aug" not in counts:
        advice = f"; {_advice(root)}"
    return f"{found}: not the whole of VOC 2012, which has {whole}{advice}"


def _advice(root: Path) -> str:
    """Return how to come by the list train_aug."""
    if (root / "SegmentationClassAug.zip").is_file():
        return f"unpack SegmentationClassAug.zip in {root} and run this again for train_aug"
    folder = root / "SegmentationClassAug"
    there = found_instead(folder)
    if there:
        there = f"; no mask is in {folder}{there}"
    return (
        f"train_aug is made from masks in {folder} or from SBD (--sbd DIR), or train with "
        f"--train_split train{there}"
    )


def _write_tags(root: Path, split: str, out: Path, args: Namespace, each: Each) -> str:
    """Write one tags file, and the list of images whose XML and masks disagree; return what was
    done, in words.
    """
    found = items("voc", root, split)
    if args.tags_from == "masks":
        tags = tags_from_masks(found, VOC, partial(each, title=f"masks of {split}"))
    else:
        tags = tags_from_voc_xml(
            root, [item.name for item in found], VOC, args.difficult != "false"
        )

    path = out / VOC_TAGS[split]
    new = write_tags(path, VOC, tags)
    said = f"tags of {len(found)} images, {tags.matrix.sum() / len(found):.2f} each, in {path}"
    if not new:
        said += ", were there"
    if args.tags_from != "masks":
        said += f"; {_compared(found, split, out, tags, new, each)}"
    return said


def _compared(found: Items, split: str, out: Path, tags: Tags, new: bool, each: Each) -> str:
    """Compare tags from XML with those of the masks there are; the file of differences is
    complete.
    """
    masked = [k for k, item in enumerate(found) if item.mask is not None]
    head = f"{len(masked)} of {len(found)} images have masks"
    path = out / f"tags_{split}_differences.txt"
    if not masked:
        return head
    if not new and path.is_file() and path.read_text(encoding="utf-8").startswith(head):
        return f"compared before, see {path}"

    own = Tags(tuple(found[k].name for k in masked), tags.matrix[masked], "XML")
    theirs = tags_from_masks(
        [found[k] for k in masked], VOC, partial(each, title=f"masks of {split}")
    )
    lines = differences(own, Tags(theirs.names, theirs.matrix, "mask"), VOC)
    text = f"{head}, {len(lines)} of them show other classes than their XML"
    write_whole(path, "".join(f"{line}\n" for line in (text, *lines)).encode())

    return f"{text}, listed in {path}"
