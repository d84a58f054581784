"""One source of settings: dataclass defaults < YAML < command line. The effective one is saved with
each run.
"""

import argparse
import reprlib
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

from utils.common.entry import parse_bool
from utils.common.errors import UserError, nearest
from utils.common.files import write_whole

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
LARGEST = 2**63  # of numbers: seeds and sizes beyond are refused by PyTorch, NaN is no setting
# given for the full run; follow --max_iters
SCALED = (
    "warmup_iters",
    "switch_iters",
    "eval_every",
)
BETWEEN_VALIDATIONS = 100  # iterations at least, lest a short trial spend its time on validation


def _option(default: Any, group: str, text: str, choices: tuple[str, ...] | None = None) -> Any:
    meta = {"group": group, "help": text, "choices": choices}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=meta)
    return field(default=default, metadata=meta)


@dataclass(frozen=True)
class Config:
    """Every setting of a run. Each field is a YAML key and a command line flag of the same name."""

    dataset: str = _option("voc", "data", "class list and folder layout", ("voc", "coco", "custom"))
    data_root: str = _option("VOCdevkit/VOC2012", "data", "folder of the data set")
    train_split: str = _option(
        "train_aug", "data", "list of training images: a name in the data set, or a file"
    )
    val_split: str = _option(
        "val", "data", "list of validation images: a name in the data set, or a file"
    )
    classes: str = _option(
        "", "data", "class list (YAML) of a custom data set; empty: classes.yaml in data_root"
    )
    tags: str = _option(
        "", "data", "tags file (JSON); empty: tags are made from the data set's own annotations"
    )
    crop_size: int = _option(320, "data", "side of a training crop, px, a multiple of 16")
    train_long: int = _option(
        0,
        "data",
        "longer side that larger training images are shrunk to before the rescaling, px; 0: they "
        "stay",
    )
    scale_min: float = _option(0.5, "data", "smallest random rescaling of a training image")
    scale_max: float = _option(2.0, "data", "largest random rescaling of a training image")
    on_bad_image: str = _option(
        "stop",
        "data",
        "an unreadable picture ends the run, or is skipped and counted",
        ("stop", "skip"),
    )
    statistics: str = _option(
        "imagenet", "data", "mean and deviation that normalise images", ("imagenet", "clip")
    )

    clip_path: str = _option(
        "weights/ViT-B-16.pt", "weights", "CLIP weights; `toy` is the toy CLIP in this repository"
    )
    deit_path: str = _option(
        "weights/deit_small_patch16_224-cd65a155.pth",
        "weights",
        "ImageNet weights the class-token ViT starts from",
    )
    mct_path: str = _option(
        "",
        "weights",
        "trained class-token ViT (MCTformer V2, MCTformer+ or a classifier.pt of this project); "
        "given, stage 1 is skipped",
    )
    init: str = _option(
        "auto",
        "weights",
        "start of the class-token ViT; auto: deit, beside the toy CLIP clip_visual",
        ("auto", "deit", "clip_visual"),
    )

    branches: str = _option(
        "fusion", "method", "which branches make labels and logits", ("clip", "vit", "fusion")
    )
    cam_block: int = _option(
        -1, "method", "CLIP block whose first LayerNorm Grad-CAM reads; -1 is the last"
    )
    early_maps: int = _option(
        8, "method", "last CLIP attention maps averaged before the switch-over"
    )
    late_maps: int = _option(
        6, "method", "last CLIP attention maps selected from after the switch-over"
    )
    skipped_maps: int = _option(0, "method", "last CLIP attention maps left out of both")
    box_threshold: float = _option(
        0.4, "method", "share of a CAM's peak that counts as a strong region, 0..1"
    )
    par_iterations: int = _option(20, "method", "rounds of pixel-adaptive refinement")
    radius: int = _option(
        8, "method", "affinity is supervised between patches at most this far apart, patches"
    )
    label_fusion: str = _option(
        "scores", "method", "how the branches' pseudo labels are joined", ("scores", "max_id")
    )
    background_power_clip: float = _option(
        1.0, "method", "background score of CLIP CAMs is (1 - max)^power"
    )
    background_power_vit: float = _option(
        1.0, "method", "background score of ViT CAMs is (1 - max)^power"
    )
    background_power_fused: float = _option(
        1.0, "method", "background score of fused CAMs is (1 - max)^power"
    )
    propagation_mask: str = _option(
        "none",
        "method",
        "box mask under which ViT CAMs are propagated; published: last_class",
        ("none", "last_class"),
    )
    vit_map: str = _option(
        "scaled",
        "method",
        "scale of the ViT's attention map; published: summed",
        ("scaled", "summed"),
    )
    vit_map_block: int = _option(
        0, "method", "ViT block that the map comes from, 1 is the first; 0: the sum of all"
    )
    map_selection: str = _option(
        "fit", "method", "late selection of maps; published: mass", ("fit", "mass")
    )
    clip_box_edges: bool = _option(
        False, "method", "boxes leave out the last row and column; published: true"
    )
    affinity_labels: str = _option(
        "combined", "method", "labels that supervise affinity", ("combined", "clip")
    )
    ignore_padding: bool = _option(
        True, "method", "padding of a crop is label 255; published: false (background)"
    )
    decoder_width: int = _option(256, "method", "channels of the fused features and the decoder")
    decoder_layers: int = _option(3, "method", "transformer layers of the decoder")
    wide_width: int = _option(512, "method", "channels of the wide-view head on the ViT (LargeFOV)")
    vit_logit_scale: float = _option(1.0, "method", "factor on class-token logits in stage 1")

    mct_streams: int = _option(
        2, "stage 1: class-token ViT", "patch sizes: 1, 16 px as MCTformer+, or 2, 32 px too"
    )
    mct_epochs: int = _option(45, "stage 1: class-token ViT", "epochs over the training images")
    mct_batch_size: int = _option(32, "stage 1: class-token ViT", "global batch, images")
    mct_lr: float = _option(
        5e-4, "stage 1: class-token ViT", "learning rate for a batch of 512 images"
    )
    mct_crop_size: int = _option(
        320, "stage 1: class-token ViT", "side of a training crop, px, a multiple of 16"
    )
    mct_head_lr_factor: float = _option(
        1.0, "stage 1: class-token ViT", "learning rate of new tensors, relative"
    )

    max_iters: int = _option(
        30000, "stage 2: CVF", "iterations; warm-up, switch-over and validation scale with it"
    )
    batch_size: int = _option(4, "stage 2: CVF", "global batch, images, over all processes")
    lr: float = _option(2e-4, "stage 2: CVF", "learning rate of the decoder")
    vit_lr_factor: float = _option(
        0.1, "stage 2: CVF", "learning rate of the class-token ViT, relative to --lr"
    )
    weight_decay: float = _option(0.01, "stage 2: CVF", "AdamW weight decay, both stages")
    warmup_iters: int = _option(
        1500, "stage 2: CVF", "iterations of linear warm-up (of the full run)"
    )
    switch_iters: int = _option(
        20000, "stage 2: CVF", "iteration from which affinity is selected (of the full run)"
    )
    schedule: str = _option(
        "continuous", "stage 2: CVF", "learning rate over time", ("continuous", "published")
    )
    train_vit: bool = _option(
        True, "stage 2: CVF", "the ViT branch and the mixing weight learn; published: false"
    )
    w_attn: float = _option(0.1, "stage 2: CVF", "weight of the affinity loss")
    w_pat: float = _option(0.1, "stage 2: CVF", "weight of the patch loss")

    eval_every: int = _option(
        3000,
        "evaluation",
        "iterations between validations (of the full run; at least 100 in a shorter one)",
    )
    eval_seeds: bool = _option(
        False,
        "evaluation",
        "also score CLIP, ViT and fused seeds and pseudo labels with train masks",
    )
    eval_images: int = _option(
        0, "evaluation", "at most this many images in each evaluation during training; 0: all"
    )
    resize_long: int = _option(512, "evaluation", "long side of a test image, px")
    scales: list[float] = _option(
        [1.0, 0.75], "evaluation", "test scales; the first is the single scale"
    )
    pad_images: bool = _option(
        True,
        "evaluation",
        "test images are padded to whole patches; published: false (the rest is not seen)",
    )

    work_dir: str = _option("runs/cvf", "run", "folder of this run")
    device: str = _option("auto", "run", "auto, cpu, cuda or cuda:N")
    precision: str = _option(
        "auto", "run", "auto is bf16 where the device has it", ("auto", "fp32", "bf16")
    )
    workers: int = _option(2, "run", "data loading processes; 0 loads in the training process")
    threads: int = _option(0, "run", "CPU threads of PyTorch; 0: PyTorch's own choice")
    visualise: int = _option(
        0, "run", "training images drawn at each validation, truth where there are masks"
    )
    quiet: bool = _option(
        False, "run", "no progress bars; what training says goes to train.log alone"
    )
    seed: int = _option(0, "run", "all randomness follows from it")
    log_every: int = _option(20, "run", "iterations between log lines")
    checkpoint_every: int = _option(500, "run", "iterations between checkpoints")
    keep: int = _option(1, "run", "checkpoints kept of each stage, the newest")


def field_types() -> dict[str, type]:
    """Type of each setting; lists are lists of float."""
    return {f.name: type(getattr(Config(), f.name)) for f in fields(Config)}


def short(value: Any) -> str:
    """`repr`, cut: in YAML a few bytes can stand for a value that fills the memory when written
    out.
    """
    return reprlib.repr(value)[:120]


def read_yaml(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Settings of a YAML file, after those of the file it names as `base` (a path relative to
    itself).

    `above` are the files that led here. Raises UserError on a file that is missing, malformed or
    its own base.
    """
    if path.resolve() in above:
        raise UserError(f"--config {path} is its own base; remove the line `base`")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        raise UserError(f"--config {path} does not exist; configs/ holds the ready ones") from None
    except (
        yaml.YAMLError,
        ValueError,
        RecursionError,
        OSError,
    ) as error:  # ValueError: no such date, no UTF-8
        raise UserError(
            f"--config {path} is not readable YAML: {' '.join(str(error).split())[:160]}"
        ) from None
    if not isinstance(content, dict):
        raise UserError(f"--config {path} must hold `key: value` lines")
    base = content.pop("base", "")
    if not isinstance(base, str):
        raise UserError(f"--config {path} has the base {short(base)}; name a file")
    for key in content:
        if key not in field_types():
            raise UserError(
                f"--config {path} has an unknown key "
                f"{key}{nearest(str(key), field_types()) or '; remove it'}"
            )
    return {**(read_yaml(path.parent / base, (*above, path.resolve())) if base else {}), **content}


def load_config(path: str | Path, overrides: dict[str, Any] | None = None) -> Config:
    """Defaults, then the YAML file, then overrides (field -> value). Raises UserError on bad keys
    or values.

    When max_iters is overridden, the settings in SCALED keep their share of the run unless
    overridden themselves.
    """
    full, overrides = validated(from_dict(read_yaml(Path(path)), str(path))), dict(overrides or {})
    if overrides.get("max_iters", full.max_iters) != full.max_iters:
        scaled = {
            key: round(getattr(full, key) * overrides["max_iters"] / full.max_iters)
            for key in SCALED
        }
        scaled["eval_every"] = max(scaled["eval_every"], min(full.eval_every, BETWEEN_VALIDATIONS))
        overrides = {**scaled, **overrides}
    return validated(from_dict({**asdict(full), **overrides}, str(path)))


def from_dict(values: dict[str, Any], source: str) -> Config:
    """Config from plain values, each checked against its field's type and choices."""
    kinds, choices = field_types(), {f.name: f.metadata["choices"] for f in fields(Config)}
    checked = {}
    for key, value in values.items():
        if key not in kinds:
            raise UserError(
                f"{source} has an unknown key {key}{nearest(str(key), kinds) or '; remove it'}"
            )
        kind = kinds[key]
        try:
            fraction = kind is int and isinstance(value, float) and not value.is_integer()
            nested = kind is not list and isinstance(value, list | dict)
            if isinstance(value, bool) != (kind is bool) or value is None or fraction or nested:
                raise ValueError
            checked[key] = [float(v) for v in value] if kind is list else kind(value)
            numbers = (
                checked[key] if kind is list else [checked[key]] if kind in (int, float) else []
            )
            if not all(abs(number) < LARGEST for number in numbers):
                raise ValueError
        except (TypeError, ValueError, OverflowError):
            raise UserError(
                f"{source}: {key} is {short(value)}; it must be of type {kind.__name__}"
            ) from None
        if choices[key] and checked[key] not in choices[key]:
            raise UserError(f"{source}: {key} is {value!r}; choose from {', '.join(choices[key])}")
    return Config(**checked)


_AT_LEAST_1 = (
    "mct_streams",
    "max_iters",
    "batch_size",
    "mct_batch_size",
    "resize_long",
    "log_every",
    "checkpoint_every",
    "decoder_width",
    "early_maps",
    "late_maps",
    "radius",
    "keep",
    "wide_width",
)
_NOT_NEGATIVE = (
    "workers",
    "threads",
    "mct_epochs",
    "eval_images",
    "visualise",
    "seed",
    "par_iterations",
    "decoder_layers",
    "train_long",
    "skipped_maps",
    "warmup_iters",
    "lr",
    "vit_lr_factor",
    "weight_decay",
    "mct_lr",
    "mct_head_lr_factor",
    "background_power_clip",
    "background_power_vit",
    "background_power_fused",
)

_AT_MOST = {"decoder_width": 2**16, "wide_width": 2**16, "decoder_layers": 100, "mct_streams": 2}


def validated(config: Config) -> Config:
    """Refuse settings that cannot work, one sentence each."""
    for name in ("crop_size", "mct_crop_size"):
        size = getattr(config, name)
        if size % 16 or size < 32:
            near = max(32, size // 16 * 16)
            raise UserError(
                f"--{name} {size} is not a multiple of patch 16; use {near} or {near + 16}"
            )
    for name in _AT_LEAST_1:
        if getattr(config, name) < 1:
            raise UserError(f"--{name} {getattr(config, name)} must be at least 1")
    for name in _NOT_NEGATIVE:
        if getattr(config, name) < 0:
            raise UserError(f"--{name} {getattr(config, name)} must not be negative")
    for name, most in _AT_MOST.items():
        if getattr(config, name) > most:
            raise UserError(f"--{name} {getattr(config, name)} must be at most {most}")
    if config.classes and config.dataset != "custom":
        raise UserError(
            f"--classes {config.classes} is for --dataset custom; {config.dataset} has its own "
            "classes"
        )
    if config.decoder_width % 8:
        raise UserError(
            f"--decoder_width {config.decoder_width} is not a multiple of the decoder's 8 heads; "
            "use 256"
        )
    if not config.scales or min(config.scales) <= 0:
        raise UserError(f"--scales {config.scales} must be one or more positive numbers")
    if not 0 <= config.box_threshold <= 1:
        raise UserError(f"--box_threshold {config.box_threshold:g} must lie between 0 and 1")
    if not 0 < config.scale_min <= config.scale_max:
        raise UserError(
            f"--scale_min {config.scale_min} must be positive and at most --scale_max "
            f"{config.scale_max}"
        )
    return replace(config, eval_every=max(1, config.eval_every))


def as_yaml(config: Config) -> str:
    """The effective configuration as YAML that `--config` accepts."""
    return yaml.safe_dump(asdict(config), sort_keys=False, allow_unicode=True)


def save_config(config: Config, path: Path) -> None:
    """Write the effective configuration as YAML that `--config` accepts, whole or not at all."""
    write_whole(path, as_yaml(config).encode())


def add_config_flags(
    parser: argparse.ArgumentParser,
    only: Collection[str] | None = None,
    defaults: Mapping[str, str] | None = None,
) -> None:
    """One flag a Config field (of those in `only`), grouped; absent flags stay out of the
    namespace.

    `defaults`: by field, where an absent flag's value comes from, in words, if not from `Config`
    itself.
    """
    groups: dict[str, Any] = {}
    for f in fields(Config):
        if only is not None and f.name not in only:
            continue
        group, value = f.metadata["group"], getattr(Config(), f.name)
        if group not in groups:
            groups[group] = parser.add_argument_group(group)
        text = (
            f"{f.metadata['help']} (default: {(defaults or {}).get(f.name, _shown(value))})"
        ).replace("%", "%%")
        options: dict[str, Any] = {
            "help": text,
            "default": argparse.SUPPRESS,
            "choices": f.metadata["choices"],
        }
        if isinstance(value, bool):
            options |= {"type": parse_bool, "nargs": "?", "const": True, "metavar": "true|false"}
        elif isinstance(value, list):
            options |= {"type": float, "nargs": "+", "metavar": "X"}
        else:
            options |= {"type": type(value)}
            if not f.metadata["choices"]:
                options["metavar"] = {int: "N", float: "X", str: "TEXT"}[type(value)]
        groups[group].add_argument(f"--{f.name}", **options)


def _shown(value: Any) -> str:
    """A default as one would type it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return " ".join(f"{item:g}" for item in value)
    return str(value) if value != "" else "none"
