"""Score label PNGs, or seeds, against masks: `python -m utils.tools.score --predictions DIR --masks
DIR [--dataset coco]`, or `--seeds DIR` in place of --predictions.

Any folder of either against any folder of masks, matched by relative path; the same table as
testing prints. Seeds are scored at 99 background thresholds, and the table is of the best, which is
tuned on the masks; --threshold sets one instead. A pixel is background unless some class scores
more than the threshold.

A file of seeds is NAME.npy or NAME.npz. It is read without unpickling, and known by its content:

  {"keys": classes (n,), "high_res": (n, H, W)}      IRN, ReCAM, AdvCAM, LPCAM (`cam` is left out)
  {"keys": classes (n,), "attn_highres": (n, H, W)}  CLIP-ES; or one entry of any other name
  {"keys": classes (n,), "high_res": (n + 1, H, W)}  AMN: the first map, background's, is left out
  {"keys": (n + 1,), "hr_cam": (n, H, W)}            PuzzleCAM: keys are 0, then classes from 1 on
  {class: (H, W)}                                    SEAM, MCTformer; without tags an empty dict
  an npz of `keys` and `scores`                      utils.tools.export

Maps have the size of the mask and scores in 0..1. But for PuzzleCAM's, classes are 0..K-1 without
background, so that 0 is VOC's aeroplane; files that fit their masks better if their classes count
from 1 are refused.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from datasets.classes import given_classes
from datasets.exporting.maps import maps_folder
from datasets.folders import files_by_name
from datasets.lists import Item
from datasets.mask_signs import refuse_suspicious
from datasets.pictures import load_mask
from datasets.predictions import check_order
from datasets.prepare.parallel import add_workers, crew, require_workers
from datasets.scored_files import (
    Folder,
    Pairs,
    files_to_score,
    masks_in,
    predictions_in,
    unscored,
)
from datasets.specs import IGNORE, SPECS, DatasetSpec
from datasets.tag_sources import labels_in
from utils.common.console import say_once
from utils.common.entry import command
from utils.common.errors import UserError
from utils.common.files import require_place, write_json
from utils.common.parser import Parser, refuse_idle
from utils.inference.seed_files import LAYOUTS, SEEDS, read_seeds
from utils.inference.sweep import THRESHOLDS, LevelCounts, Sweep, level_counts
from utils.metrics import ConfusionMatrix, format_table, result_of

FEW = 50  # pairs that are counted sooner than a process is started
T = TypeVar("T")


@dataclass(frozen=True)
class Scored:
    """What was scored: its name, the counts, sentences about it, and of seeds the threshold, alone
    and as plain values.
    """

    name: str
    matrix: ConfusionMatrix
    said: list[str]
    threshold: float | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    def title(self) -> str:
        """Return what stands in the table."""
        title = f"{self.name} ({self.matrix.images})"
        if self.threshold is not None:
            title += f" at {self.threshold:g}"
        return title


def seeds_in(folder: Path) -> Folder:
    """Find the seed files to score. Raises UserError where there are none."""
    kinds = {suffix: suffix for suffix in sorted(set(LAYOUTS.values()))}
    return Folder(folder, files_by_name(folder, "--seeds", kinds, "seed files"), "")


def score(pairs: Pairs, classes: int, workers: int = 0) -> ConfusionMatrix:
    """Count confusion over pairs of prediction and mask, `classes` being K + 1, in so many
    processes (0: in this one).

    Raises:
        UserError: a file is broken, sizes differ, or a label is outside the classes.
    """
    matrix = ConfusionMatrix(classes)
    for counts in of_each(partial(pair_counts, classes), pairs, workers):
        matrix.add_pairs(counts)
    return matrix


def of_each(count: Callable[[tuple[Path, Path]], T], pairs: Pairs, workers: int) -> Iterator[T]:
    """Yield what counting gives of each pair, in their order, by so many processes if there are
    enough pairs. The first is counted here, so that what is said once of all is said once.
    """
    require_workers(workers)
    yield from map(count, pairs[:1])
    with crew(min(workers, len(pairs) // FEW)) as each:
        yield from each(count, pairs[1:], "scoring")


def pair_counts(classes: int, paths: tuple[Path, Path]) -> list[list[int]]:
    """Count confusion of a prediction and its mask, as `ConfusionMatrix.pairs`. Raises UserError as
    `score` does.
    """
    predicted, true = map(load_mask, paths)
    if predicted.shape != true.shape:
        sizes = " but ".join(
            f"{path} is {a.shape[1]} x {a.shape[0]}" for path, a in zip(paths, (predicted, true))
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
        check_labels(path, labels, classes)
    matrix = ConfusionMatrix(classes)
    matrix.update(predicted, true)
    return matrix.pairs()


def check_labels(path: Path, labels: np.ndarray, classes: int) -> None:
    """Raise UserError for counted pixels (n,) of a label map that are outside 0..classes-1."""
    if labels.size and labels.max() >= classes:
        raise UserError(
            f"{path} holds label {labels.max()}, the classes are 0..{classes - 1}; name the data "
            "set they are of with --dataset or --classes"
        )


def score_seeds(pairs: Pairs, classes: int, thresholds: torch.Tensor, workers: int = 0) -> Sweep:
    """Count confusion at each background threshold over pairs of seed file and mask, `classes`
    being K + 1, in so many processes (0: in this one).

    Raises:
        UserError: a file is broken or of no known layout, sizes differ, a label is outside the
            classes, or the classes of the files seem to be counted from 1.
    """
    sweep = Sweep(classes, thresholds)
    fitting = {0: 0, 1: 0}  # classes that the masks show, by the number that files may count from
    for counts, found in of_each(
        partial(seed_counts, classes, thresholds.tolist()), pairs, workers
    ):
        sweep.add(counts)
        for first in fitting:
            fitting[first] += found[first]

    if fitting[1] > fitting[0]:
        raise UserError(
            f"the seed files in {pairs[0][0].parent} seem to count classes from 1, 0 being the "
            f"background: so counted, their masks show {fitting[1]} of them, and counted from 0 on "
            f"{fitting[0]}; save each class's place in the class list, from 0 on and without "
            "background, or the argmax as label PNGs for --predictions"
        )
    return sweep


def seed_counts(
    classes: int, thresholds: list[float], paths: tuple[Path, Path]
) -> tuple[LevelCounts, tuple[int, int]]:
    """Count a seed file and its mask at each threshold, and how many of its classes the mask shows
    if they count from 0, and from 1. Raises UserError as `score_seeds` does.
    """
    path, mask = paths
    true = load_mask(mask)
    check_labels(mask, true[true != IGNORE], classes)
    height, width = true.shape
    keys, scores = read_seeds(path, (height, width), classes - 1)
    truth = torch.from_numpy(true).long()
    counts = level_counts(keys, scores, truth, classes, torch.tensor(thresholds))

    shown = set(labels_in(true))
    from_0, from_1 = (len(shown & {key + 1 - first for key in keys.tolist()}) for first in (0, 1))
    return counts, (from_0, from_1)


def _parser() -> Parser:
    parser = Parser(description=__doc__)
    add = parser.add_argument
    scored = parser.add_mutually_exclusive_group(required=True)
    scored.add_argument(
        "--predictions",
        type=Path,
        metavar="DIR",
        help="label PNGs, palette or grey, at original size, or a run folder or export with some",
    )
    scored.add_argument(
        "--seeds", type=Path, metavar="DIR", help="seed files as above, or an export with some"
    )

    add(
        "--masks", required=True, type=Path, metavar="DIR", help="true label PNGs of the same names"
    )
    add(
        "--threshold",
        type=float,
        metavar="T",
        help="of --seeds: score at this one, above 0 and below 1 (default: at 0.01 to 0.99)",
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
        help="class list (YAML), names separated by commas ('cat, dog'), voc or coco",
    )
    add("--list", metavar="FILE", help="names to score, one per line (default: all that is given)")
    add_workers(add)
    add("--json", type=Path, metavar="FILE", help="write the counts, as a test's results.json")
    return parser


def check_flags(args: argparse.Namespace) -> None:
    """Raise UserError for flags that do nothing or cannot be followed."""
    threshold = args.threshold
    if args.predictions:
        refuse_idle(vars(args), ("threshold",), "is of --seeds; leave it out")
    if threshold is not None and not 0 < threshold < 1:
        raise UserError(
            f"--threshold {threshold:g} is not above 0 and below 1; give the score above which a "
            "pixel is its class"
        )
    if args.json:
        require_place(args.json, "--json")


def scored_predictions(args: argparse.Namespace, spec: DatasetSpec) -> Scored:
    """Score --predictions."""
    folder = maps_folder(args.predictions)
    check_order(folder, spec.label_names)
    masks = masks_in(args.masks)
    pairs = files_to_score(predictions_in(folder), masks, args.list)
    items = (Item(true.stem, file, true) for file, true in pairs)
    refuse_suspicious(items, len(spec.classes), faults=False)  # all are read next
    if folder.resolve() == args.masks.resolve():
        say_once(
            "same", f"--predictions and --masks are both {args.masks}: this scores it by itself"
        )

    matrix = score(pairs, len(spec.label_names), args.workers)
    said = unscored(pairs, masks, "prediction", args.list)
    return Scored(folder.name, matrix, said)


def scored_seeds(args: argparse.Namespace, spec: DatasetSpec) -> Scored:
    """Score --seeds, at --threshold or at the best."""
    folder = args.seeds
    if (folder / SEEDS).is_dir():
        folder = folder / SEEDS

    masks = masks_in(args.masks)
    pairs = files_to_score(seeds_in(folder), masks, args.list)
    # no seed file shows how its picture is turned
    items = (Item(true.stem, true, true) for _, true in pairs)
    refuse_suspicious(items, len(spec.classes), faults=False)  # all are read next

    said = unscored(pairs, masks, "seeds", args.list)
    labels = len(spec.label_names)
    if args.threshold is not None:
        sweep = score_seeds(pairs, labels, torch.tensor([args.threshold]), args.workers)
        (matrix,) = sweep.matrices()
        return Scored(folder.name, matrix, said, args.threshold, {"threshold": args.threshold})

    tuned = score_seeds(pairs, labels, THRESHOLDS, args.workers).tuned()
    said.insert(0, tuned.sentence("seed", f"the masks in {args.masks}"))
    return Scored(folder.name, tuned.matrix, said, tuned.threshold, tuned.values())


def main() -> None:
    """Read the command line and do what it asks."""
    args = _parser().parse_args()
    check_flags(args)
    spec = SPECS[args.dataset]
    if args.classes:
        spec = given_classes(args.classes)

    if args.seeds:
        scored = scored_seeds(args, spec)
    else:
        scored = scored_predictions(args, spec)

    print(format_table([(scored.title(), scored.matrix)], spec.label_names))
    print("mIoU over the classes in the truth, 255 ignored; brackets: number of images")
    for sentence in scored.said:
        print(sentence)
    if args.json:
        result = result_of(args.list or str(args.masks), scored.matrix, spec.classes)
        miou = {"mIoU": 100 * scored.matrix.miou()}
        content = {scored.name: {**result, **miou, **scored.facts}}
        write_json(args.json, content)


if __name__ == "__main__":
    command(main)()
