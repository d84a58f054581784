"""Scores during training: segmentation of validation images, and seeds and pseudo labels of
training images.
"""

from collections.abc import Sequence

import torch

from datasets.data import Split
from datasets.lists import Item
from datasets.transforms import STATISTICS, normalise
from model.cvf import CVF
from model.method import Phase
from utils.common import distributed
from utils.common.device import autocast
from utils.inference.evaluation import evaluating
from utils.inference.multi_scale import multi_scale, resize_long
from utils.inference.seeds import as_trained, labels_at, padded
from utils.inference.windows import label_map
from utils.metrics import SINGLE, TITLES, ConfusionMatrix, kinds_of
from utils.recipe import beside_score, references_of
from utils.run_folder.results import add_result
from utils.training.panels import draw_panels
from utils.training.plan import Evaluation
from utils.training.run import Run


@torch.no_grad()
def score_seeds(model: CVF, seeds: Split, run: Run, phase: Phase) -> dict[str, ConfusionMatrix]:
    """Count the confusion of CLIP, ViT and fused seeds and pseudo labels with the masks of tagged
    images, at original size, over all processes.

    Every image has a mask.
    """
    config = run.config

    # All are there from the start: a process without an image takes part in the sums too.
    branches = model.method.branches
    kinds = (*kinds_of(branches), "pseudo")
    size = seeds.tags.classes + 1
    scores = {TITLES[kind]: ConfusionMatrix(size, run.device) for kind in kinds}

    with evaluating(model):
        for sample in run.samples(seeds.items, "seeds"):
            seen = as_trained(sample["image"].to(run.device), config)
            height, width = seen.shape[-2:]
            tags = torch.from_numpy(seeds.tags[sample["index"]])[None]
            with autocast(run.device, config.precision):
                labels = model.seeds(padded(seen, config), tags, phase)

            truth = sample["mask"].to(run.device)
            for name, label in labels.items():
                found = label[0, :height, :width]
                scores[TITLES[name]].update(labels_at(found, truth.shape), truth)

    for matrix in scores.values():
        matrix.sum_over_processes()
    return scores


def report(model: CVF, training: Split, evaluation: Evaluation, run: Run, step: int) -> None:
    """Record the validation mIoU (single scale), and the quality of seeds and pseudo labels, each
    where there are masks.
    """
    config = run.config
    seeds = evaluation.seeds

    scores = {}
    if evaluation.validation:
        scores[SINGLE] = validate(model, evaluation.validation, run)
    if len(seeds):
        scores |= score_seeds(model, seeds, run, config.phase(step))
    if not distributed.is_main():
        return

    if config.visualise:
        draw_panels(model, training, run, step)
    run.recorder.scalars(
        "evaluation", step, {title: 100 * matrix.miou() for title, matrix in scores.items()}
    )
    references = references_of(config)
    for title, matrix in scores.items():
        split = evaluation.seeds_label
        if title == SINGLE:
            split = evaluation.validation_label
        others = beside_score(title, split, step, config.eval_every, references)
        run.recorder.say(
            f"iteration {step}: {title} mIoU {100 * matrix.miou():.2f} ({split}, "
            f"{matrix.images} images){others}"
        )
        if title != SINGLE:
            add_result(run.folder, title, split, matrix, run.facts["classes"])


@torch.no_grad()
def validate(model: CVF, validation: Sequence[Item], run: Run) -> ConfusionMatrix:
    """Count single-scale confusion at original size, over all processes."""
    config = run.config
    matrix = ConfusionMatrix(len(run.facts["classes"]) + 1, run.device)

    with evaluating(model):
        for sample in run.samples(validation, "validation"):
            image = normalise(sample["image"][None].to(run.device), *STATISTICS[config.statistics])
            with autocast(run.device, config.precision):
                small = resize_long(image, config.resize_long)
                logits, _ = multi_scale(
                    model.segment, small, config.scales[:1], False, config.pad_images
                )
            matrix.update(label_map(logits, image.shape[-2:]), sample["mask"].to(run.device))

    matrix.sum_over_processes()
    return matrix
