"""A whole training: the class-token ViT from tags (stage 1, `classifier`), then the segmentation
from both branches' pseudo labels (stage 2).
"""

import shlex
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from clip.loader import load_clip
from clip.model import CLIP
from clip.text import text_features
from datasets.data import Batch, Split, TaggedImages
from datasets.specs import DatasetSpec
from model.class_token_vit import ClassTokenViT
from model.criterion import criterion
from model.cvf import CVF
from model.dino import DinoViT
from model.noise import Noise
from utils.build import build_cvf, build_dino, build_vit, testing_script
from utils.common import distributed
from utils.common.claim import claimed
from utils.common.device import choose_device, prepare_torch
from utils.common.files import make_folder
from utils.common.gpu import check_gpu
from utils.config import Config
from utils.recipe import LossesBeside, references_of
from utils.report.line import report_line
from utils.run_folder.bad_images import BAD_IMAGES, bad_images
from utils.run_folder.checkpoint import (
    checkpoint_of,
    clip_facts,
    dino_facts,
    portable,
    save_checkpoint,
    trained_state,
)
from utils.run_folder.recorder import Recorder
from utils.run_folder.resuming import check_checkpoints, check_folder
from utils.settings.training import Stage2Settings
from utils.splits import dataset_spec, training_data
from utils.training.classifier import tagged_validation, train_classifier
from utils.training.loop import run_stage
from utils.training.optim import adamw, is_any, is_matrix, schedule
from utils.training.plan import Data, check_batches, check_stages, plan, read_data
from utils.training.pseudo_masks import make_pseudo_masks
from utils.training.rehearsal import rehearse
from utils.training.run import Run, Stage
from utils.training.validation import report

FINAL = "final.pt"
Losses = Callable[[CVF, Tensor, Batch, int, Config], dict[str, Tensor]]


def train(
    config: Config,
    resume: bool = False,
    crops: Callable[..., TaggedImages] = TaggedImages,
    losses: Losses | None = None,
) -> Path:
    """Do the whole training of one configuration, up to where `stages` ends it; returns the path of
    what it yields: the final checkpoint, that of stage 1, or the folder of the pseudo labels.

    `crops` and `losses` replace the training samples and the loss of stage 2 (training on labels
    that are given does, a row of `utils.tools.compare_methods`).
    """
    warning = check_gpu(config.device, config.full_size)
    rank, world, local = distributed.start(config.device)
    prepare_torch(config.threads)
    device = choose_device(config.device, local)
    folder = Path(config.work_dir)
    check_folder(folder, config, resume)
    check_batches(config, world)
    check_stages(config)

    spec = dataset_spec(config)
    found = read_data(config, spec)
    clip = load_clip(config.clip_path, config.clip_activation)
    vit = None if config.branches == "clip" else build_vit(config, clip, len(spec.classes))
    dino = build_dino(config)
    facts = _facts(spec, found.training, clip, vit, dino)

    make_folder(folder)
    with claimed(folder):
        unchecked = check_checkpoints(folder, config, facts)
        facts["text"] = text = text_features(clip, spec.texts(), folder)
        if config.clip_path == "toy":
            facts["clip"] = clip.state_dict()

        run = Run(config, device, rank, world, folder, Recorder(folder, config, device), facts)
        if unchecked:
            run.recorder.say(unchecked)
        if warning:
            run.recorder.say(warning)
        run.recorder.say(plan(config, spec, found, device))

        model = build_cvf(config, clip, text, vit, len(spec.classes), dino).to(device)
        data = training_data(found.training, config, config.crop_size, crops)
        evaluate = partial(report, model, found.training, found.evaluation, run)
        stage_2 = partial(
            segmenter_stage, model, data, losses or pseudo_label_losses, run, evaluate
        )
        final = train_stages(model, spec, found, stage_2, run)
        say_results(run, final)
    distributed.stop()
    return final


def train_stages(
    model: CVF, spec: DatasetSpec, found: Data, stage_2: Callable[[], Stage], run: Run
) -> Path:
    """Run the stages that the settings ask for; returns the path of what they yield, as `train`.

    stage_2: makes stage 2, which freezes what does not learn in it.
    """
    config = run.config
    if config.stages == "seeds":
        return make_pseudo_masks(model, found.training, run)

    if config.stages == "all":
        rehearse(stage_2, model, found.evaluation, run)
    if model.vit is not None and not config.mct_path:
        validation = tagged_validation(config, spec, found.validation, run)
        train_classifier(model.vit, found.training, run, validation)
    if config.stages == "all":
        return train_segmenter(stage_2(), run)

    # only the ViT was trained: score the seeds that stage 2 would begin with
    run.recorder.rewind("evaluation", -1)
    report(model, found.training, found.evaluation, run, 0)
    return checkpoint_of(run.folder, "classifier")


def _facts(
    spec: DatasetSpec, training: Split, clip: CLIP, vit: ClassTokenViT | None, dino: DinoViT | None
) -> dict[str, Any]:
    """Return what every checkpoint of a run keeps beside settings and tensors, to know them again:
    classes, frozen networks, the ViT's start, images and tags.
    """
    facts = {
        "classes": list(spec.classes),
        **clip_facts(clip),
        **dino_facts(dino),
        "data": training.fingerprint,
    }
    if vit is not None and vit.start:
        facts["vit_start"] = vit.start
    return facts


def say_results(run: Run, final: Path) -> None:
    """Say where the results of a finished training are, and end its records."""
    if bad := len(bad_images(run.folder)):
        run.recorder.say(
            f"{bad} times a picture could not be read and was skipped, see "
            f"{run.folder / BAD_IMAGES}"
        )
    if distributed.is_main():
        run.recorder.say(report_line(run.folder))

    word = shlex.quote(str(final))
    yields = {
        "seeds": f"pseudo labels: {final}",
        "classifier": f"class-token ViT: {final}\nit goes on from there with --mct_path {word}",
        "all": f"checkpoint: {final}\n"
        f"test: python {testing_script(run.config)} --model_path {word}",
    }
    run.recorder.say(yields[run.config.stages])
    run.recorder.close()


def segmenter_stage(
    model: CVF, data: TaggedImages, losses: Losses, run: Run, evaluate: Callable[[int], None]
) -> Stage:
    """Make stage 2, in which the decoder learns pseudo labels that the branches make on the fly
    (model/README.md, "The figure").
    """
    config = run.config
    freeze(model, config)
    decays = is_any if config.decay_vectors else is_matrix

    return Stage(
        name="segmenter",
        module=model,
        optimiser=adamw(rate_groups(model, config), config.weight_decay, decays, config.adam_beta2),
        rate=lambda step: schedule(
            step, config.max_iters, config.warmup_iters, config.schedule == "published"
        ),
        losses=lambda images, batch, step: losses(model, images, batch, step, config),
        data=data,
        iterations=config.max_iters,
        batch_size=config.batch_size,
        evaluate=evaluate,
        beside=LossesBeside(references_of(config), config.train_split, term_weights(config)),
    )


def train_segmenter(stage: Stage, run: Run) -> Path:
    """Run stage 2, and write and evaluate what it yields; returns the path of the checkpoint."""
    config = run.config
    run.forecast.later = 0.0
    run_stage(stage, run)
    final = run.folder / "checkpoints" / FINAL
    if distributed.is_main():
        content = {
            "step": config.max_iters,
            "config": portable(config),
            "model": trained_state(stage.module),
        }
        save_checkpoint({**run.facts, **content}, final)

    if stage.evaluate is not None:
        stage.evaluate(config.max_iters)
    return final


def freeze(model: CVF, config: Stage2Settings) -> None:
    """Exclude from training what has no learning rate, or is left out as published."""
    if model.vit is None:
        return
    if not config.train_vit or config.vit_lr_factor == 0:
        model.vit.requires_grad_(False)
    if not config.train_vit:
        for part in (model.wide, model.alpha):
            if part is not None:
                part.requires_grad_(False)


def rate_groups(model: CVF, config: Stage2Settings) -> list[tuple[list[nn.Parameter], float]]:
    """Return what is trained in stage 2 with its learning rate, tensors of one rate together."""
    rates = {"vit.": config.lr * config.vit_lr_factor}
    rates |= dict.fromkeys(("wide.", "alpha"), config.lr * config.wide_lr_factor)
    groups: dict[float, list[nn.Parameter]] = {}
    late = []  # the ViT comes last, so that the optimiser's states of older runs fit
    for name, tensor in model.named_parameters():
        rate = next((r for prefix, r in rates.items() if name.startswith(prefix)), config.lr)
        if name.startswith("vit."):
            late.append(tensor)
        else:
            groups.setdefault(rate, []).append(tensor)
    found = [(tensors, rate) for rate, tensors in groups.items()]
    return [*found, (late, rates["vit."])]


def term_weights(config: Config) -> dict[str, float]:
    """Return the weight of each loss term of stage 2."""
    return {
        "seg": 1.0,
        "affinity": config.w_attn,
        "patch": config.w_pat,
        "dice": config.w_dice,
        "cross": config.w_cross,
    }


def pseudo_label_losses(
    model: CVF, images: Tensor, batch: Batch, step: int, config: Config
) -> dict[str, Tensor]:
    """Compute the weighted losses of one batch of tagged images (model/README.md, "Losses")."""
    valid = batch["valid"] if config.ignore_padding else None
    noise = Noise.of(config.seed, step, batch["index"], images.device)
    phase = config.phase(step)
    output = model(images, batch["tags"], phase, valid, noise)
    weights = term_weights(config)
    terms = criterion(output, batch["tags"], config.radius, distributed.total, config, phase)
    return {name: weights[name] * term for name, term in terms.items()}
