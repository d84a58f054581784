"""COCO's masks: where they may lie, what they are called, and by which rule they were made.

COCO has no masks of its own. `datasets.prepare coco` makes them and leaves the rule beside them;
masks of another origin are used as they are, and every result says so.
"""

import shlex
from pathlib import Path

from datasets.toy.marker import is_drawn
from utils.common.errors import UserError
from utils.common.files import read_json

MARKER = "made_from.json"  # beside masks that `datasets.prepare coco` made

# By `--crowds`. "class" is the rule of coco2voc, by which the masks of WeCLIP and AFA were made.
RULES = {
    "class": "smaller areas over larger ones, crowds as their class",
    "ignore": "smaller areas over larger ones over crowds, which are 255",
}


def mask_folders(root: Path, split: str, year: str) -> tuple[Path, ...]:
    """Return the folders that may hold the masks of a split: ours, then other repositories'."""
    return (
        root / "mask" / f"{split}{year}",
        root / "SegmentationClass" / f"{split}{year}",
        root / "SegmentationClass" / split,
    )


def short_name(name: str) -> str:
    """Return `000000000042` of `COCO_val2014_000000000042`, as other repositories call masks."""
    if name.startswith("COCO_"):
        return name.rpartition("_")[2]
    return name


def rule_of(folder: Path) -> str:
    """Return by which rule the masks in a folder were made, in words.

    Raises:
        UserError: they were made by `datasets.prepare coco` of an earlier version, by another rule.
    """
    marker = folder / MARKER
    if not marker.is_file() and is_drawn(marker):
        return (
            "drawn with the toy's pictures: smaller objects over larger ones, rims 255, no crowds"
        )
    if not marker.is_file():
        return "not made here, so how crowds and overlaps were drawn is not known"
    rule = read_json(marker).get("rule")
    if rule not in RULES.values():
        raise UserError(f"{folder} was made by another rule ({rule}); {remade(folder)}")
    return str(rule)


def remade(folder: Path, crowds: str = "class") -> str:
    """Return what to do to have the masks in mask/SPLIT2014 (or 2017) made by another rule."""
    root = folder.parent.parent
    split = folder.name[:-4]
    return (
        "remove that folder and run `python -m datasets.prepare coco --root "
        f"{shlex.quote(str(root))} --splits {split} --crowds {crowds}`"
    )
