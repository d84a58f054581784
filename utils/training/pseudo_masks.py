"""Pseudo labels that need no training (`--stages seeds`): made, written as masks, and scored."""

from pathlib import Path

import numpy as np
import torch

from datasets.data import Split
from datasets.pictures import mask_png
from datasets.predictions import PSEUDO_LABELS
from datasets.specs import palette
from model.cvf import CVF
from model.pseudo_labels import background_powers
from utils.common import distributed
from utils.common.files import write_whole
from utils.inference.evaluation import evaluating
from utils.inference.seeds import ImageSeeds, image_seeds
from utils.metrics import CAMS, TITLES, ConfusionMatrix, kinds_of
from utils.recipe import beside_end, references_of
from utils.run_folder.results import add_result
from utils.training.run import Run


def make_pseudo_masks(model: CVF, images: Split, run: Run) -> Path:
    """Write a pseudo label of each image, and score it, its seeds and its CAMs where the image has
    a mask; returns the folder of the labels.

    The masks are opened for scoring alone. Of several processes, each makes its share.
    """
    run.recorder.rewind("evaluation", -1)
    config = run.config
    folder = run.folder / PSEUDO_LABELS
    scores = {
        title: ConfusionMatrix(images.tags.classes + 1, run.device) for title in _titles(model)
    }

    with evaluating(model):
        for sample in run.samples(images.items, "seeds", leave=True):
            tags = torch.from_numpy(images.tags[sample["index"]])
            seeds = image_seeds(model, sample["image"], tags, config)

            labels = seeds.confident.cpu().numpy().astype(np.uint8)
            write_whole(folder / f"{sample['name']}.png", mask_png(labels, palette()))
            if "mask" in sample:
                truth = sample["mask"].to(run.device)
                for title, found in _label_maps(seeds, model).items():
                    scores[title].update(found, truth)

    _record(scores, len(images), run)
    return folder


def _titles(model: CVF) -> list[str]:
    """Name what is scored: CAMs before the transition matrix, seeds after it, pseudo labels."""
    kinds = kinds_of(model.method.branches)
    return [
        *(CAMS[kind] for kind in kinds),
        *(TITLES[kind] for kind in kinds),
        TITLES["pseudo"],
    ]


def _label_maps(seeds: ImageSeeds, model: CVF) -> dict[str, torch.Tensor]:
    """Return the label maps (H, W) of one image by their names."""
    powers = background_powers(model.method)
    found = {TITLES["pseudo"]: seeds.pseudo}
    for titles, maps in ((CAMS, seeds.cams), (TITLES, seeds.scores)):
        for kind, scores in maps.items():
            found[titles[kind]] = seeds.labels(scores, powers[kind])
    return found


def _record(scores: dict[str, ConfusionMatrix], images: int, run: Run) -> None:
    """Sum the counts of all processes, and say and keep the results, if any of so many images has a
    mask.
    """
    for matrix in scores.values():
        matrix.sum_over_processes()
    scored = scores[TITLES["pseudo"]].images  # as of the others
    if not scored or not distributed.is_main():
        return

    run.recorder.scalars(
        "evaluation", 0, {title: 100 * matrix.miou() for title, matrix in scores.items()}
    )

    references = references_of(run.config)
    if scored != images:
        references = ()  # the numbers of others are of all images
    for title, matrix in scores.items():
        split = run.config.train_split
        others = beside_end(title, split, references)
        run.recorder.say(
            f"{title} mIoU {100 * matrix.miou():.2f} ({split}, {scored} images){others}"
        )
        add_result(run.folder, title, split, matrix, run.facts["classes"])
