"""The toy data set on disk: in PASCAL VOC or COCO layout, or as a folder of photographs
under odd names.

All hold the same pictures.
"""

import json
import shutil
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets.prepare.parallel import add_workers, crew, require_workers
from datasets.toy.layouts import LAYOUTS
from datasets.toy.marker import MARKER
from utils.common.errors import UserError
from utils.common.files import make_folder, note_leftovers, partial_of

# the toy benchmark; nothing is tuned on this seed
BENCHMARK = {
    "train": 3000,
    "val": 200,
    "size": 256,
    "seed": 2026,
}
_FORMAT = 1
_FEW = 50  # pictures that are drawn sooner than a process is started
_LEAST_SIZE = 64  # so that 3/4 of it is a size that `render` accepts


def write_voc(root: str | Path, train: int, val: int, size: int, seed: int) -> None:
    """Write `train` + `val` pictures of `size` px as VOC2012: images, palette masks, XML
    annotations, image lists.

    Does nothing if `root` already holds exactly this set. Raises UserError if it holds anything
    else.
    """
    _write("voc", Path(root).absolute(), train, val, size, seed)


def write_coco(root: str | Path, train: int, val: int, size: int, seed: int) -> None:
    """Write the same pictures as COCO 2014: coco2014/{train2014,val2014}, mask/...,
    annotations/instances_*.json.

    Masks hold 0, the place of the category among the 80 plus 1, and 255. Does nothing if `root`
    already holds exactly this set. Raises UserError if it holds anything else.
    """
    _write("coco", Path(root).absolute(), train, val, size, seed)


def write_custom(root: str | Path, train: int, val: int, size: int, seed: int) -> None:
    """Write the same pictures as one's own might be: photos/ under odd names and suffixes in nested
    folders, tags.csv, classes.yaml, and masks/.

    Does nothing if `root` already holds exactly this set. Raises UserError if it holds anything
    else.
    """
    _write("custom", Path(root).absolute(), train, val, size, seed)


def add_command(kinds: Any) -> None:
    """Add the sub-command `toy` to an argparse sub-parsers object."""
    parser = kinds.add_parser(
        "toy",
        help="draw the procedural toy data set",
        description="`python -m datasets.prepare toy`: draw pictures of the twenty VOC classes\n"
        "with exact masks, a pure function of the seed, in the folders of VOC or COCO, or as\n"
        "one's own pictures might lie.",
    )
    add = parser.add_argument

    add(
        "--layout",
        choices=tuple(LAYOUTS),
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
    add_workers(add)

    parser.set_defaults(run=_run, **BENCHMARK)


def _run(args: Namespace) -> None:
    root = Path(args.root).absolute()
    _write(args.layout, root, args.train, args.val, args.size, args.seed, args.workers)
    print(
        f"{args.root}: {args.train} training and {args.val} validation pictures of seed "
        f"{args.seed} are there"
    )


def _write(
    layout: str, root: Path, train: int, val: int, size: int, seed: int, workers: int = 0
) -> None:
    """Fill a temporary sibling folder and rename it when it is whole, so that a half-written set is
    never found; in up to `workers` processes, 0: in this one.
    """
    for name, number, least in (
        ("size", size, _LEAST_SIZE),
        ("seed", seed, 0),
        ("train", train, 0),
        ("val", val, 0),
    ):
        if number < least:
            raise UserError(f"--{name} {number} of the toy data set must be at least {least}")
    require_workers(workers)

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
    note_leftovers(root)
    make_folder(partial, root)
    try:
        with crew(min(workers, (train + val) // _FEW)) as each:
            LAYOUTS[layout](partial, {"train": train, "val": val}, size, seed, each)
        (partial / MARKER).write_text(json.dumps(wanted) + "\n")
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
        found = dict(json.loads((root / MARKER).read_text()))
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
