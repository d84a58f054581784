"""CAM seeds and pseudo labels for a second stage elsewhere: `python -m utils.tools.export
--model_path CKPT --out DIR`.

CKPT is a final.pt, whose labels are those of the end of its training, or a classifier.pt of stage 1
(MCTformer+'s recipe), whose labels are those that stage 2 would begin with. A recipe that trains
nothing has no checkpoint: `--config clip_es_voc`, or the config.yaml of its run, stands for it.

For each image of a split, made with its tags:

  seeds/NAME.npz or .npy  class scores at image size, 0..1, without background, float16, after the
                          transition matrix
  pseudo_labels/NAME.png  refined labels: 0 background, class + 1, 255 not sure; a PNG of one byte
                          per pixel with the VOC palette, which PIL reads as numbers and OpenCV as
                          colours (utils/tools/README.md has the way to grey PNGs)

--layout npz: `keys` (n,) int64, classes 0..K-1, and `scores` (n, H, W); read without pickle.
--layout irn: a pickled dict of `keys`, `cam` (a quarter of the size) and `high_res`, as IRN
(jiwoon-ahn/irn) and what builds on it read in eval_cam, cam_to_ir_label and make_sem_seg_labels.
--layout mctformer: a pickled dict {class: (H, W)}, as evaluation.py of MCTformer
(xulianuwa/MCTformer) reads.
--sweep scores both with the split's masks: pseudo labels, and seeds at every background threshold
(the best is tuned).

Where it was stopped, the same command goes on, with --sweep too. Several processes
(utils.tools.launch) share the images.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets.data import Split
from datasets.lists import Item
from datasets.predictions import PREDICTION, PSEUDO_LABELS
from datasets.specs import DatasetSpec
from model.cvf import CVF
from model.method import BEGINNING, Phase
from utils.build import build_untrained, restore
from utils.common import distributed
from utils.common.device import choose_device, prepare_torch
from utils.common.entry import command
from utils.common.errors import UserError
from utils.common.files import make_folder, write_json
from utils.common.parser import Parser
from utils.config import CONFIG_FILE, Config, load_config
from utils.inference.seed_export import (
    ABOUT,
    Export,
    Scores,
    export,
    images_left,
    left_before,
)
from utils.inference.seed_files import LAYOUTS, SEEDS
from utils.metrics import TITLES, kinds_of
from utils.run_folder.checkpoint import checkpoint_config, is_of_stage_1, load_checkpoint
from utils.splits import dataset_spec, image_tags, split_items
from utils.training.plan import check_stages

KINDS = ("fused", "clip", "vit")
Checkpoint = dict[str, Any]


def require_masks(items: Sequence[Item], flag: str) -> None:
    """Raise UserError naming the flag that wants masks and the first image without one."""
    if missing := [item.name for item in items if item.mask is None]:
        raise UserError(
            f"{flag} needs the masks of the images, {missing[0]} has none; leave {flag} out"
        )


def summary(scores: Scores, kind: str, split: str) -> tuple[str, dict]:
    """Say what the masks say, as lines to print and as plain values."""
    tuned = scores.seeds.tuned()
    miou = 100 * scores.labels.miou()
    text = (
        f"pseudo label mIoU {miou:.2f} ({split}; no threshold, nothing tuned)\n"
        + tuned.sentence(f"{kind} seed", f"the masks of {split}")
    )
    return text, {TITLES["pseudo"]: miou, **tuned.values()}


def report(job: Export, spec: DatasetSpec, scores: Scores) -> None:
    """Write what the folder holds, and say it, with the scores if there are any."""
    unread = len(images_left(job))
    number = len(job.images) - unread
    about: dict[str, Any] = {
        "split": job.split,
        "images": number,
        "classes": spec.classes,
        "kind": job.kind,
        "layout": job.layout,
    }
    if job.scored:
        text, about["mIoU"] = summary(scores, job.kind, job.split)
        print(text)

    write_json(job.folder / ABOUT, about)
    print(
        f"{number} images of {job.split}, made with their tags: {job.folder / SEEDS}, "
        f"{job.folder / PSEUDO_LABELS}"
    )
    if unread:
        print(f"{unread} images of {job.split} could not be read and have no files")
    if others := left_before(job):
        print(
            f"note: {job.folder} also holds {len(others)} files that an earlier export left, the "
            f"first is {others[0]}; remove what shall not be trained on"
        )


def source_of(
    path: Path | None, given: Sequence[str], flags: dict[str, Any]
) -> tuple[Checkpoint | None, Config]:
    """Return the checkpoint that makes seeds and its settings, or those of a recipe that trains
    nothing. Raises UserError where neither makes seeds.
    """
    if path is not None:
        checkpoint = load_checkpoint(path, "--model_path")
        return checkpoint, checkpoint_config(checkpoint["config"], path, flags)

    config = load_config(given, flags)
    if config.stages != "seeds":
        raise UserError(
            f"--config {' '.join(given)} trains a network (stages: {config.stages}); give the "
            "checkpoint that its run wrote as --model_path in its place"
        )
    check_stages(config)
    return None, config


def network_of(
    checkpoint: Checkpoint | None, config: Config, given_clip: str | None
) -> tuple[CVF, DatasetSpec, Phase]:
    """Build what makes seeds; returns it with its classes, and what has begun in its training."""
    if checkpoint is None:
        spec = dataset_spec(config)
        return build_untrained(config, spec), spec, BEGINNING

    model, spec = restore(checkpoint, config, given_clip, labels=True)
    steps = 0 if is_of_stage_1(checkpoint) else config.max_iters
    return model, spec, config.phase(steps)


def chosen_kind(config: Config, asked: str) -> str:
    """Return the kind of seeds that is asked for, else what pseudo labels come from. Raises
    UserError where there are no such seeds.
    """
    kinds = kinds_of(config.branches)
    if asked and asked not in kinds:
        raise UserError(
            f"--kind {asked} is not made with branches: {config.branches}; use {' or '.join(kinds)}"
        )
    return asked or kinds[-1]


def check_place(folder: Path) -> None:
    """Raise UserError where the folder is that of a training or of predictions, whose journal would
    be lost.
    """
    if (folder / CONFIG_FILE).is_file() or (folder / PREDICTION).is_dir():
        raise UserError(
            f"--out {folder} is the folder of a run or of predictions; name one of its own, such "
            f"as {folder / 'export'}"
        )


def _parser() -> Parser:
    parser = Parser(description=__doc__)
    add = parser.add_argument
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--model_path", type=Path, metavar="FILE", help="checkpoint: final.pt or classifier.pt"
    )
    source.add_argument(
        "--config",
        nargs="+",
        default=(),
        metavar="FILE",
        help="in place of a checkpoint: a recipe that trains nothing, or its run's config.yaml",
    )
    add("--out", required=True, type=Path, metavar="DIR", help="folder to write")
    add("--split", default="", help="split or list file (default: the training split)")
    add(
        "--kind",
        default="",
        choices=KINDS,
        help="whose seeds (default: fused, or those of the only branch)",
    )
    add(
        "--layout",
        default="npz",
        choices=tuple(LAYOUTS),
        help="of seed files (default: %(default)s)",
    )
    add(
        "--sweep",
        action="store_true",
        help="score seeds at every threshold with the split's masks",
    )

    usual = "that of the checkpoint or --config"
    for name, text in (
        ("data_root", "folder of the data set"),
        ("tags", "classes of each image, in any form that `datasets.prepare custom` takes"),
        ("clip_path", "CLIP weights"),
        ("dino_path", "DINO weights"),
    ):
        add(f"--{name}", default=argparse.SUPPRESS, help=f"{text} (default: {usual})")

    add("--device", default=argparse.SUPPRESS, help="default: auto, or what --config says")
    return parser


def main() -> None:
    """Read the command line and do what it asks."""
    flags = vars(_parser().parse_args())
    path, given, folder, split, layout, asked, scored = (
        flags.pop(name)
        for name in ("model_path", "config", "out", "split", "layout", "kind", "sweep")
    )
    check_place(folder)
    checkpoint, config = source_of(path, given, flags)
    split = split or config.train_split
    config = replace(config, train_split=split)  # tags are read for the training split
    kind = chosen_kind(config, asked)
    items = split_items(config, split)
    if scored:
        require_masks(items, "--sweep")

    rank, world, local = distributed.start(config.device)
    prepare_torch(config.threads)
    device = choose_device(config.device, local)
    model, spec, phase = network_of(checkpoint, config, flags.get("clip_path"))
    images = Split(items, image_tags(config, spec, items))
    make_folder(folder)
    job = Export(images, split, kind, layout, folder, phase, scored)
    try:
        scores = export(model.to(device), spec, job, config, (rank, world))
    except KeyboardInterrupt:
        goes_on = "the same command goes on with the images that are left"
        raise KeyboardInterrupt(goes_on) from None

    if distributed.is_main():
        report(job, spec, scores)
    distributed.stop()


if __name__ == "__main__":
    command(main, shared=True)()
