"""Measure what CVF costs on this machine: `python -m utils.tools.benchmark --part step stage1 image
par crf`.

Full-size models with random weights. Two yardsticks are measured in the same minute, so that
figures carry over to other machines: "vit", one ViT-B/16 encoder forward of 4 x 401 tokens in
float32 (arithmetic), and "nbr", 20 rounds of weighted sums over 48 neighbours of 3 x 320 x 320
values, by convolutions (memory). Every setting of a run is a flag, and `--against precision=fp32`
measures a second setting in turns with the first.
"""

import importlib.util
import itertools
import json
import platform
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip.model import CLIP, VisionTransformer
from datasets.classes import spec_of
from datasets.data import Batch, TaggedImages
from datasets.layouts import Item
from datasets.specs import DatasetSpec
from datasets.transforms import normalise
from model.class_token_vit import ClassTokenViT
from model.cvf import CVF
from model.dino import DinoViT
from model.par import refine
from model.resize import resize
from utils.build import STATISTICS, build_cvf
from utils.common.device import autocast, choose_device, prepare_torch, uses_bf16
from utils.common.entry import Parser, command
from utils.common.errors import UserError
from utils.common.options import options
from utils.config import CONFIGS, Config, add_config_flags, from_dict, load_config, typed
from utils.inference.crf import crf
from utils.inference.multi_scale import multi_scale, resize_long
from utils.tools.benchmark.crf_cases import crf_cases
from utils.tools.benchmark.timing import Timing, Work, measure, peak_memory, stages
from utils.training.loop import Run, Stage, train_step
from utils.training.optim import adamw
from utils.training.stages import classifier_losses, pseudo_label_losses

STAGES = (
    "CLIP",
    "DINO",
    "ViT",
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
VIT_GFLOP = 273  # matrix products of "vit", attention itself left out


@dataclass(frozen=True)
class Row:
    """One line of the table; `peak` bytes and `stages` where the part has them.

    yardstick: the one whose matrix products are in the same precision.
    """

    part: str
    setting: str
    timing: Timing
    note: str = ""
    peak: int = 0
    stages: dict[str, dict[str, float]] | None = None
    yardstick: str = "vit"


@dataclass(frozen=True)
class Setting:
    """One setting to measure.

    name, config, device: what runs where, under which name. repeats: measurements per part. images:
    folder of JPEG files for the CRF (None: drawn pictures). model_path: checkpoint whose
    predictions of them the CRF gets (None: random regions).
    """

    name: str
    config: Config
    device: torch.device
    repeats: int
    images: Path | None = None
    model_path: Path | None = None


def _spec(config: Config) -> DatasetSpec:
    return spec_of(config.dataset, config.data_root, config.classes)


def full_size(config: Config, device: torch.device) -> CVF:
    """CVF of ViT-B/16, DeiT-S and, with a `dino_path`, which is not read, DINOv2 ViT-S/14; random
    weights.
    """
    torch.manual_seed(config.seed)
    spec = _spec(config)
    clip = CLIP(VisionTransformer(768, 12, 512), 512, 64, 1, vocabulary=1).requires_grad_(False)
    text = F.normalize(torch.randn(len(spec.texts()), 512), dim=1)
    vit = None
    if config.branches != "clip":
        vit = ClassTokenViT(len(spec.classes), streams=config.mct_streams)
    dino = DinoViT(384, 12, 1536, 14, 37, 0, 6) if config.dino_path else None
    return build_cvf(config, clip, text, vit, len(spec.classes), dino).to(device)


def yardstick_of(setting: Setting) -> str:
    """Return the name of the yardstick in the precision of a setting."""
    half = uses_bf16(setting.device, setting.config.precision)
    return "vit bf16" if half else "vit"


def yardsticks(device: torch.device, repeats: int, half: bool) -> dict[str, Timing]:
    """Seconds of "vit" and "nbr" (module docstring), and if `half` of "vit" in bf16, which takes
    minutes where a processor only emulates it.
    """
    layer = nn.TransformerEncoderLayer(
        768, 12, 3072, dropout=0, activation="gelu", batch_first=True, norm_first=True
    )
    encoder = nn.TransformerEncoder(layer, 12, enable_nested_tensor=False).to(device).eval()
    tokens = torch.randn(4, 401, 768, device=device)
    weights, start = (
        torch.rand(1, 48, 320, 320, device=device),
        torch.rand(3, 1, 320, 320, device=device),
    )
    pick = torch.eye(9, device=device)[[0, 1, 2, 3, 5, 6, 7, 8]].view(8, 1, 3, 3)

    def neighbours() -> None:
        maps = start
        for _ in range(20):
            sides = [
                F.conv2d(F.pad(maps, [d] * 4, mode="replicate"), pick, dilation=d)
                for d in (1, 2, 4, 8, 12, 24)
            ]
            maps = (torch.cat(sides, 1) * weights).sum(1, keepdim=True) / 48

    def encoder_in_half() -> None:
        with torch.autocast(device.type, torch.bfloat16):
            encoder(tokens)

    with torch.no_grad():
        works = {"vit": lambda: encoder(tokens), "nbr": neighbours}
        if half:
            works["vit bf16"] = encoder_in_half
        return dict(zip(works, measure(list(works.values()), repeats, device)))


def tag_counts(config: Config, count: int) -> list[int]:
    """How many tags each of `count` images has."""
    return list(itertools.islice(itertools.cycle(TAGS.get(config.dataset, USUAL_TAGS)), count))


def tagged_batch(config: Config, count: int, side: int) -> Batch:
    """A batch of `count` pictures of side x side px, as the loader gives it."""
    classes = len(_spec(config).classes)
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


def one_step(module: nn.Module, losses: Callable, batch: Batch, setting: Setting) -> Work:
    """Forward, backward and update, as training does them."""
    optimiser = adamw([(module.parameters(), 1e-5)], setting.config.weight_decay)
    drawn = [Item(f"drawn {number}", Path(), None) for number in batch["index"].tolist()]
    data = TaggedImages(drawn, batch["tags"].numpy(), batch["image"].shape[-1])
    stage = Stage("benchmark", module, optimiser, lambda _: 1.0, losses, data, 1, len(drawn))
    run = Run(setting.config, setting.device, 0, 1, Path(), None)
    return lambda: train_step(stage, run, batch, 0)


def segmenter_step(setting: Setting) -> Work:
    """One iteration of stage 2."""
    config = setting.config
    model = full_size(config, setting.device).train()

    def losses(images: Tensor, batch: Batch, step: int) -> dict[str, Tensor]:
        return pseudo_label_losses(model, images, batch, step, config)

    batch = tagged_batch(config, config.batch_size, config.crop_size)
    return one_step(model, losses, batch, setting)


def classifier_step(setting: Setting) -> Work:
    """One iteration of stage 1."""
    config = setting.config
    classes = len(_spec(setting.config).classes)
    torch.manual_seed(config.seed)
    vit = ClassTokenViT(classes, input_size=config.mct_crop_size, streams=config.mct_streams)
    vit = vit.to(setting.device).train()

    def losses(images: Tensor, batch: Batch, step: int) -> dict[str, Tensor]:
        return classifier_losses(vit, images, batch, step, config)

    return one_step(
        vit, losses, tagged_batch(config, config.mct_batch_size, config.mct_crop_size), setting
    )


def measure_step(settings: list[Setting]) -> Iterator[Row]:
    """Training step of stage 2: time, peak memory, and where the time goes."""
    works = [segmenter_step(setting) for setting in settings]
    for setting, work, timing in _timed(settings, works):
        c = setting.config
        tags = statistics.mean(tag_counts(c, c.batch_size))
        note = f"batch {c.batch_size}, crop {c.crop_size}, {tags:.1f} tags per image"
        peak = peak_memory(work, setting.device)
        found = stages(work, STAGES, setting.device)
        yield Row("training step", setting.name, timing, note, peak, found, yardstick_of(setting))


def measure_classifier(settings: list[Setting]) -> Iterator[Row]:
    """Training step of stage 1, the class-token ViT."""
    works = [classifier_step(setting) for setting in settings]
    for setting, work, timing in _timed(settings, works):
        note = f"batch {setting.config.mct_batch_size}, crop {setting.config.mct_crop_size}"
        yield Row("stage 1 step", setting.name, timing, note, peak_memory(work, setting.device))


def measure_image(settings: list[Setting]) -> Iterator[Row]:
    """Test protocol on one image without the CRF, and the forwards of its encoders alone."""
    image = normalise(
        torch.randint(0, 256, (1, 3, *TEST_SIZE), dtype=torch.uint8), *STATISTICS["imagenet"]
    )
    models = [full_size(s.config, s.device).eval() for s in settings]
    images = [image.to(s.device) for s in settings]

    def protocol(model: CVF, image: Tensor, setting: Setting) -> None:
        with torch.no_grad(), autocast(setting.device, setting.config.precision):
            _, multi = multi_scale(
                model.segment, resize_long(image, setting.config.resize_long), setting.config.scales
            )
            resize(multi, TEST_SIZE).argmax(1)

    def encoders(model: CVF, image: Tensor, setting: Setting) -> None:
        def every(pixels: Tensor) -> Tensor:
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
        for setting, work, timing in _timed(settings, works):
            note = f"{TEST_SIZE[1]} x {TEST_SIZE[0]}, scales {setting.config.scales}, mirrored"
            yield Row(part, setting.name, timing, note, peak_memory(work, setting.device))


def measure_par(settings: list[Setting]) -> Iterator[Row]:
    """Pixel-adaptive refinement alone."""

    def work(setting: Setting) -> Work:
        c = setting.config
        size = (c.crop_size, c.crop_size)
        images = torch.randn(c.batch_size, 3, *size, device=setting.device)
        counts = tag_counts(c, c.batch_size)
        masks = [torch.rand(1 + count, *size, device=setting.device) for count in counts]
        return lambda: refine(images, masks, c.par_iterations)

    for setting, _, timing in _timed(settings, [work(s) for s in settings]):
        c = setting.config
        rows = c.batch_size + sum(tag_counts(c, c.batch_size))
        note = (
            f"{rows} masks of {c.batch_size} images at {c.crop_size} px, {c.par_iterations} rounds"
        )
        yield Row("PAR", setting.name, timing, note)


def measure_crf(settings: list[Setting]) -> Iterator[Row]:
    """Dense CRF by each way that is installed, and how far each agrees with the last of them."""
    setting = settings[0]
    for title, image, probs in crf_cases(setting.images, setting.model_path, setting.device):
        ways: dict[str, Callable[[], tuple[Tensor, Tensor]]] = {
            "plausible labels": partial(crf, image, probs),
            "all labels": partial(crf, image, probs, plausible=0),
        }
        if importlib.util.find_spec("pydensecrf"):
            ways["pydensecrf, all labels"] = partial(
                crf, image, probs, backend="pydensecrf", plausible=0
            )
        _, reference = list(ways.values())[-1]()
        for (way, work), timing in zip(
            ways.items(), measure(list(ways.values()), setting.repeats, setting.device)
        ):
            labels, marginals = work()
            same = (labels[marginals.argmax(0)] == reference.argmax(0)).double().mean().item()
            apart = (marginals - reference[labels]).abs()
            note = (
                f"{title}, {len(labels)} labels; beside the last way same label on "
                f"{100 * same:.4f}%"
            )
            note += f", marginals apart {apart.mean():.1e} on average, {apart.max():.1e} at most"
            yield Row(f"CRF, {way}", setting.name, timing, note)


PARTS = {
    "step": measure_step,
    "stage1": measure_classifier,
    "image": measure_image,
    "par": measure_par,
    "crf": measure_crf,
}


def _timed(
    settings: list[Setting], works: Sequence[Work]
) -> Iterator[tuple[Setting, Work, Timing]]:
    return zip(settings, works, measure(works, settings[0].repeats, settings[0].device))


def against(config: Config, pairs: list[str]) -> Config:
    """The configuration with `key=value` settings replaced. Raises UserError on one that is no
    setting or value.
    """
    changes: dict[str, Any] = {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        meaning = options(Config).get(key)
        if meaning is None or meaning.kind is list or not value:
            raise UserError(
                f"--against {pair} is not key=value of a setting with one value; use e.g. "
                "precision=fp32"
            )
        if key in ("device", "threads"):
            raise UserError(
                f"--against {pair} cannot be measured in turns; run the command a second time "
                f"with --{key}"
            )

        changes[key] = typed(key, value, "--against")

    return from_dict({**asdict(config), **changes}, "--against")


def table(rows: list[Row], units: dict[str, Timing]) -> str:
    """Rows and yardsticks as text."""
    lines = [
        f"{name:44}{t.seconds:9.3f} s {t.cpu:8.3f} CPU s   +-{50 * t.spread:.0f}%"
        for name, t in units.items()
    ]
    for row in rows:
        t = row.timing
        title = f"{row.part} ({row.setting})"
        in_units = ", ".join(
            f"{t.seconds / unit.seconds:.2f} {name}" for name, unit in units.items()
        )
        memory = f"   peak {row.peak / 1e9:.2f} GB" if row.peak else ""
        lines.append(
            f"{title:44}{t.seconds:9.3f} s {t.cpu:8.3f} CPU s   = {in_units}{memory}   {row.note}"
        )
        lines += stage_lines(row.stages or {}, row.yardstick, units[row.yardstick])

    return "\n".join(lines)


def stage_lines(found: dict[str, dict[str, float]], name: str, unit: Timing) -> list[str]:
    """Write one line per stage, with its floor: the time that its FLOPs would take at the speed of
    the yardstick so named, "vit" or "vit bf16".
    """
    rate = VIT_GFLOP / unit.seconds
    whole = sum(stage["seconds"] for stage in found.values())
    lines = []
    for title, stage in found.items():
        share = 100 * stage["seconds"] / whole
        work = stage["gflop"]
        floor = ""
        if work >= 1:
            floor = f"{work:7.0f} GFLOP, {work / rate:.3f} s at the speed of {name}"
        lines.append(f"    {title:40}{stage['seconds']:9.3f} s {share:5.1f}%   {floor}")
    return lines


def main() -> None:
    """Command line."""
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--config", default=str(CONFIGS / "voc.yaml"), help="YAML file (default: %(default)s)"
    )
    parser.add_argument(
        "--part", nargs="+", choices=tuple(PARTS), default=list(PARTS), help="default: all"
    )
    parser.add_argument(
        "--repeats", type=int, default=5, metavar="INT", help="default: %(default)s"
    )
    parser.add_argument(
        "--against", nargs="+", metavar="KEY=VALUE", help="second setting, measured in turns"
    )
    parser.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="JPEG files for the CRF (default: drawn pictures)",
    )
    predicted = "checkpoint whose predictions of --images the CRF gets (default: random regions)"
    parser.add_argument("--model_path", type=Path, metavar="FILE", help=predicted)
    parser.add_argument("--json", metavar="FILE", help="also write every figure here")
    add_config_flags(parser)
    flags = vars(parser.parse_args())
    own = {
        name: flags.pop(name)
        for name in ("config", "part", "repeats", "against", "images", "model_path", "json")
    }
    config = load_config(own["config"], flags)
    if own["images"] and not any(own["images"].glob("*.jpg")):
        raise UserError(
            f"--images {own['images']} holds no .jpg file; name a folder of photographs"
        )
    if own["model_path"] and not own["images"]:
        raise UserError(
            f"--model_path {own['model_path']} is for the CRF on photographs; add --images DIR"
        )
    if own["repeats"] < 1:
        raise UserError(f"--repeats {own['repeats']} must be at least 1")

    prepare_torch(config.threads)
    device = choose_device(config.device)
    settings = [Setting("A", config, device, own["repeats"], own["images"], own["model_path"])]
    if own["against"]:
        other = against(config, own["against"])
        settings.append(Setting("B: " + " ".join(own["against"]), other, device, own["repeats"]))

    half = uses_bf16(device, "auto") or "vit bf16" in map(yardstick_of, settings)
    units = yardsticks(device, own["repeats"], half)
    rows = [row for part in own["part"] for row in PARTS[part](settings)]
    print(
        f"{platform.machine()}, {device}, {torch.get_num_threads()} threads, PyTorch "
        f"{torch.__version__}"
    )
    print(table(rows, units))
    if own["json"]:
        content = {
            "yardsticks": {n: asdict(t) for n, t in units.items()},
            "rows": [asdict(row) for row in rows],
        }
        Path(own["json"]).write_text(json.dumps(content, indent=1), encoding="utf-8")


if __name__ == "__main__":
    command(main)()
