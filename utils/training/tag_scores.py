"""How well stage 1 predicts the tags of validation images, while it learns."""

import torch
from torch import Tensor

from datasets.data import Split
from model.class_token_vit import ClassTokenViT
from utils.common import distributed
from utils.common.device import autocast
from utils.inference.evaluation import evaluating
from utils.inference.seeds import padded
from utils.recipe import beside_score, references_of
from utils.training.average_precision import mean_average_precision
from utils.training.run import Run

TAG_EVALUATION = "tag evaluation"
CLASS_MAP = "class mAP"
IMAGE_MAP = "image mAP"


def report_tags(
    vit: ClassTokenViT, validation: Split, run: Run, per_epoch: float, step: int
) -> None:
    """Record how well the ViT predicts the tags of validation images, after iteration `step`, of
    which an epoch has `per_epoch`.
    """
    scores, seen = predicted_tags(vit, validation, run)
    if not distributed.is_main():
        return

    truth = torch.from_numpy(validation.tags.matrix())[seen]
    by_class, by_image = mean_average_precision(scores[seen], truth)
    values = {CLASS_MAP: 100 * by_class, IMAGE_MAP: 100 * by_image}
    run.recorder.scalars(TAG_EVALUATION, step, values)
    others = ""
    if not run.config.eval_images:  # all of the list
        epoch = round(step / per_epoch)
        every = max(1, round(run.config.mct_eval_epochs))
        others = beside_score(
            IMAGE_MAP, run.config.val_split, epoch, every, references_of(run.config)
        )
    run.recorder.say(
        f"classifier iteration {step}: tags of {len(truth)} validation images: class mAP "
        f"{100 * by_class:.2f}, mean of each image's AP {100 * by_image:.2f}{others}"
    )


@torch.no_grad()
def predicted_tags(vit: ClassTokenViT, validation: Split, run: Run) -> tuple[Tensor, Tensor]:
    """Predict the tags of validation images, over all processes.

    Returns:
        (n, K) float32 scores on the CPU, the mean of class-token and patch logits as MCTformer+
        takes it; (n,) bool, False for images that could not be read.
    """
    config = run.config
    table = torch.zeros(len(validation), validation.tags.classes + 1, device=run.device)

    with evaluating(vit):
        for sample in run.samples(validation.items.without_masks(), "tags"):
            with autocast(run.device, config.precision):
                output = vit(padded(sample["image"].to(run.device), config))
            logits = output.cls_logits.float() * config.vit_logit_scale
            if output.patch_logits is not None:
                logits = (logits + output.patch_logits.float()) / 2
            table[sample["index"], :-1] = logits[0]
            table[sample["index"], -1] = 1

    table = distributed.total(table).cpu()
    return table[:, :-1], table[:, -1] > 0
