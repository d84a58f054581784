"""The networks at full size, with random weights: training steps of both stages, a test image."""

import itertools
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip.model import CLIP, VisionTransformer
from clip.resize import resize
from datasets.data import Batch, TaggedImages
from datasets.lists import Item
from datasets.transforms import STATISTICS, normalise
from model.class_token_vit import ClassTokenViT
from model.cvf import CVF
from model.dino import DinoViT
from utils.build import build_cvf
from utils.common.device import autocast
from utils.config import Config
from utils.inference.multi_scale import multi_scale, resize_long
from utils.run_folder.recorder import Recorder
from utils.splits import dataset_spec
from utils.tools.benchmark.rows import Row, Setting, timed, yardstick_of
from utils.tools.benchmark.timing import peak_memory, stages
from utils.training.classifier import classifier_losses, seen_in_training
from utils.training.loop import train_step
from utils.training.optim import adamw
from utils.training.run import Run, Stage
from utils.training.stages import freeze, pseudo_label_losses

STAGES = (
    "CLIP",
    "DINO",
    "ViT",
    "text match",
    "fusion",
    "predicted affinity",
    "decoder",
    "dense read-out",
    "Grad-CAM",
    "affinity",
    "boxes",
    "propagation",
    "PAR",
    "losses",
)
# tags of the images in a training step, in turns; COCO's have 2.9 on average
TAGS = {"coco": (1, 3, 2, 6, 1, 2, 5, 3)}
USUAL_TAGS = (2,)
TEST_SIZE = (375, 500)


def full_size(config: Config, device: torch.device) -> CVF:
    """Build CVF of ViT-B/16, DeiT-S and, with a `dino_path`, which is not read, DINOv2 ViT-S/14;
    random weights.
    """
    torch.manual_seed(config.seed)
    spec = dataset_spec(config)
    clip = CLIP(VisionTransformer(768, 12, 512), 512, 64, 1, vocabulary=1).requires_grad_(False)
    text = F.normalize(torch.randn(len(spec.texts()), 512), dim=1)
    vit = None
    if config.branches != "clip":
        vit = ClassTokenViT(len(spec.classes), streams=config.mct_streams)

    dino = None
    if config.dino_path:
        dino = DinoViT(384, 12, 1536, 14, 37, 0, 6)
    return build_cvf(config, clip, text, vit, len(spec.classes), dino).to(device)


def tag_counts(config: Config, count: int) -> list[int]:
    """Choose how many tags each of `count` images has."""
    return list(itertools.islice(itertools.cycle(TAGS.get(config.dataset, USUAL_TAGS)), count))


def tagged_batch(config: Config, count: int, side: int) -> Batch:
    """Return a batch of `count` pictures of side x side px, as the loader gives it."""
    classes = len(dataset_spec(config).classes)
    tags = torch.zeros(count, classes)
    for image, many in enumerate(tag_counts(config, count)):
        tags[image, (torch.arange(many) * 7 + image) % classes] = 1
    pictures = resize(torch.rand(count, 3, 20, 20) * 255, (side, side))
    return {
        "image": (pictures + 10 * torch.randn_like(pictures)).clamp(0, 255).to(torch.uint8),
        "valid": torch.ones(count, side, side, dtype=torch.bool),
        "tags": tags,
        "index": torch.arange(count),
    }


@dataclass(frozen=True)
class Step:
    """One iteration of a stage of training, to be made again and again: forward, backward and
    update.
    """

    stage: Stage
    run: Run
    batch: Batch

    def __call__(self) -> None:
        train_step(self.stage, self.run, self.batch, 0)


def one_step(module: nn.Module, losses: Callable, batch: Batch, setting: Setting) -> Step:
    """Do an iteration as training does it, of all parameters of a module."""
    optimiser = adamw([(module.parameters(), 1e-5)], setting.config.weight_decay)
    drawn = [Item(f"drawn {number}", Path(), None) for number in batch["index"].tolist()]
    data = TaggedImages(drawn, batch["tags"].numpy(), batch["image"].shape[-1])
    stage = Stage("benchmark", module, optimiser, lambda _: 1.0, losses, data, 1, len(drawn))
    nowhere = cast(Recorder, None)  # a step records nothing
    run = Run(setting.config, setting.device, 0, 1, Path(), nowhere)
    return Step(stage, run, batch)


def segmenter_step(setting: Setting) -> Step:
    """Do one iteration of stage 2."""
    config = setting.config
    model = full_size(config, setting.device).train()
    freeze(model, config)

    def losses(images: Tensor, batch: Batch, step: int) -> dict[str, Tensor]:
        return pseudo_label_losses(model, images, batch, step, config)

    batch = tagged_batch(config, config.batch_size, config.crop_size)
    return one_step(model, losses, batch, setting)


def classifier_step(setting: Setting) -> Step:
    """Do one iteration of stage 1."""
    config = setting.config
    classes = len(dataset_spec(config).classes)
    torch.manual_seed(config.seed)
    vit = ClassTokenViT(classes, input_size=config.mct_crop_size, streams=config.mct_streams)
    vit = vit.to(setting.device).train()

    losses = partial(classifier_losses, seen_in_training(vit, config), config)
    batch = tagged_batch(config, config.mct_batch_size, config.mct_crop_size)
    return one_step(vit, losses, batch, setting)


def measure_step(settings: list[Setting]) -> Iterator[Row]:
    """Measure a training step of stage 2: time, peak memory, and where the time goes."""
    works = [segmenter_step(setting) for setting in settings]
    for setting, work, timing in timed(settings, works):
        c = setting.config
        tags = statistics.mean(tag_counts(c, c.batch_size))
        note = f"batch {c.batch_size}, crop {c.crop_size}, {tags:.1f} tags per image"
        peak = peak_memory(work, setting.device)
        found = stages(work, STAGES, setting.device)
        yield Row("training step", setting.name, timing, note, peak, found, yardstick_of(setting))


def measure_classifier(settings: list[Setting]) -> Iterator[Row]:
    """Measure a training step of stage 1, the class-token ViT."""
    works = [classifier_step(setting) for setting in settings]
    for setting, work, timing in timed(settings, works):
        note = f"batch {setting.config.mct_batch_size}, crop {setting.config.mct_crop_size}"
        yield Row("stage 1 step", setting.name, timing, note, peak_memory(work, setting.device))


def measure_image(settings: list[Setting]) -> Iterator[Row]:
    """Measure the test protocol on one image without the CRF, and its encoders alone."""
    image = normalise(
        torch.randint(0, 256, (1, 3, *TEST_SIZE), dtype=torch.uint8), *STATISTICS["imagenet"]
    )
    models = [full_size(s.config, s.device).eval().requires_grad_(False) for s in settings]
    images = [image.to(s.device) for s in settings]

    def protocol(model: CVF, image: Tensor, setting: Setting) -> None:
        """Test one image as the test protocol does."""
        with torch.no_grad(), autocast(setting.device, setting.config.precision):
            _, multi = multi_scale(
                model.segment, resize_long(image, setting.config.resize_long), setting.config.scales
            )
            resize(multi, TEST_SIZE).argmax(1)

    def encoders(model: CVF, image: Tensor, setting: Setting) -> None:
        """Run the encoders alone, at every scale and mirrored."""

        def every(pixels: Tensor) -> Tensor:
            """Run all encoders once, and return CLIP's patches as a map."""
            if model.vit is not None:
                model.vit.patch_features(pixels)
            if model.dino is not None and model.dino_fusion is not None:
                model.dino.look(pixels)
            return (
                model.clip(pixels)[:, 1:]
                .transpose(1, 2)
                .unflatten(2, [side // 16 for side in pixels.shape[-2:]])
            )

        with torch.no_grad(), autocast(setting.device, setting.config.precision):
            multi_scale(
                every, resize_long(image, setting.config.resize_long), setting.config.scales
            )

    for part, run in (("test image", protocol), ("its encoders alone", encoders)):
        works = [partial(run, *each) for each in zip(models, images, settings)]
        for setting, work, timing in timed(settings, works):
            note = f"{TEST_SIZE[1]} x {TEST_SIZE[0]}, scales {setting.config.scales}, mirrored"
            yield Row(part, setting.name, timing, note, peak_memory(work, setting.device))
