"""What a training will do, whether it can, what it will score and how long it may take: before it
starts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from datasets.data import Split
from datasets.lists import Item, Items
from datasets.mask_signs import refuse_suspicious
from datasets.scoring import Scored, scored_images
from datasets.specs import DatasetSpec
from utils.common.cores import processes_here
from utils.common.device import used_precision, uses_bf16
from utils.common.errors import UserError
from utils.config import Config
from utils.splits import image_tags, split_items, split_masks

# Seconds per image at a crop of 320 px, two threads, bf16 (utils/tools/benchmark/README.md); an
# image costs in proportion to its pixels, and fp32, as on processors with AVX2 alone, this many
# times as much.
STAGE_1_SECONDS = 0.21
STAGE_1_SECONDS_PER_CLASS = 0.0013
STAGE_2_SECONDS = 0.52
FP32_FACTOR = 3.5
WORTH_TELLING = 3600  # seconds


@dataclass(frozen=True)
class Evaluation:
    """What is scored during training: images of the validation list, and tagged images whose seeds
    and pseudo labels are compared with masks. Both may be empty.

    Labels name the images as results do; `said` is about their masks, and `missing` tells which
    scores there will not be for want of masks, or nothing.
    """

    validation: Sequence[Item]
    validation_label: str
    seeds: Split
    seeds_label: str
    said: str
    missing: str = ""


@dataclass(frozen=True)
class Data:
    """What a training reads: tagged images to learn from, images of the validation list, and which
    of all these are scored.
    """

    training: Split
    validation: Items
    evaluation: Evaluation


def read_data(config: Config, spec: DatasetSpec) -> Data:
    """Read lists and tags, plan the scores and look at the masks that they need. Raises UserError
    where one of these is missing or wrong.
    """
    images = split_items(config, config.train_split)
    validation = split_items(config, config.val_split)
    training = Split(images, image_tags(config, spec, images))
    evaluation = planned_evaluation(config, spec, training, validation)
    stops = config.on_bad_image == "stop"
    refuse_suspicious(evaluation.validation, len(spec.classes), stops)
    refuse_suspicious(evaluation.seeds.items, len(spec.classes), stops)
    return Data(training, validation, evaluation)


def check_batches(config: Config, world: int) -> None:
    """Raise UserError where a batch cannot be shared equally by `world` processes."""
    for name, size in (
        ("batch_size", config.batch_size),
        ("mct_batch_size", config.mct_batch_size),
    ):
        if size % world:
            raise UserError(
                f"--{name} {size} cannot be shared by {world} processes; use a multiple"
            )


def check_stages(config: Config) -> None:
    """Raise UserError where the stages that are asked for lack something, or have nothing to do."""
    with_vit = config.branches != "clip"
    trained = bool(config.mct_path)
    if config.stages == "seeds" and with_vit and not trained:
        raise UserError(
            f"--stages seeds trains nothing, but --branches {config.branches} needs a trained ViT; "
            "give --mct_path, or use --branches clip"
        )

    if config.stages == "seeds" and config.reweight != "none":
        raise UserError(
            f"--reweight {config.reweight} weighs CAMs by what the network has learned to predict, "
            "but --stages seeds trains nothing; use --reweight none"
        )

    if config.stages == "classifier" and (trained or not with_vit):
        given = "--branches clip"
        if trained:
            given = "--mct_path"
        raise UserError(f"--stages classifier trains the ViT, which {given} leaves out; drop one")


def planned_evaluation(
    config: Config, spec: DatasetSpec, training: Split, validation: Sequence[Item]
) -> Evaluation:
    """Choose what is scored during training; no image without a mask is.

    Raises UserError where masks of COCO were made by a rule of an earlier version.
    """
    if config.stages == "seeds":
        return _planned_labels(config, training)

    seeds, seeds_label, seeds_said = _planned_seeds(config, spec, training)
    said = f"seeds and pseudo labels: {seeds_said}"
    if config.stages == "classifier":  # validated by tags, for which no mask is read
        return Evaluation(Items(), "", seeds, seeds_label, said)

    chosen = scored_images(config.val_split, validation, config.eval_images)
    found = split_masks(config, config.val_split, validation)
    said = f"validation: {found}{_choice(chosen)}\n{said}"
    missing = ""
    if not len(chosen):
        scores = "validation score" if len(seeds) else "score at all"
        missing = f"this run will make no {scores}, for want of masks"
    images = Items.of(validation).at(chosen.places)
    return Evaluation(images, chosen.label, seeds, seeds_label, said, missing)


def _planned_labels(config: Config, training: Split) -> Evaluation:
    """Plan the scores of a run that makes pseudo labels alone: of all images that have masks."""
    scored = training.at(np.flatnonzero(training.items.masked))
    said = f"seeds and pseudo labels: {split_masks(config, config.train_split, training.items)}"
    missing = "this run will make no score at all, for want of masks"
    if len(scored):
        said += "; masks are read for these scores alone"
        missing = ""
    return Evaluation(Items(), "", scored, config.train_split, said, missing)


def _planned_seeds(config: Config, spec: DatasetSpec, training: Split) -> tuple[Split, str, str]:
    """Return the images whose seeds are scored, their label, and what is said of them."""
    none = training.at(())
    if not config.eval_seeds:
        return none, "", "not scored (--eval_seeds false)"
    try:
        images = split_items(config, config.seeds_split)
        chosen = scored_images(config.seeds_split, images, config.seeds_images)
        items = images.at(chosen.places)
        seeds = Split(items, image_tags(config, spec, items, config.seeds_split))
    except UserError as error:  # scores of training images are no reason not to train
        return none, "", f"not scored: {error}"

    said = (
        f"{config.seeds_split}, {split_masks(config, config.seeds_split, images)}{_choice(chosen)}"
    )
    if items:
        said += "; masks are read for these scores alone, nothing is trained on them"
    return seeds, chosen.label, said


def _choice(chosen: Scored) -> str:
    """Return which of the images with masks are scored, unless all are."""
    if len(chosen) == chosen.masked:
        return ""
    return f"; {len(chosen):,} of these images are scored, evenly spaced"


def plan(config: Config, spec: DatasetSpec, found: Data, device: torch.device) -> str:
    """Return one paragraph that says what the run will do, before it does it."""
    start = "DeiT"
    if config.starts_from_clip:
        start = "CLIP's image tower"
    epochs = "1 epoch"
    if config.mct_epochs != 1:
        epochs = f"{config.mct_epochs} epochs"

    stage_1 = config.mct_path or f"{epochs} from {start}"
    if config.branches == "clip":
        stage_1 = "none"

    dino = ""
    if config.dino_path:
        dino = f"; DINO {config.dino_path} for {config.dino_use}"

    dropped = ""
    if spec.dropped:
        words = ", ".join(spec.dropped)
        dropped = f"; left out of the background, as they name classes: {words}"

    precision = used_precision(device, config.precision)
    training = found.training
    tags = training.tags.total() / len(training)
    untagged = ""
    if without := len(training) - len(training.tagged()):
        untagged = f" ({without} without any, background alone)"
    work = {
        "seeds": "pseudo labels of whole images, nothing is trained,",
        "classifier": "the class-token ViT alone",
        "all": f"{config.max_iters} iterations of batch {config.batch_size} at "
        f"{config.crop_size} px",
    }

    lines = [
        f"{spec.name}: {len(training)} training images with {tags:.1f} tags each{untagged}, "
        f"{len(found.validation)} validation images, {len(spec.classes)} classes + background"
        f"{dropped}",
        f"CLIP {config.clip_path}{dino}; class-token ViT: {stage_1}; branches {config.branches}",
        f"{work[config.stages]} on {device} in {precision}; run folder {config.work_dir}",
    ]
    lines += idle(config)

    if found.evaluation.missing:
        lines.insert(0, found.evaluation.missing)
    lines.append(found.evaluation.said)
    if device.type == "cpu" and (time := cpu_time(config, training)):
        lines.append(time)
    return "\n".join(lines)


def idle(config: Config) -> list[str]:
    """Return a sentence for each setting that begins to act after the end of the run."""
    begins = {
        "proxy": (config.proxy == "learned", "switch_iters"),
        "self_train": (config.self_train != "none", "self_train_iters"),
    }

    said = []
    for name, (chosen, start) in begins.items():
        late = getattr(config, start) >= config.max_iters
        if config.stages == "all" and chosen and late:
            said.append(
                f"note: --{name} {getattr(config, name)} never acts, as it begins after iteration "
                f"{getattr(config, start)}; set --{start}"
            )
    return said


def cpu_time(config: Config, training: Split) -> str:
    """Return how long a training of full size takes on this CPU; "" for the toy, short ones and
    pseudo labels that are made without.
    """
    if not config.full_size or config.stages == "seeds":
        return ""
    seconds = 0.0
    if config.stages == "all":
        images = config.max_iters * config.batch_size
        seconds += images * STAGE_2_SECONDS * (config.crop_size / 320) ** 2
    if config.branches != "clip" and not config.mct_path:
        images = config.mct_epochs * len(training.tagged())
        each = STAGE_1_SECONDS + STAGE_1_SECONDS_PER_CLASS * training.tags.classes
        seconds += images * each * (config.mct_crop_size / 320) ** 2

    threads = torch.get_num_threads() * processes_here()
    seconds *= 2 / threads
    if not uses_bf16(torch.device("cpu"), config.precision):
        seconds *= FP32_FACTOR
    if seconds < WORTH_TELLING:
        return ""

    time = f"{seconds / 3600:.0f} hours"
    if seconds >= 86400:
        time = f"{seconds / 86400:.1f} days"
    return (
        f"on a CPU this takes about {time} (threads: {threads}; scaled from the two cores of "
        "utils/tools/benchmark/README.md); a GPU takes hours"
    )
