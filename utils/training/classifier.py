"""Stage 1: the class-token ViT learns the tags of images, and is scored on those of others."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from datasets.data import Batch, Split, TaggedImages
from datasets.lists import Item, Items, spread
from datasets.specs import DatasetSpec
from model.class_token_vit import ClassTokenViT
from model.criterion import classifier_criterion
from model.noise import Noise
from model.outputs import VitOutput
from model.replay import Replay
from utils.common import distributed
from utils.common.errors import UserError
from utils.config import Config
from utils.recipe import LossesBeside, references_of
from utils.settings.training import Stage1Settings
from utils.splits import training_data, validation_tags
from utils.training.loop import run_stage
from utils.training.optim import adamw, cosine, is_matrix, is_weight
from utils.training.run import Run, Stage
from utils.training.tag_scores import TAG_EVALUATION, report_tags

# of the class-token ViT, which its start does not bring
NEW_TENSORS = ("head.", "cls_token", "pos_embed_cls", "fuse_token.")


def tagged_validation(
    config: Config, spec: DatasetSpec, images: Sequence[Item], run: Run
) -> Split | None:
    """Find the tags of validation images, on which stage 1 is scored; None if there are none."""
    if not config.mct_eval_epochs:
        return None
    seen = Items.of(images).at(spread(range(len(images)), config.eval_images))
    try:
        return Split(seen, validation_tags(config, spec, seen))
    except UserError as error:
        run.recorder.say(f"stage 1 is not scored, as validation images have no tags: {error}")
        return None


def train_classifier(
    vit: ClassTokenViT, training: Split, run: Run, validation: Split | None = None
) -> None:
    """Run stage 1: the class-token ViT learns the tags (MCTformer+; model/README.md, "Training of
    the ViT").

    validation: images on whose tags it is scored now and then, and at the end.
    """
    config = run.config
    # images without tags teach a classifier of tags little and have no contrastive term
    tagged = training.tagged()
    if not len(tagged):
        raise UserError(
            f"no image of --train_split {config.train_split} has a tag; check --tags or the "
            "annotations"
        )
    crops = TaggedImages
    if config.mct_augmentation == "randaugment":
        # imported here, as it needs timm, which takes longer to load than all else together
        from datasets.augment import ClassifierImages

        crops = ClassifierImages
    data = training_data(tagged, config, config.mct_crop_size, crops)
    per_epoch = len(tagged) / config.mct_batch_size
    iterations = math.ceil(config.mct_epochs * len(tagged) / config.mct_batch_size)
    warmup = 0
    if config.mct_epochs:
        warmup = int(iterations * config.mct_warmup_epochs / config.mct_epochs)

    evaluate = None
    every = 0
    if validation is not None:
        evaluate = partial(report_tags, vit, validation, run, per_epoch)
        every = max(1, round(config.mct_eval_epochs * len(tagged) / config.mct_batch_size))

    stage = Stage(
        name="classifier",
        module=vit,
        optimiser=_optimiser(vit, config),
        rate=lambda step: cosine(step, iterations, max(1, warmup), config.mct_lr_floor),
        losses=partial(classifier_losses, seen_in_training(vit, config), config),
        data=data,
        iterations=iterations,
        batch_size=config.mct_batch_size,
        evaluate=evaluate,
        evaluation=TAG_EVALUATION,
        eval_every=every,
        beside=LossesBeside(
            references_of(config),
            config.train_split,
            dict.fromkeys(("cls", "patch", "contrast"), 1.0),
            per_epoch=per_epoch,
        ),
        repeats_last=False,
    )
    run_stage(stage, run)
    # a run that was ended while it was scored has no score of the last iteration yet
    if evaluate is not None and not run.recorder.has(TAG_EVALUATION, iterations):
        evaluate(iterations)


def _optimiser(vit: ClassTokenViT, config: Stage1Settings) -> torch.optim.AdamW:
    """Return the optimiser of stage 1: what the start brings, and what is new, at rates of their
    own.
    """
    named = list(vit.named_parameters())
    new = [tensor for name, tensor in named if name.startswith(NEW_TENSORS)]
    pretrained = [tensor for name, tensor in named if not name.startswith(NEW_TENSORS)]
    lr = config.mct_lr * config.mct_batch_size / 512
    groups = [(pretrained, lr), (new, lr * config.mct_head_lr_factor)]
    decays = is_matrix if config.mct_decay_tables else is_weight
    return adamw(groups, config.mct_weight_decay, decays, config.mct_adam_beta2)


def seen_in_training(vit: ClassTokenViT, config: Config) -> Callable[[Tensor, Noise], VitOutput]:
    """Return the forward of stage 1, of images (B, 3, H, W) and noise; what a GPU keeps for it goes
    with it.
    """

    def look(images: Tensor, noise: Noise) -> VitOutput:
        """Look at a batch as training does."""
        return vit(images, noise=noise, drop_rate=config.mct_drop_path)

    return partial(Replay(), "ViT", look, learned=list(vit.parameters()))


def classifier_losses(
    look: Callable[[Tensor, Noise], VitOutput],
    config: Config,
    images: Tensor,
    batch: Batch,
    step: int,
) -> dict[str, Tensor]:
    """Compute the losses of one batch of tagged images in stage 1.

    look: of `seen_in_training`.
    """
    noise = Noise.of(config.seed, step, batch["index"], images.device)
    output = look(images, noise)
    output = replace(output, cls_logits=output.cls_logits.float() * config.vit_logit_scale)
    by_image = config.mct_contrast == "images"
    return classifier_criterion(output, batch["tags"], distributed.total, by_image)
