"""One's own pictures: a class list, tags from a file or from folder names, a split, and a
configuration to train with.

Nothing is copied: an index says where the pictures and masks lie, whatever their names and folders.
"""

import hashlib
import json
import shutil
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from shlex import quote
from typing import Any

import numpy as np

from datasets.annotations import NOTHING, Tagged, tags_of_file
from datasets.classes import CLASSES, classes_text, given_classes
from datasets.forms.detect import FORMS
from datasets.index import write_index
from datasets.list_files import read_list
from datasets.named_pictures import Pictures
from datasets.own_pictures import picture_names, pictures_below
from datasets.prepare.own_masks import masks_given
from datasets.specs import DatasetSpec
from datasets.tables import key_of
from datasets.tag_sources import TAGS
from datasets.tags import Tags, write_tags
from utils.common.errors import UserError
from utils.common.files import encoded, make_folder, require_place, write_whole
from utils.common.parser import refuse_idle

CONFIG = "config.yaml"
_VAL_SHARE = 0.1
_EPOCHS = 12  # as often as stage 2 sees each VOC picture in 30000 iterations
_BATCH = 4
_FEWEST = 2000  # iterations
_MOST = 30000
_LONG = 512  # px; training pictures are brought to the size that testing uses


@dataclass(frozen=True)
class Prepared:
    """What a folder is made of.

    names: what the n pictures that have tags are called, by their paths below --images. tags (n, K)
    bool. mask_folder: None without masks. masks: path of each picture's mask below it, if it has
    one. splits: paths of the pictures of each.
    """

    names: dict[PurePosixPath, str]
    tags: np.ndarray
    mask_folder: Path | None
    masks: Sequence[str | None]
    splits: dict[str, list[PurePosixPath]]


def add_command(kinds: Any) -> None:
    """Add the sub-command `custom` to an argparse sub-parsers object."""
    text = "one's own pictures: any names, tags from a file or from folders"
    parser = kinds.add_parser("custom", help=text, description=__doc__)
    add = parser.add_argument

    add(
        "--images",
        required=True,
        type=Path,
        metavar="DIR",
        help="folder of pictures, nested as you like",
    )
    add(
        "--classes",
        required=True,
        metavar="FILE|NAMES",
        help="class list (YAML, see datasets/README.md), names separated by commas ('cat, dog'), "
        "voc or coco",
    )
    add(
        "--tags",
        type=Path,
        metavar="PATH",
        help=f"{FORMS} (default: folders named after classes, or {NOTHING})",
    )
    add(
        "--masks",
        type=Path,
        metavar="PATH",
        help="only to score with: folder of label PNGs at the pictures' relative paths, or a "
        "tool's export, from which they are drawn into OUT/masks",
    )
    add(
        "--val_list",
        type=Path,
        metavar="FILE",
        help="pictures to validate with, one path per line (default: drawn)",
    )
    add(
        "--val_share",
        type=float,
        metavar="X",
        help=f"share drawn without a list (default: {_VAL_SHARE})",
    )
    add("--seed", type=int, metavar="INT", help="of the drawn split (default: 0)")
    add(
        "--out",
        required=True,
        type=Path,
        metavar="DIR",
        help="folder to write, which trains as --data_root",
    )

    parser.set_defaults(run=_run)


def _run(args: Namespace) -> None:
    """Write index, lists, tags, class list and configuration, and say what was found."""
    if args.val_list:
        idle = "is of a drawn split, and --val_list gives one; leave one of them out"
        refuse_idle(vars(args), ("val_share", "seed"), idle)
    require_place(args.out / TAGS, "--out")
    spec = replace(given_classes(args.classes), name="custom")
    _check_folders(args)
    outside = [folder for folder in (args.masks, args.out) if folder]
    found = pictures_below(args.images, outside)
    files = [PurePosixPath(file.relative_to(args.images)) for file in found]
    if args.tags:
        tags = tags_of_file(args.tags, files, spec, [args.images])
    else:
        tags = tags_of_folders(args.images, files, spec)

    kept = [file for file in files if file in tags]
    names = dict(zip(kept, picture_names(kept)))

    with masks_given(args, names, spec) as (folder, masks):
        splits = _splits(args, kept, masks)
    matrix = np.array([[name in tags[file] for name in spec.classes] for file in kept])
    prepared = Prepared(names, matrix, folder, masks, splits)
    is_new = _write(args, spec, prepared)
    _say(args, spec, prepared, len(files) - len(kept))
    _say_next(args.out, is_new)


def _check_folders(args: Namespace) -> None:
    if not args.images.is_dir():
        raise UserError(
            f"--images {args.images} is not a folder; give the folder that holds the images"
        )
    if args.masks and not args.masks.exists():
        raise UserError(
            f"--masks {args.masks} is not a folder; give the folder that holds the masks, or what "
            "a tool exported"
        )


def tags_of_folders(root: Path, files: Sequence[PurePosixPath], spec: DatasetSpec) -> Tagged:
    """Return the classes of pictures: those that the names of folders on the way to them name,
    whatever their case.

    Raises:
        UserError: a picture lies in no such folder, nor in one called `background`.
    """
    known = {key_of(name): name for name in spec.classes}
    tags = {}
    for file in files:
        folders = [key_of(part) for part in file.parent.parts]
        tags[file] = {known[folder] for folder in folders if folder in known}
        if not tags[file] and NOTHING not in folders:
            raise UserError(
                f"{root / file} lies in no folder named after a class; move it into one, or into"
                f" {NOTHING!r} if it shows none, or give --tags"
            )

    return tags


def _splits(
    args: Namespace, files: Sequence[PurePosixPath], masks: Sequence[str | None]
) -> dict[str, list[PurePosixPath]]:
    """Return the listed or drawn validation pictures (if possible such as have a mask), and the
    others to train on.
    """
    if args.val_list:
        found = Pictures(files, [args.images])
        place = f"--val_list {args.val_list}"
        chosen = {found.named(name, place) for name in read_list(args.val_list)}
    else:
        scorable = [file for file, mask in zip(files, masks) if mask] or files
        share = _VAL_SHARE
        if args.val_share is not None:
            share = args.val_share
        chosen = draw(scorable, share, len(files), args.seed or 0)

    splits = {
        "train": [file for file in files if file not in chosen],
        "val": [file for file in files if file in chosen],
    }
    if not splits["train"]:
        raise UserError(
            f"all {len(files)} pictures are for validation; leave some of them to train on"
        )

    return splits


def draw(files: Sequence[PurePosixPath], share: float, total: int, seed: int) -> set[PurePosixPath]:
    """Draw `share` of `total` pictures out of `files`, at least one; a function of their paths and
    the seed alone.
    """
    if not 0 < share < 1:
        raise UserError(f"--val_share {share} must lie between 0 and 1; use 0.1 for a tenth")
    order = sorted(
        files, key=lambda file: hashlib.sha256(f"{seed}/{file}".encode(errors="replace")).digest()
    )
    return set(order[: max(1, round(share * total))])


def _write(args: Namespace, spec: DatasetSpec, prepared: Prepared) -> bool:
    """Write the folder; return whether the configuration is new."""
    out = args.out
    names = prepared.names
    splits = prepared.splits
    make_folder(out)
    source = "names of folders"
    if args.tags:
        source = f"tags of {args.tags.name}"
    write_tags(out / TAGS, spec, Tags(tuple(names.values()), prepared.tags, source))

    for split, members in splits.items():
        write_whole(out / f"{split}.txt", "".join(f"{names[file]}\n" for file in members).encode())

    given = Path(args.classes)
    if not given.is_file():
        write_whole(out / CLASSES, classes_text(spec).encode())
    elif given.resolve() != (out / CLASSES).resolve():
        shutil.copyfile(given, out / CLASSES)

    files = {names[file]: (str(file), mask) for file, mask in zip(names, prepared.masks)}
    write_index(out, args.images, prepared.mask_folder, files)
    return _write_config(out, len(splits["train"]))


def _write_config(out: Path, pictures: int) -> bool:
    """Write a configuration whose length suits so many training pictures, unless there is one;
    whether it did.
    """
    path = out / CONFIG
    if path.exists():
        return False

    plain = "".join(sign if sign.isprintable() else "_" for sign in out.resolve().name)
    iterations = min(_MOST, max(_FEWEST, _EPOCHS * pictures // _BATCH))
    lines = [
        "# Every setting that is not here is a default, see `python train_voc.py --help`; add any "
        "of them, or give it as a flag.",
        "dataset: custom",
        f"data_root: {json.dumps(str(out.resolve()), ensure_ascii=False)}",
        "train_split: train",
        "val_split: val",
        f"train_long: {_LONG}",
        f"batch_size: {_BATCH}",
        f"max_iters: {iterations}",
        f"warmup_iters: {iterations // 20}",
        f"eval_every: {iterations // 10}",
        f"work_dir: {json.dumps(f'runs/{plain}', ensure_ascii=False)}",
    ]
    write_whole(path, encoded("\n".join([*lines, ""])))
    return True


def _say(args: Namespace, spec: DatasetSpec, prepared: Prepared, left_out: int) -> None:
    """Print what was found, of which so many pictures are left out for want of tags."""
    splits = prepared.splits
    masks = sum(mask is not None for mask in prepared.masks)
    counts = dict(zip(spec.classes, prepared.tags.sum(0)))
    listed = ", ".join(f"{name} {count}" for name, count in counts.items())
    print(
        f"{args.out}: {len(splits['train'])} training and {len(splits['val'])} validation "
        f"pictures, {masks} masks"
    )
    print(f"pictures with each tag: {listed}; without any tag: {(~prepared.tags.any(1)).sum()}")

    for name, count in counts.items():
        if not count:
            print(f"no picture has the tag {name!r}: it cannot be learnt")

    if left_out:
        print(f"{left_out} pictures below {args.images} are not in {args.tags} and are left out")

    for word in spec.dropped:
        print(f"{word!r} names a class and is left out of the background words")


def _say_next(out: Path, is_new: bool) -> None:
    """Print the commands that come next; is_new: the configuration was written now."""
    config = out / CONFIG
    if not is_new:
        print(f"{config} was there and is kept")

    print(f"check: python -m datasets.prepare check --dataset custom --root {quote(str(out))}")
    print(f"train: python train_voc.py --config {quote(str(config))}")
