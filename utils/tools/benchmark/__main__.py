"""Measure what CVF costs on this machine: `python -m utils.tools.benchmark --part step stage1 image
par crf`; `counts` computes what a step would ask of a GPU, and `data` measures lists of COCO's size
and of ten million images.

Full-size models with random weights. Two yardsticks are measured in the same minute, with memory
as PyTorch has it, so that figures carry over to other machines: "vit", one ViT-B/16 encoder
forward of 4 x 401 tokens in float32 (arithmetic), and "nbr", 20 rounds of weighted sums over 48
neighbours of 3 x 320 x 320 values, by convolutions (memory). Every setting of a run is a flag, and
`--against precision=fp32` measures a second setting in turns with the first.
"""

import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from utils.common.device import choose_device, keep_freed_memory, prepare_torch, uses_bf16
from utils.common.entry import command
from utils.common.errors import UserError
from utils.common.files import require_place, write_json
from utils.common.options import options
from utils.common.parser import Parser, refuse_idle
from utils.config import CONFIGS, Config, add_config_flags, from_dict, load_config, typed
from utils.tools.benchmark.counts import measure_counts
from utils.tools.benchmark.data import measure_data
from utils.tools.benchmark.networks import measure_classifier, measure_image, measure_step
from utils.tools.benchmark.refinement import measure_crf, measure_par
from utils.tools.benchmark.rows import Setting, table, yardstick_of
from utils.tools.benchmark.yardsticks import yardsticks

TIMED = {
    "step": measure_step,
    "stage1": measure_classifier,
    "image": measure_image,
    "par": measure_par,
    "crf": measure_crf,
}
PARTS = {**TIMED, "counts": measure_counts, "data": measure_data}
# flags that act on some parts alone
PARTS_OF = {
    "repeats": tuple(TIMED),
    "against": tuple(name for name in PARTS if name not in ("crf", "data")),
    "images": ("crf",),
    "names": ("data",),
}
REPEATS = 5


def against(config: Config, pairs: list[str]) -> Config:
    """Return the configuration with `key=value` settings replaced. Raises UserError on one that is
    no setting or value.
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


def _check_used(own: dict[str, Any]) -> None:
    """Raise UserError on a flag of this command that nothing would use, or on a count below 1."""
    for name, parts in PARTS_OF.items():
        if not set(parts) & set(own["part"]):
            idle = f"is of --part {', '.join(parts)}; add one of these, or leave it out"
            refuse_idle(own, (name,), idle)
    if not own["images"]:
        refuse_idle(own, ("model_path",), "is for the CRF on photographs; add --images DIR")

    for name in ("repeats", "names"):
        if own[name] is not None and own[name] < 1:
            raise UserError(f"--{name} {own[name]} must be at least 1")


def main() -> None:
    """Read the command line and do what it asks."""
    flags = vars(_parser().parse_args())
    names = ("config", "part", "repeats", "against", "images", "model_path", "names", "json")
    own = {name: flags.pop(name) for name in names}
    config = load_config(own["config"], flags)
    _check_used(own)
    if own["images"] and not any(own["images"].glob("*.jpg")):
        raise UserError(
            f"--images {own['images']} holds no .jpg file; name a folder of photographs"
        )
    own |= {"repeats": own["repeats"] or REPEATS, "names": own["names"] or Setting.names}

    if own["json"]:
        require_place(own["json"], "--json")

    prepare_torch(config.threads, keeps_memory=False)
    device = choose_device(config.device)
    crf_on = (own["images"], own["model_path"])
    settings = [Setting("A", config, device, own["repeats"], *crf_on, own["names"])]
    if own["against"]:
        other = against(config, own["against"])
        settings.append(Setting("B: " + " ".join(own["against"]), other, device, own["repeats"]))

    units = {}
    if any(part in TIMED for part in own["part"]):
        half = uses_bf16(device, "auto") or "vit bf16" in map(yardstick_of, settings)
        units = yardsticks(device, own["repeats"], half)
    keep_freed_memory()  # as commands do, and as the published code does not

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
        write_json(own["json"], content)


def _parser() -> Parser:
    parser = Parser(description=__doc__, usage="%(prog)s [--part PART ...] [--config FILE] [flags]")
    parser.add_argument(
        "--config", default=str(CONFIGS / "voc.yaml"), help="YAML file (default: %(default)s)"
    )
    parser.add_argument(
        "--part",
        nargs="+",
        choices=tuple(PARTS),
        default=list(TIMED),
        help=f"default: {' '.join(TIMED)}",
    )

    parser.add_argument("--repeats", type=int, metavar="INT", help=f"default: {REPEATS}")
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

    parser.add_argument(
        "--names",
        type=int,
        metavar="INT",
        help=f"images of the longer of the lists of `--part data` (default: {Setting.names})",
    )
    parser.add_argument("--json", metavar="FILE", help="also write every figure here")
    add_config_flags(parser)
    return parser


if __name__ == "__main__":
    command(main)()
