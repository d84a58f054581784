"""Scores during training: segmentation of validation images, and seeds and pseudo labels of
training images.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

from datasets.data import MaskedImages
from datasets.layouts import Item
from datasets.transforms import normalise
from model.cvf import CVF
from utils.build import STATISTICS
from utils.common import distributed
from utils.common.device import autocast
from utils.common.progress import progress
from utils.common.signals import heed_parent_only
from utils.config import Config
from utils.inference.multi_scale import multi_scale, resize_long
from utils.inference.seeds import padded, require_masks
from utils.inference.windows import label_map
from utils.metrics import TITLES, ConfusionMatrix
from utils.run_folder.claim import readable
from utils.run_folder.recorder import add_result
from utils.training.loop import Run
from utils.training.panels import draw_panels


@torch.no_grad()
def score_seeds(
    model: CVF,
    items: Sequence[Item],
    tags: np.ndarray,
    config: Config,
    device: torch.device,
    ranks: tuple[int, int],
    select: bool,
) -> dict[str, ConfusionMatrix]:
    """Confusion of CLIP, ViT and fused seeds and pseudo labels with the masks of tagged images (n)
    at original size.

    `tags` (n, K); `ranks` = (rank, world), every image is counted by one process. Raises UserError
    without masks.
    """
    require_masks(items)
    mode = model.training
    model.eval()
    data = MaskedImages(items, *ranks, config.on_bad_image == "skip")
    # All are there from the start: a process without an image takes part in the sums too.
    kinds = (
        ("clip", "vit", "fused") if model.method.branches == "fusion" else (model.method.branches,)
    )
    scores = {
        TITLES[kind]: ConfusionMatrix(tags.shape[1] + 1, device) for kind in (*kinds, "pseudo")
    }
    loader = DataLoader(data, None, num_workers=config.workers, worker_init_fn=heed_parent_only)
    bar = progress(loader, config.quiet, desc="seeds", leave=False)
    for sample in readable(bar, Path(config.work_dir), "seeds"):
        height, width = sample["image"].shape[-2:]
        tag = torch.from_numpy(tags[sample["index"]])[None]
        with autocast(device, config.precision):
            labels = model.seeds(padded(sample["image"].to(device), config), tag, select)
        truth = sample["mask"].to(device)
        for name, label in labels.items():
            scores[TITLES[name]].update(label[0, :height, :width], truth)
    for matrix in scores.values():
        matrix.counts = distributed.total(matrix.counts)
    model.train(mode)
    return scores


def report(
    model: CVF,
    training: Sequence[Item],
    tags: np.ndarray,
    validation: Sequence[Item],
    run: Run,
    step: int,
) -> None:
    """Validation mIoU (single scale), and with eval_seeds the quality of seeds and pseudo labels on
    training images.
    """
    config, limit = run.config, run.config.eval_images or None
    scores = {}
    if all(item.mask is not None for item in validation):
        scores["single scale"] = validate(model, validation[:limit], run)
    if config.eval_seeds:
        select = step >= config.switch_iters
        chosen, their_tags = training[:limit], tags[:limit]
        scores |= score_seeds(
            model, chosen, their_tags, config, run.device, (run.rank, run.world), select
        )
    if not distributed.is_main():
        return
    if config.visualise:
        draw_panels(model, training, tags, run, step)
    run.recorder.scalars(
        "evaluation", step, {title: 100 * matrix.miou() for title, matrix in scores.items()}
    )
    for title, matrix in scores.items():
        split = config.val_split if title == "single scale" else config.train_split
        images = len(validation[:limit]) if title == "single scale" else len(training[:limit])
        run.recorder.say(
            f"iteration {step}: {title} mIoU {100 * matrix.miou():.2f} ({split}, {images} images)"
        )
        if title != "single scale":
            add_result(run.folder, title, split, images, matrix, run.facts["classes"])


@torch.no_grad()
def validate(model: CVF, validation: Sequence[Item], run: Run) -> ConfusionMatrix:
    """Single-scale confusion at original size, over all processes."""
    config, mode = run.config, model.training
    model.eval()
    matrix = ConfusionMatrix(len(run.facts["classes"]) + 1, run.device)
    data = MaskedImages(validation, run.rank, run.world, config.on_bad_image == "skip")
    loader = DataLoader(data, None, num_workers=config.workers, worker_init_fn=heed_parent_only)
    bar = progress(loader, config.quiet, desc="validation", leave=False)
    for sample in readable(bar, run.folder, "validation"):
        image = normalise(sample["image"][None].to(run.device), *STATISTICS[config.statistics])
        with autocast(run.device, config.precision):
            small = resize_long(image, config.resize_long)
            logits, _ = multi_scale(
                model.segment, small, config.scales[:1], False, config.pad_images
            )
        matrix.update(label_map(logits, image.shape[-2:]), sample["mask"].to(run.device))
    matrix.counts = distributed.total(matrix.counts)
    model.train(mode)
    return matrix
