r"""Compare methods on equal terms: `python -m utils.tools.compare_methods`.

    # all recipes and ours on the toy, five seeds, two validation sets
    python -m utils.tools.compare_methods --rows weclip excel weclip_plus cdclip cvf best \
        --seeds 0 1 2 3 4 --other_root data/other_toy_voc
    # one branch, both, and the same network on true masks
    python -m utils.tools.compare_methods --rows clip vit fusion masks --reference fusion
    # the same network on label maps that another method made, one PNG per training image
    python -m utils.tools.compare_methods --rows cvf masks theirs=labels:their_pseudo_labels
    # switches, on top of a recipe or of the data's settings
    python -m utils.tools.compare_methods --rows cvf dense=cam:dense steep=weclip,lr:0.004
    # labels alone, from the ViT of stage 1: minutes per row
    python -m utils.tools.compare_methods --labels_only --rows cvf dense=cam:dense,dense_std:3
    # stage 2 alone, from ViTs that are trained; on VOC
    python -m utils.tools.compare_methods --mct_path 'vits/{seed}.pt' --rows cvf wide=radius:12
    python -m utils.tools.compare_methods --data voc --data_root VOCdevkit/VOC2012

A row is `NAME` or `NAME=PART,PART`; a part is a recipe (configs/recipes), one of `clip vit fusion
masks cvf`, `SETTING:VALUE`, or `labels:FOLDER`. `cvf` is the data's own settings, `masks` trains on
true masks, `labels` on the label PNGs of a folder, 255 left out. Any setting is a flag too, for all
rows. All rows have the data's budget unless a switch changes it.

Stage 1 is trained once per seed for all rows that agree on its settings, and so is everything else
that is the same. The same command goes on where it was stopped, at any moment; more rows, seeds and
roots may be added. A row that cannot run is told as such, and the others go on.

The work folder gets comparison.json, after each trial, comparison.html at the end, and a run folder
of each step. Several commands may work in it at once, on different seeds; one with all seeds then
puts them together.
"""

import argparse
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from utils.common.device import choose_device, describe_environment
from utils.common.entry import command
from utils.common.errors import UserError, nearest
from utils.common.files import make_folder
from utils.common.options import options
from utils.common.parser import Parser, refuse_idle
from utils.common.weights import find_weights
from utils.config import Config, add_config_flags, load_config
from utils.inference.protocol import Outputs, protocol
from utils.report.methods import (
    STAGES,
    Comparison,
    MethodRow,
    RowCost,
    measures,
    table,
    write_json,
    write_methods,
)
from utils.splits import split_items
from utils.tools.compare_methods.rows import FAMILY, OURS, TAKEN, Row, read_rows
from utils.tools.compare_methods.trials import Bench, Trial

SEED_MARK = "{seed}"  # in --mct_path
Trials = dict[str, dict[int, Trial]]  # by row and seed


def main() -> None:
    """Read the command line and do what it asks."""
    args, flags = _arguments()
    work_dir = Path(flags.pop("work_dir", "runs/compare"))
    vits = _vits(flags.pop("mct_path", ""), args.seeds)
    base = load_config(args.data, flags)
    rows = read_rows(args.rows, args.data, flags)

    bench = Bench(
        base=base,
        folder=work_dir,
        roots=tuple(dict.fromkeys([base.data_root, *args.other_root])),
        vits=vits,
        labels_only=args.labels_only,
        labels_split=args.labels_split or base.seeds_split,
        crf=not args.no_crf,
    )
    _check_data(bench)
    reference = _reference(args.reference, rows)
    make_folder(work_dir)
    numbers, page = work_dir / "comparison.json", work_dir / "comparison.html"
    trials: Trials = {row.name: {} for row in rows}
    reasons = {row.name: row.reason for row in rows}

    def so_far() -> Comparison:
        """Put together what is known."""
        title = " ".join(Path(each).stem for each in args.data)
        return _comparison(title, bench, reference, rows, trials, reasons)

    for seed in dict.fromkeys(args.seeds):
        for row in rows:
            if not reasons[row.name]:
                reasons[row.name] = _tried(bench, row, seed, trials[row.name])
                write_json(so_far(), numbers)

    if not any(trials.values()):
        raise UserError("; ".join(f"{name} cannot run: {why}" for name, why in reasons.items()))
    write_methods(so_far(), page)
    print(f"\n{table(so_far())}\n\n{numbers}\n{page}")


def _tried(bench: Bench, row: Row, seed: int, trials: dict[int, Trial]) -> str:
    """Run a trial and add it to those of its row; returns why it could not run, or ""."""
    try:
        trials[seed] = bench.run(row, seed)
    except UserError as error:
        reason = f"seed {seed}: {error}" if trials else str(error)
        print(f"{row.name}: not run: {reason}")
        return reason
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the same command goes on where it stopped") from None

    print(f"{row.name}, seed {seed}: {_told(trials[seed])}")
    return ""


def _told(trial: Trial) -> str:
    """Return the scores of a trial in a line."""
    return "; ".join(
        f"{Path(root).name} {', '.join(f'{name} {score.value:.1f}' for name, score in own.items())}"
        for root, own in trial.scores.items()
    )


def _arguments() -> tuple[argparse.Namespace, dict[str, Any]]:
    """Return the flags of this command, and those that are settings of all rows."""
    parser = Parser(
        description=__doc__,
        usage="%(prog)s [--rows ROW ...] [--data FILE ...] [--seeds N ...] [flags]",
    )
    add = parser.add_argument_group("this command").add_argument
    add("--rows", nargs="+", default=list(FAMILY), help=f"default: {' '.join(FAMILY)}")
    add(
        "--data",
        "--config",
        dest="data",
        nargs="+",
        default=["toy_voc"],
        metavar="FILE",
        help="YAML files, or names of those in configs/, that all rows stand on (default: toy_voc)",
    )
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of training (default: 0 1 2)")
    add(
        "--reference", default="", metavar="ROW", help="default: cvf if it is a row, else the first"
    )
    add("--other_root", nargs="*", default=[], metavar="DIR", help="further data to score on")
    add("--labels_only", action="store_true", help="score seeds and pseudo labels, no stage 2")
    add(
        "--labels_split",
        default="",
        metavar="SPLIT",
        help="images whose labels are scored then, such as val (default: those of --seeds_split)",
    )
    add("--no_crf", action="store_true", help="leave the dense CRF out of the scores")
    add_config_flags(parser)

    args = parser.parse_args()
    flags = {name: value for name, value in vars(args).items() if name in options(Config)}
    for name in ("seed", "stages"):
        if name in flags:
            raise UserError(f"--{name} is no flag of a comparison; give {TAKEN[name]} instead")
    if not args.labels_only:
        idle = "is of --labels_only; add that, or leave it out"
        refuse_idle(vars(args), ("labels_split",), idle)
    return args, flags


def _vits(pattern: str, seeds: Sequence[int]) -> dict[int, str]:
    """Return the trained ViT of each seed. Raises UserError where one is missing."""
    if not pattern:
        return {}
    found = {}
    for seed in seeds:
        path = find_weights(pattern.replace(SEED_MARK, str(seed)), "--mct_path")
        if not path.is_file():
            raise UserError(
                f"--mct_path {path} does not exist; give a file for each of --seeds, with "
                f"{SEED_MARK} in the place of the seed"
            )
        found[seed] = str(path)
    return found


def _reference(given: str, rows: Sequence[Row]) -> str:
    names = [row.name for row in rows]
    if not given:
        return OURS if OURS in names else names[0]
    if given not in names:
        hint = nearest(given, names) or f"; choose from {', '.join(names)}"
        raise UserError(f"--reference {given} is no row of this comparison{hint}")
    return given


def _check_data(bench: Bench) -> None:
    """Raise UserError unless all data is there that rows learn from and are scored on."""
    split_items(bench.base, bench.base.train_split)
    split = bench.labels_split if bench.labels_only else bench.base.val_split
    for root in bench.roots:
        images = split_items(replace(bench.base, data_root=root), split)
        if not any(item.mask for item in images):
            raise UserError(f"no image of {split} in {root} has a mask to be scored with")


def _comparison(
    data: str,
    bench: Bench,
    reference: str,
    rows: Sequence[Row],
    trials: Trials,
    reasons: dict[str, str],
) -> Comparison:
    """Put together what is known so far."""
    scores = {
        row: {seed: trial.scores for seed, trial in by_seed.items()}
        for row, by_seed in trials.items()
    }
    described = [
        MethodRow(
            row.name,
            reasons[row.name],
            row.changed,
            row.notes,
            costs(trials[row.name].values()),
        )
        for row in rows
    ]

    seeds = sorted({seed for by_seed in trials.values() for seed in by_seed})
    return Comparison(
        data,
        reference,
        tuple(seeds),
        _facts(bench),
        tuple(described),
        measures(scores, bench.roots, reference),
    )


def costs(trials: Collection[Trial]) -> dict[str, RowCost]:
    """Return what a row's trials took on average, by stage; nothing of what was taken as given."""
    found = {}
    for stage in STAGES:
        steps = [trial.costs[stage] for trial in trials if stage in trial.costs]
        steps = [step for step in steps if step.seconds]
        if steps:
            found[stage] = RowCost(
                cpu_minutes=fmean(step.cpu for step in steps) / 60,
                minutes=fmean(step.seconds for step in steps) / 60,
                gigabytes=max(step.peak for step in steps) / 1e9,
            )
    return found


def _facts(bench: Bench) -> dict[str, str]:
    base = bench.base
    budget = f"{base.mct_epochs} epochs of stage 1 in batches of {base.mct_batch_size}"
    if not bench.labels_only:
        budget += f", {base.max_iters} iterations of stage 2 in batches of {base.batch_size}"
    facts = {"budget of all rows": f"{budget}, unless a row changes it"}
    if bench.labels_only:
        facts["labels"] = "made without stage 2"
    else:
        facts["tested at"] = protocol(base, Outputs(use_crf=bench.crf))

    device = choose_device(base.device)
    lines = describe_environment(device).splitlines()
    environment = dict(line.split(": ", 1) for line in lines)
    return facts | {name: environment[name] for name in ("device", "gpu", "torch", "commit")}


if __name__ == "__main__":
    command(main)()
