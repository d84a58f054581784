"""Score label PNGs against masks: `python -m utils.tools.score --predictions DIR --masks DIR
[--dataset coco]`.

Any folder of predictions against any folder of masks, matched by relative path; the same table as
testing prints.
"""

import unicodedata
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from datasets.classes import given_classes
from datasets.exporting.maps import maps_folder
from datasets.folders import picture_suffixes
from datasets.list_files import read_list
from datasets.lists import Item
from datasets.mask_signs import refuse_suspicious
from datasets.pictures import load_mask
from datasets.predictions import check_order, told_files
from datasets.specs import IGNORE, SPECS
from utils.common.console import say_once
from utils.common.entry import command
from utils.common.errors import UserError
from utils.common.parser import Parser
from utils.metrics import ConfusionMatrix, format_table


@dataclass(frozen=True)
class Folder:
    """A folder of which files are scored: its files by name, and the suffix of those it lacks."""

    path: Path
    files: dict[str, Path]
    suffix: str = ".png"


def predictions_in(folder: Path) -> Folder:
    """Find the label PNGs to score. Raises UserError where there are none."""
    return Folder(folder, told_files(folder, "--predictions"))


def masks_in(folder: Path) -> Folder:
    """Find the true label PNGs, a.JPG.png being the mask of a.JPG. Raises UserError where there are
    none.
    """
    true = told_files(folder, "--masks")
    pictures = [name for name in true if name.lower().endswith(picture_suffixes())]
    return Folder(folder, {**{name.rpartition(".")[0]: true[name] for name in pictures}, **true})


def files_to_score(given: Folder, masks: Folder, listed: str | None) -> list[tuple[Path, Path]]:
    """Return the file and the mask of each name of the list, or of all that is given.

    Raises:
        UserError: a file or a mask is missing.
    """
    names = sorted(given.files)
    if listed:
        names = [unicodedata.normalize("NFC", name) for name in read_list(listed)]

    for folder in (given, masks):
        missing = [name for name in names if name not in folder.files]
        if missing:
            raise UserError(
                f"{folder.path} lacks {len(missing)} of {len(names)} images, first {missing[0]}"
                f"{folder.suffix}; complete it or name fewer images with --list"
            )

    return [(given.files[name], masks.files[name]) for name in names]


def left_out(pairs: list[tuple[Path, Path]], masks: Folder, what: str) -> str:
    """Say how many masks are not scored, as they have no prediction or whatever `what` says; ""
    where all are.
    """
    every = set(masks.files.values())
    left = sorted(every - {mask for _, mask in pairs})
    if not left:
        return ""
    return (
        f"{len(left)} of {len(every)} masks in {masks.path} have no {what}, first {left[0].name}: "
        f"the score is of the other {len(every) - len(left)}"
    )


def score(pairs: list[tuple[Path, Path]], classes: int) -> ConfusionMatrix:
    """Count confusion over pairs of prediction and mask, `classes` being K + 1.

    Raises:
        UserError: a file is broken, sizes differ, or a label is outside the classes.
    """
    matrix = ConfusionMatrix(classes)
    for paths in tqdm(pairs, desc="scoring", disable=None):
        predicted, true = map(load_mask, paths)
        if predicted.shape != true.shape:
            sizes = " but ".join(
                f"{path} is {a.shape[1]} x {a.shape[0]}"
                for path, a in zip(paths, (predicted, true))
            )
            raise UserError(f"{sizes}; predict at the image's original size")
        counted = true != IGNORE
        if unsure := int((predicted[counted] == IGNORE).sum()):
            raise UserError(
                f"{paths[0]} leaves {unsure} pixels at {IGNORE}, not labelled, and a score counts "
                "all that the mask labels; make it anew with --min_confidence 0, a training's "
                "pseudo label with --seed_confidence 0"
            )

        for path, labels in zip(paths, (predicted[counted], true[counted])):
            if labels.size and labels.max() >= classes:
                raise UserError(
                    f"{path} holds label {labels.max()}, the classes are 0..{classes - 1}; name "
                    "the data set they"
                    " are of with --dataset or --classes"
                )
        matrix.update(predicted, true)

    return matrix


def main() -> None:
    """Read the command line and do what it asks."""
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add(
        "--predictions",
        required=True,
        type=Path,
        metavar="DIR",
        help="label PNGs, palette or grey, at original size, or a run folder or export with some",
    )
    add(
        "--masks", required=True, type=Path, metavar="DIR", help="true label PNGs of the same names"
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument(
        "--dataset",
        choices=tuple(SPECS),
        default="voc",
        help="whose classes (default: %(default)s)",
    )
    kind.add_argument(
        "--classes",
        metavar="FILE|NAMES",
        help="class list (YAML), names apart by commas ('cat, dog'), voc or coco",
    )
    add("--list", metavar="FILE", help="names to score, one per line (default: all predictions)")
    args = parser.parse_args()
    spec = SPECS[args.dataset]
    if args.classes:
        spec = given_classes(args.classes)
    predictions = maps_folder(args.predictions)
    check_order(predictions, spec.label_names)
    masks = masks_in(args.masks)
    pairs = files_to_score(predictions_in(predictions), masks, args.list)
    items = (Item(true.stem, predicted, true) for predicted, true in pairs)
    refuse_suspicious(items, len(spec.classes))
    if predictions.resolve() == args.masks.resolve():
        say_once(
            "same", f"--predictions and --masks are both {args.masks}: this scores it by itself"
        )

    matrix = score(pairs, len(spec.label_names))
    print(format_table([(f"{predictions.name} ({len(pairs)})", matrix)], spec.label_names))
    print("mIoU over the classes in the truth, 255 ignored; brackets: number of images")
    said = left_out(pairs, masks, "prediction")
    if said and not args.list:
        print(said)


if __name__ == "__main__":
    command(main)()
