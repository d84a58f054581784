"""Do bf16 and fp32 find the same seeds? `python -m utils.tools.precision --config voc`.

Some channels of real CLIP towers are far larger than the others, and the eight bits of bf16 show
there first. The command makes the seeds of some training images twice, with the weights that a
configuration names, and says how far they differ; nothing is trained, masks are not opened.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from datasets.lists import spread
from model.cvf import CVF
from model.pseudo_labels import background_powers
from utils.build import build_untrained
from utils.cli import add_config_choice
from utils.common.device import choose_device, prepare_torch
from utils.common.entry import command
from utils.common.errors import UserError
from utils.common.parser import Parser
from utils.common.progress import progress
from utils.config import Config, add_config_flags, load_config
from utils.inference.predictor import as_tensor
from utils.inference.seeds import ImageSeeds, image_seeds
from utils.splits import dataset_spec, image_tags, split_items

IMAGES = 50


@dataclass(frozen=True)
class Difference:
    """How the seeds of one image differ: largest and mean distance of scores in 0..1, and the share
    of pixels with another label, of the seed and of the pseudo label.
    """

    largest: float
    mean: float
    seed: float
    pseudo: float


def compared(model: CVF, image: Tensor, tags: Tensor, config: Config) -> Difference:
    """Make CLIP's seeds of an image (3, H, W) uint8 with tags (K,) in both precisions."""
    whole, half = (
        image_seeds(model, image, tags, replace(config, precision=precision))
        for precision in ("fp32", "bf16")
    )
    return difference(whole, half, background_powers(model.method)["clip"])


def difference(one: ImageSeeds, other: ImageSeeds, power: float) -> Difference:
    """Compare CLIP's scores, the labels they give and the pseudo labels of two `ImageSeeds`."""
    scores = one.scores["clip"].float()
    other_scores = other.scores["clip"].float()
    apart = (scores - other_scores).abs()
    seed = one.labels(scores, power) != other.labels(other_scores, power)
    pseudo = one.pseudo != other.pseudo
    shares = (seed.float().mean().item(), pseudo.float().mean().item())
    return Difference(apart.max().item(), apart.mean().item(), *shares)


def differences(config: Config, images: int) -> Iterator[Difference]:
    """Compare the seeds of `images` tagged training images, evenly spread."""
    device = choose_device(config.device)
    spec = dataset_spec(config)
    model = build_untrained(config, spec).to(device)

    items = split_items(config, config.train_split)
    tags = image_tags(config, spec, items)
    tagged = [place for place in range(len(items)) if tags[place].any()]
    if not tagged:
        raise UserError(f"no image of --train_split {config.train_split} has a tag; check --tags")

    for place in progress(spread(tagged, images), desc="seeds"):
        picture = as_tensor(items[place].image).to(device)
        yield compared(model, picture, torch.from_numpy(tags[place]).float(), config)


def main() -> None:
    """Read the command line and do what it asks."""
    parser = Parser(description=__doc__, usage="%(prog)s [--config FILE] [--images N] [flags]")
    first = parser.add_argument_group("this command")
    add_config_choice(first, "voc.yaml")
    first.add_argument(
        "--images",
        type=int,
        default=IMAGES,
        metavar="N",
        help="training images whose seeds are made twice, evenly spread (default: %(default)s)",
    )
    add_config_flags(parser)

    flags = vars(parser.parse_args())
    chosen = flags.pop("config")
    images = flags.pop("images")
    if images < 1:
        raise UserError(f"--images {images} must be at least 1")
    config = load_config(chosen, {**flags, "branches": "clip"})
    prepare_torch(config.threads)

    found = list(differences(config, images))
    mean = sum(each.mean for each in found) / len(found)
    seed = sum(each.seed for each in found) / len(found)
    pseudo = sum(each.pseudo for each in found) / len(found)
    print(f"{len(found)} images of {config.train_split}, bf16 beside fp32:")
    print(f"  scores of CLIP's seeds      {mean:.4f} apart on average, of 0 to 1")
    print(f"                              {max(each.largest for each in found):.4f} at most")
    print(f"  another label, seeds        {100 * seed:.2f}% of the pixels")
    print(f"  another label, pseudo label {100 * pseudo:.2f}% of the pixels")


if __name__ == "__main__":
    command(main)()
