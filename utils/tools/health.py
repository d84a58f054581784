"""Is everything as it should be? `python -m utils.tools.health --config voc` [flags of training].

Before a run of days: weights, device, data, masks, and the CLIP seed of some training images, which
are scored openly with their masks. Each line says ok, suspicious or wrong, what was expected and
where that stands (utils/references.yaml); one that begins with a dash has nothing with a source to
be held against. The exit status is 1 if something is wrong.
"""

import sys
from collections.abc import Callable, Iterator
from functools import partial

from utils.cli import add_config_choice
from utils.common.device import prepare_torch
from utils.common.entry import command
from utils.common.errors import UserError
from utils.common.parser import Parser, refuse_idle
from utils.config import Config, add_config_flags, load_config
from utils.health.findings import SUSPICIOUS, WRONG, Finding, caught, suiting
from utils.health.parts import (
    clip_findings,
    device_findings,
    dino_findings,
    mask_findings,
    split_findings,
    tag_findings,
    vit_findings,
)
from utils.health.seeds import SEEDS_OF, seed_findings
from utils.metrics import TITLES

# Whose seeds are scored: a prime, so that no list that repeats its classes in turn, as that of the
# toy does, is met at the same ones again and again.
IMAGES = 199


def check(config: Config, images: int, say: Callable[[str], None]) -> Iterator[Finding]:
    """Look at each part of what a run needs, and at the seeds of `images` images unless it is 0."""
    splits = dict.fromkeys([config.train_split, config.val_split, SEEDS_OF])
    scored = [config.val_split]
    if suiting(TITLES["clip"], SEEDS_OF, config) and config.val_split != SEEDS_OF:
        scored.append(SEEDS_OF)
    looks: list[tuple[str, Callable[[], list[Finding]]]] = [
        ("device", partial(device_findings, config)),
        ("CLIP", partial(clip_findings, config)),
        ("class-token ViT", partial(vit_findings, config)),
        ("DINO", partial(dino_findings, config)),
    ]
    looks += [(f"images of {each}", partial(split_findings, config, each)) for each in splits]
    looks += [(f"masks of {each}", partial(mask_findings, config, each)) for each in scored]
    looks.append((f"tags of {config.train_split}", partial(tag_findings, config)))
    if images:
        looks.append(("CLIP seed", partial(seed_findings, config, images, say)))

    told = set()
    for what, look in looks:
        for finding in caught(what, look):
            if finding.verdict != WRONG or finding.found not in told:  # one fault, one line
                yield finding
            told.add(finding.found)


def main() -> None:
    """Read the command line and do what it asks."""
    parser = Parser(description=__doc__, usage="%(prog)s [--config FILE] [--no_seeds] [flags]")
    first = parser.add_argument_group("this command")
    add_config_choice(first, "voc.yaml")
    first.add_argument(
        "--images",
        type=int,
        metavar="N",
        help=f"training images whose CLIP seeds are scored, evenly spread (default: {IMAGES})",
    )
    first.add_argument("--no_seeds", action="store_true", help="leave the seeds out")
    add_config_flags(parser)

    flags = vars(parser.parse_args())
    given, images, no_seeds = (flags.pop(name) for name in ("config", "images", "no_seeds"))
    if no_seeds:
        idle = "is of the seeds, which --no_seeds leaves out; give one of the two"
        refuse_idle({"images": images}, ("images",), idle)
        images = 0
    elif images is None:
        images = IMAGES
    elif images < 2:
        raise UserError(f"--images {images} must be at least 2; --no_seeds leaves the seeds out")
    config = load_config(given, flags)
    prepare_torch(config.threads)

    verdicts = []
    for finding in check(config, images, print):
        print(finding)
        verdicts.append(finding.verdict)

    wrong = verdicts.count(WRONG)
    suspicious = verdicts.count(SUSPICIOUS)
    summary = "nothing is wrong"
    if wrong or suspicious:
        summary = f"{wrong} wrong, {suspicious} suspicious"
    print(summary)
    if wrong:
        sys.exit(1)


if __name__ == "__main__":
    command(main)()
