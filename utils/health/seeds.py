"""CLIP's seeds of some training images against published ones of all of them."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from clip.loader import load_clip
from clip.text import text_features
from datasets.lists import Items
from datasets.scoring import scored_images
from utils.build import build_cvf
from utils.common.device import choose_device
from utils.common.options import Role
from utils.common.progress import progress
from utils.config import Config, load_config, names_of, values_of
from utils.health.findings import OK, SUSPICIOUS, UNKNOWN, WRONG, Finding, stated, suiting
from utils.inference.evaluation import masked_loader
from utils.inference.seeds import image_seeds
from utils.metrics import CAMS, TITLES, ConfusionMatrix
from utils.references import Reference
from utils.resampling import bounds
from utils.splits import dataset_spec, image_tags, split_items

SEEDS_OF = "train"
# Shares of such subsets whose bounds hold the number of all images.
LIKELY = 0.95  # outside of these bounds a seed is suspicious
CERTAIN = 0.999  # outside of these it is wrong


def seed_config(config: Config, reference: Reference) -> Config:
    """Return the settings that a number of CLIP's seeds was made with, on this run's files and
    machine. What comes after the seeds is left out.
    """
    own = values_of(config, names_of(Role.PLACE, Role.MACHINE))
    return replace(
        load_config(reference.recipe),
        **{**own, "on_bad_image": "stop"},
        branches="clip",
        stages="seeds",
        par_iterations=0,
        seed_refinement="par",
    )


def seed_findings(config: Config, most: int, say: Callable[[str], None]) -> list[Finding]:
    """Score CLIP's CAMs and seeds of an evenly spread subset of the training images."""
    seed = TITLES["clip"]
    references = suiting(seed, SEEDS_OF, config)
    if not references:
        said = f"not scored, as no source has them for {config.dataset} and this CLIP"
        return [Finding(UNKNOWN, seed, said)]

    settings = seed_config(config, references[0])
    images = split_items(settings, SEEDS_OF)
    chosen = scored_images(SEEDS_OF, images, most)
    if not len(chosen):
        return [Finding(WRONG, seed, f"no image of {SEEDS_OF} has a mask to score it with")]

    items = images.at(chosen.places)
    matrices = seed_matrices(settings, items, say)
    findings = []
    for title, parts in matrices.items():
        found = suiting(title, SEEDS_OF, config)
        findings.append(seed_finding(f"{title} ({chosen.label}, {len(items)})", parts, found))
    return findings


def seed_matrices(
    config: Config, items: Items, say: Callable[[str], None]
) -> dict[str, list[ConfusionMatrix]]:
    """Return the confusion of CLIP's CAMs and seeds with the mask of each image, by title."""
    device = choose_device(config.device)
    spec = dataset_spec(config)
    tags = image_tags(config, spec, items, SEEDS_OF)
    clip = load_clip(config.clip_path, config.clip_activation)
    text = text_features(clip, spec.texts(), None)
    model = build_cvf(config, clip, text, None, len(spec.classes)).to(device).eval()
    power = config.background_power_clip
    titled = {CAMS["clip"]: "cams", TITLES["clip"]: "scores"}

    matrices: dict[str, list[ConfusionMatrix]] = {title: [] for title in titled}
    loader = progress(masked_loader(items, config), config.quiet, desc="seeds", leave=False)
    for done, sample in enumerate(loader):
        start = time.perf_counter()
        own = torch.from_numpy(tags[sample["index"]])
        seeds = image_seeds(model, sample["image"], own, config)
        for title, kind in titled.items():
            matrix = ConfusionMatrix(len(spec.classes) + 1)
            labels = seeds.labels(getattr(seeds, kind)["clip"], power)
            matrix.update(labels.cpu(), sample["mask"])
            matrices[title].append(matrix)

        if device.type == "cpu" and done == 1:  # much is made ready in the first
            minutes = (time.perf_counter() - start) * len(items) / 60
            say(
                f"the seeds of {len(items)} images take about {minutes:.1f} minutes on this CPU; "
                "--no_seeds leaves them out"
            )
    return matrices


def seed_finding(
    what: str, matrices: Sequence[ConfusionMatrix], references: Sequence[Reference]
) -> Finding:
    """Compare the mIoU of some images with a number for all of them, by resampling."""
    low, high = (100 * end for end in bounds(matrices, LIKELY))
    miou = ConfusionMatrix.sum_of(matrices).miou()
    found = f"{100 * miou:.1f}, {LIKELY:.0%} within {low:.1f} to {high:.1f}"
    if not references:
        return Finding(UNKNOWN, what, found)

    reference = references[0]
    verdict = OK
    if not meets((low, high), reference.band):
        wide = tuple(100 * end for end in bounds(matrices, CERTAIN))
        verdict = SUSPICIOUS if meets(wide, reference.band) else WRONG
    return Finding(verdict, what, found, stated(reference))


def meets(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Tell whether two ranges have a number in common."""
    return one[0] <= other[1] and other[0] <= one[1]
