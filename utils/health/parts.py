"""What a run would read and execute on: weights, device, lists, masks and tags."""

from pathlib import Path

import torch

from clip.loader import TOY_CLIP, load_clip
from datasets.mask_signs import refuse_suspicious
from utils.build import build_dino, build_vit
from utils.common.device import choose_device, used_precision
from utils.common.files import sha256_of
from utils.common.gpu import DRIVERS_PAGE, OLDEST_DRIVER, find_driver, unusable_gpu
from utils.common.safe_tensors import open_tensors, read_tensors
from utils.common.weights import find_weights, known_by
from utils.config import Config
from utils.health.findings import OK, SUSPICIOUS, UNKNOWN, WRONG, Finding, counted, stated, suiting
from utils.splits import dataset_spec, image_tags, split_items, split_masks


def clip_findings(config: Config) -> list[Finding]:
    """Look at the CLIP: whose file it is, and its numbers."""
    path = TOY_CLIP
    if config.clip_path != "toy":
        path = find_weights(config.clip_path, "--clip_path")
    clip = load_clip(config.clip_path, config.clip_activation)
    tensors = len(open_tensors(path, "--clip_path"))
    parameters = sum(tensor.numel() for tensor in clip.parameters())
    values = {
        "CLIP tensors": tensors,
        "CLIP parameters": parameters,
        "CLIP scale": float(clip.logit_scale.exp()),
    }

    findings = [file_finding("CLIP file", path)]
    for name, value in values.items():
        findings.append(counted(name, value, suiting(name, "weights", config, of_data=False)))
    return findings


def file_finding(what: str, path: Path) -> Finding:
    """Say whether a weights file is one that is published. Another form of it is not known."""
    public = known_by(sha256_of(path))
    if public is None:
        return Finding(UNKNOWN, what, f"{path}, of no SHA-256 known here")
    address = public.address or "shipped with this project"
    return Finding(OK, what, f"{path}, its SHA-256", f"that of {public.name} ({address})")


def vit_findings(config: Config) -> list[Finding]:
    """Look at the weights that the class-token ViT starts from, or that take its place."""
    if config.branches == "clip":
        return []
    path = _vit_file(config)
    spec = dataset_spec(config)
    clip = load_clip(config.clip_path, config.clip_activation)
    build_vit(config, clip, len(spec.classes))  # raises UserError where they do not fit

    if path is None:
        return [Finding(UNKNOWN, "class-token ViT", "starts from the image tower of CLIP")]
    if config.mct_path:
        return [Finding(UNKNOWN, "class-token ViT", f"{path} can be used")]
    return [file_finding("DeiT file", path)]


def _vit_file(config: Config) -> Path | None:
    """Return the file that the class-token ViT comes or starts from, None for CLIP's tower. Raises
    UserError where it cannot be read, whether there is a CLIP or not.
    """
    flag = "mct_path"
    if not config.mct_path:
        if config.starts_from_clip:
            return None
        flag = "deit_path"

    path = find_weights(getattr(config, flag), f"--{flag}")
    read_tensors(path, f"--{flag}")
    return path


def dino_findings(config: Config) -> list[Finding]:
    """Look at the weights of the second backbone, if there is one."""
    if build_dino(config) is None:  # raises UserError where the file does not fit
        return []
    return [file_finding("DINO file", find_weights(config.dino_path, "--dino_path"))]


def device_findings(config: Config) -> list[Finding]:
    """Look at what the run would execute on: the GPU, its driver, and the precision."""
    if (said := unusable_gpu()) and config.device != "cpu":
        return [Finding(WRONG, "device", said, f"a driver that fits ({DRIVERS_PAGE})")]

    device = choose_device(config.device)
    precision = used_precision(device, config.precision)
    findings = [Finding(UNKNOWN, "device", f"{device} in {precision}")]
    driver = None
    if device.type == "cuda":
        driver = find_driver()

    built = torch.version.cuda
    if driver and built and int(built.split(".")[0]) in OLDEST_DRIVER:
        needed = OLDEST_DRIVER[int(built.split(".")[0])]
        fits = not driver.trouble and driver.major >= needed
        found = f"{driver.version or driver.trouble}, torch {torch.__version__} for CUDA {built}"
        expected = f"{needed} or newer ({DRIVERS_PAGE})"
        verdict = OK if fits else SUSPICIOUS
        findings.append(Finding(verdict, "driver", found, expected))

    return findings


def split_findings(config: Config, split: str) -> list[Finding]:
    """Count the images of a list."""
    images = split_items(config, split)
    return [counted(f"images of {split}", len(images), suiting("images", split, config))]


def mask_findings(config: Config, split: str) -> list[Finding]:
    """Count the masks of a list: each image should have one, where a source counts them."""
    images = split_items(config, split)
    found = split_masks(config, split, images)
    spec = dataset_spec(config)
    refuse_suspicious(images, len(spec.classes), config.on_bad_image == "stop")
    references = suiting("images", split, config)
    if not references:
        return [Finding(UNKNOWN, f"masks of {split}", found)]

    masks = sum(item.mask is not None for item in images)
    if masks == len(images):
        return [Finding(OK, f"masks of {split}", found)]
    verdict = SUSPICIOUS if masks else WRONG
    return [Finding(verdict, f"masks of {split}", found, stated(references[0]))]


def tag_findings(config: Config) -> list[Finding]:
    """Look for the tags of the training images."""
    spec = dataset_spec(config)
    tags = image_tags(config, spec, split_items(config, config.train_split))
    tagged = int(tags.any(1).sum())
    found = f"{tagged:,} of {len(tags):,} images have some, {tags.sum() / max(1, tagged):.2f} each"
    return [Finding(UNKNOWN, f"tags of {config.train_split}", found)]
