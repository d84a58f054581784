"""CAM seeds and pseudo labels for a second stage elsewhere: `python -m utils.tools.export
--model_path CKPT --out DIR`.

For each image of a split, made with its tags as at the end of training:

  seeds/NAME.npz or .npy  class scores at image size, 0..1, without background, float16, after the
                          transition matrix
  pseudo_labels/NAME.png  refined labels with the VOC palette: 0 background, class + 1; for any
                          segmentation network

--layout npz: `keys` (n,) int64, classes 0..K-1, and `scores` (n, H, W); read without pickle.
--layout irn: a pickled dict of `keys`, `cam` (a quarter of the size) and `high_res`, as IRN
(jiwoon-ahn/irn) and what builds on it read in eval_cam, cam_to_ir_label and make_sem_seg_labels.
--layout mctformer: a pickled dict {class: (H, W)}, as evaluation.py of MCTformer
(xulianuwa/MCTformer) reads.
--sweep scores both with the split's masks: pseudo labels, and seeds at every background threshold
(the best is tuned).
"""

import argparse
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from datasets.lists import Items
from datasets.pictures import mask_png
from datasets.specs import palette
from model.cvf import CVF
from utils.build import restore
from utils.common.device import choose_device, prepare_torch
from utils.common.entry import command
from utils.common.errors import UserError
from utils.common.files import make_folder, write_whole
from utils.common.parser import Parser
from utils.common.progress import progress
from utils.config import Config
from utils.inference.evaluation import masked_loader
from utils.inference.seed_files import LAYOUTS, SEEDS, packed
from utils.inference.seeds import image_seeds, require_masks
from utils.inference.segmenter import checkpoint_config
from utils.inference.sweep import THRESHOLDS, Sweep
from utils.metrics import TITLES, ConfusionMatrix, kinds_of
from utils.run_folder.checkpoint import load_checkpoint
from utils.splits import image_tags, split_items

LABELS = "pseudo_labels"
ABOUT = "export.json"
KINDS = ("fused", "clip", "vit")


def export(
    model: CVF,
    images: Items,
    tags: np.ndarray,
    config: Config,
    kind: str,
    layout: str,
    folder: Path,
    sweep: Sweep | None,
) -> ConfusionMatrix:
    """Write seeds of one kind and pseudo labels of every image; with a sweep, count both against
    the masks.

    Returns the counts of the pseudo labels, all 0 without a sweep. Raises UserError when the model
    has no such seeds.
    """
    phase = config.phase(config.max_iters)
    refined = ConfusionMatrix(tags.shape[1] + 1)
    if not sweep:
        images = images.without_masks()

    for sample in progress(masked_loader(images, config), desc="export"):
        tag = torch.from_numpy(tags[sample["index"]])
        seeds = image_seeds(model, sample["image"], tag, config, phase)
        if kind not in seeds.scores:
            raise UserError(
                f"--kind {kind} is not made by this checkpoint; use {' or '.join(seeds.scores)}"
            )

        keys = seeds.keys.cpu()
        scores = seeds.scores[kind].float().cpu()
        pseudo = seeds.pseudo.cpu()
        name = sample["name"]
        labels = seeds.confident.cpu().numpy().astype(np.uint8)
        write_whole(folder / SEEDS / f"{name}{LAYOUTS[layout]}", packed(layout, keys, scores))
        write_whole(folder / LABELS / f"{name}.png", mask_png(labels, palette()))

        if sweep:
            sweep.update(keys, scores, sample["mask"].long())
            refined.update(pseudo, sample["mask"])
    return refined


def left_before(folder: Path, names: Iterable[str], layout: str) -> list[str]:
    """List the files beside those of an export of these images: an earlier one, of another split or
    layout, or stopped half-way, left them.
    """
    written = set()
    for name in names:
        written |= {f"{SEEDS}/{name}{LAYOUTS[layout]}", f"{LABELS}/{name}.png"}

    files = (file for part in (SEEDS, LABELS) for file in (folder / part).rglob("*"))
    found = {file.relative_to(folder).as_posix() for file in files if file.is_file()}
    return sorted(found - written)


def summary(sweep: Sweep, refined: ConfusionMatrix, kind: str, split: str) -> tuple[str, dict]:
    """Say what the masks say, as lines to print and as plain values."""
    tuned = sweep.tuned()
    text = (
        f"pseudo label mIoU {100 * refined.miou():.2f} ({split}; no threshold, nothing tuned)\n"
        + tuned.sentence(f"{kind} seed", f"the masks of {split}")
    )
    return text, {TITLES["pseudo"]: 100 * refined.miou(), **tuned.values()}


def _parser() -> Parser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model_path", required=True, type=Path, metavar="FILE", help="final checkpoint of a run")
    add("--out", required=True, type=Path, metavar="DIR", help="folder to write")
    add("--split", default="", help="split or list file (default: the checkpoint's training split)")
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
        "--sweep", action="store_true", help="score seeds at every threshold with the split's masks"
    )

    for name, text in (
        ("data_root", "folder of the data set"),
        ("tags", "classes of each image, in any form that `datasets.prepare custom` takes"),
        ("clip_path", "CLIP weights"),
        ("dino_path", "DINO weights"),
    ):
        add(f"--{name}", default=argparse.SUPPRESS, help=f"{text} (default: the checkpoint's)")

    add("--device", default="auto", help="default: %(default)s")
    return parser


def main() -> None:
    """Read the command line and do what it asks."""
    flags = vars(_parser().parse_args())
    path, folder, layout, asked, scored = (
        flags.pop(name) for name in ("model_path", "out", "layout", "kind", "sweep")
    )
    checkpoint = load_checkpoint(path, "--model_path")
    config = checkpoint_config(
        checkpoint["config"], path, {k: v for k, v in flags.items() if k != "split"}
    )
    prepare_torch(config.threads)
    split = flags["split"] or config.train_split
    config = replace(config, train_split=split)  # tags are read for the training split
    model, spec = restore(checkpoint, config, flags.get("clip_path"), labels=True)
    images = split_items(config, split)
    if scored:
        require_masks(images, "--sweep")

    tags = image_tags(config, spec, images)
    device = choose_device(config.device)
    make_folder(folder)
    # it tells of a whole export: until this one is whole, there is none
    (folder / ABOUT).unlink(missing_ok=True)
    kind = asked or kinds_of(config.branches)[-1]
    sweep = None
    if scored:
        sweep = Sweep(len(spec.label_names), THRESHOLDS)

    refined = export(model.to(device), images, tags, config, kind, layout, folder, sweep)
    about = {
        "split": split,
        "images": len(images),
        "classes": spec.classes,
        "kind": kind,
        "layout": layout,
    }
    if sweep:
        text, about["mIoU"] = summary(sweep, refined, kind, split)
        print(text)

    write_whole(folder / ABOUT, json.dumps(about, indent=1).encode())
    print(
        f"{len(images)} images of {split}, made with their tags: {folder / SEEDS}, "
        f"{folder / LABELS}"
    )
    if others := left_before(folder, images.names, layout):
        print(
            f"note: {folder} also holds {len(others)} files that an earlier export left, the first "
            f"is {others[0]}; remove what shall not be trained on"
        )


if __name__ == "__main__":
    command(main)()
