"""Label maps from tags, without any training: `python -m utils.tools.label --images PHOTOS --tags
tags.csv --classes classes.yaml --out labels`.

CLIP says where the tagged classes of a picture are; affinity spreads that, and a dense CRF, or
pixel-adaptive refinement, brings it to edges. The folder gets `prediction/` (palette PNG),
`prediction_cmap/`, `overlay/`, `areas.json`, `report.html`, and `scores/`, what CLIP said: the same
command with another refinement reads it again. Where it was stopped it goes on.

With a trained checkpoint, `test_msc_flip_voc.py --images PHOTOS --tags tags.csv` labels pictures,
and `utils.tools.export` writes pseudo labels of its training images.
"""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

from datasets.classes import given_classes
from datasets.lists import Item
from datasets.own_pictures import pictures
from datasets.predictions import Entries, Entry
from datasets.specs import DatasetSpec
from datasets.tag_sources import tags_of_images
from datasets.toy.marker import is_drawn
from utils.common import distributed
from utils.common.device import prepare_torch, used_precision
from utils.common.entry import command
from utils.common.errors import UserError
from utils.common.options import options
from utils.common.parser import Parser, refuse_idle
from utils.config import Config, add_config_flags
from utils.inference.guessed_tags import GUESSED_TAGS, labelled, refuse_changed, write_guessed
from utils.inference.kept_scores import SCORES, KeptScores
from utils.inference.labeller import BEST_CAM, PRESENT, SETTINGS, TOY_SETTINGS, Labeller
from utils.inference.outputs import AREAS, write_areas
from utils.inference.predict import GUESSED, Job, predict_split
from utils.inference.refinement import BEST_REFINEMENT, STEPS, Refinement
from utils.inference.summary import report_skipped
from utils.report.line import report_line

MACHINE = ("device", "precision", "workers", "threads", "on_bad_image", "quiet")


def main() -> None:
    """Read the command line and do what it asks."""
    flags = vars(_parser().parse_args())
    given, tags_file, folder = (flags.pop(name) for name in ("images", "tags", "out"))
    threshold = chosen_threshold(flags.pop("guess_tags"), flags.pop("guess_threshold"))
    refinement = Refinement(flags.pop("refine"), flags.pop("min_confidence"))

    spec = given_classes(flags.pop("classes"))
    images = pictures(given, [folder])
    tags = known_tags(tags_file, threshold, spec, images)
    said = [left_out(tags_file, threshold, images, tags)]
    if threshold is None:
        images = images.at([place for place, name in enumerate(images.names) if name in tags])
    else:
        refuse_changed(folder, tags_file, spec)

    toy_pictures = all(is_drawn(item.image) for item in images)
    usual = "toy" if toy_pictures else Config.clip_path
    flags.setdefault("clip_path", usual)
    rank, world, local = distributed.start(flags.get("device", "auto"))
    labeller = Labeller.from_clip(spec, refinement=refinement, local_rank=local, **flags)
    prepare_torch(labeller.config.threads)

    job = Job(images, folder, overlays=True, tags=tags, threshold=threshold)
    said.append(plan(labeller, job, toy_pictures))
    if distributed.is_main():
        print("\n".join(filter(None, said)))

    kept = KeptScores(labeller, folder / SCORES, threshold)
    try:
        with predict_split(kept, job, (rank, world)) as entries:
            if distributed.is_main():
                report(labeller, job, entries)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the same command goes on with the pictures left") from None

    distributed.stop()


def chosen_threshold(guess: bool, threshold: float | None) -> float | None:
    """Return the threshold of guessed tags, the usual one if None is given; None where none are
    guessed.

    Raises UserError on one outside 0..1, or where none are guessed.
    """
    if not guess:
        idle = "is of guessed tags; add --guess_tags, or leave it out"
        refuse_idle({"guess_threshold": threshold}, ("guess_threshold",), idle)
        return None
    if threshold is None:
        return PRESENT
    if not 0 < threshold <= 1:
        raise UserError(f"--guess_threshold {threshold:g} must lie between 0 and 1")
    return threshold


def known_tags(
    file: Path | None, threshold: float | None, spec: DatasetSpec, images: Sequence[Item]
) -> dict[str, list[str]]:
    """Return the classes of those pictures whose tags are given, by name.

    Raises UserError where there are neither tags nor leave to guess them, or the file cannot be
    used.
    """
    if file is not None:
        return tags_of_images(file, spec, images)

    if threshold is None:
        raise UserError(
            "there are no tags; give --tags FILE, or --guess_tags to take the classes that CLIP "
            "sees"
        )
    return {}


def left_out(
    file: Path | None, threshold: float | None, images: Sequence[Item], tags: dict[str, list[str]]
) -> str:
    """Say what becomes of pictures that have no tags, and of those that show no class; "" where
    there are none.
    """
    said = []
    if without := [item.name for item in images if item.name not in tags]:
        fate = "guessed"
        if threshold is None:
            fate = "left out; --guess_tags takes the classes that CLIP sees"
        which = ""
        if file:
            which = f" in {file}"
        said.append(
            f"{len(without)} of {len(images)} pictures have no tags{which}, the first is "
            f"{without[0]}: {fate}"
        )

    if empty := [name for name, classes in tags.items() if not classes]:
        said.append(
            f"{len(empty)} of {len(images)} pictures show no class by their tags, the first is "
            f"{empty[0]}: background alone"
        )
    return "\n".join(said)


def plan(labeller: Labeller, job: Job, toy_pictures: bool) -> str:
    """Say what the run will do, before it does it."""
    config = labeller.config
    precision = used_precision(labeller.device, config.precision)
    nothing = ""
    if not config.full_size and not toy_pictures:
        nothing = (
            "\nthe toy CLIP knows drawn toy pictures alone: of these photographs its masks mean "
            "nothing"
        )

    return (
        f"CLIP {config.clip_path}: {len(labeller.classes) - 1} classes + background; "
        f"{protocol(labeller)}\n"
        f"{len(job.images)} pictures, {len(job.tags)} with tags; on {labeller.device} in "
        f"{precision}; folder {job.folder}{nothing}"
    )


def protocol(labeller: Labeller) -> str:
    """Say how labels are made, in words."""
    least = labeller.refinement.min_confidence
    steps = ["affinity", *STEPS[labeller.refinement.kind]]
    unsure = ""
    if least:
        unsure = f", less sure than {least:g} is 255"
    return (
        f"maps {labeller.config.cam}, {', '.join(steps)}, long side at most "
        f"{labeller.config.resize_long} px{unsure}"
    )


def report(labeller: Labeller, job: Job, entries: Entries) -> None:
    """Write areas, guessed tags and the page, and say where things are. The entries are gone
    through several times, and never held.
    """
    folder = job.folder
    guessed = sum(entry["name"] not in job.tags for entry in labelled(entries))
    facts = {
        "clip": labeller.sha256,
        "protocol": protocol(labeller),
        "tags": f"given of {len(job.tags)} images, guessed of {guessed}",
    }
    ordered = (confirmed(entry, job) for entry in entries.by_name())  # however many processes
    areas = write_areas(ordered, labeller.classes, facts, folder)

    print(f"class areas: {areas}, pictures with labels over them: {folder / 'overlay'}")
    print(f"label PNGs: {folder / 'prediction'}, in colour: {folder / 'prediction_cmap'}")
    print(f"what CLIP said, read again if only the refinement changes: {folder / SCORES}")
    print(report_line(folder))
    report_skipped(entries)
    report_without_class(entries)
    report_unseen(entries, labeller.classes)

    if guessed:
        write_guessed(folder / GUESSED_TAGS, labeller.spec, entries, guessed)
        print(
            f"tags of {guessed} pictures were guessed: {folder / GUESSED_TAGS}; correct it, "
            "then give it as --tags"
        )


def report_without_class(entries: Iterable[Entry]) -> None:
    """Name the first picture that was left out as CLIP sees no class in it, if any."""
    total = 0
    count = 0
    first = ""
    for entry in entries:
        total += 1
        if "error" in entry and GUESSED in entry:
            count += 1
            first = first or entry["name"]

    if count:
        print(
            f"{count} of {total} pictures are left out, as they show no class by what CLIP sees, "
            f"the first is {first}; write their tags, or lower --guess_threshold; {AREAS} names "
            "them"
        )


def report_unseen(entries: Iterable[Entry], classes: Sequence[str]) -> None:
    """Name the first picture with a tag that no pixel of its label map has, if any: there is where
    a person looks first.
    """
    total = 0
    count = 0
    first = ""
    for entry in entries:
        total += 1
        if "error" in entry:
            continue

        found = {classes[int(label)] for label in entry["pixels"] if int(label) < len(classes)}
        unseen = [tag for tag in entry["tags"] if tag not in found]
        if unseen:
            count += 1
            first = first or f"{entry['name']} ({', '.join(unseen)})"

    if count:
        print(
            f"{count} of {total} pictures have a tag that no pixel got, the first is {first}; look "
            "at these first"
        )


def confirmed(entry: Entry, job: Job) -> Entry:
    """Return an entry as one of given tags where what was guessed once has been given since."""
    if entry["name"] not in job.tags:
        return entry
    return {key: value for key, value in entry.items() if key != GUESSED}


def _parser() -> Parser:
    parser = Parser(
        description=__doc__,
        usage="%(prog)s --images PATH ... --tags FILE --classes FILE|NAMES --out DIR [flags]",
    )
    add = parser.add_argument_group("what to label").add_argument
    add(
        "--images",
        nargs="+",
        required=True,
        metavar="PATH",
        help="pictures, folders and patterns ('photos/**/*.jpg')",
    )
    add(
        "--tags",
        type=Path,
        metavar="FILE",
        help="classes of each picture, in any form that `datasets.prepare custom` takes",
    )
    add(
        "--classes",
        required=True,
        metavar="FILE|NAMES",
        help="class list (YAML), names separated by commas ('cat, dog'), voc or coco",
    )
    add("--out", required=True, type=Path, metavar="DIR", help="folder to write")
    add("--guess_tags", action="store_true", help="guess the tags of pictures that have none")
    add(
        "--guess_threshold",
        type=float,
        metavar="X",
        help="score, 0..1, from which a class is guessed: about the share of the picture that CLIP "
        f"gives it (default: {PRESENT})",
    )

    add = parser.add_argument_group("how").add_argument
    for name, default in (
        ("clip_path", f"toy on pictures of the toy set, else {Config.clip_path}"),
        ("clip_activation", "auto"),
        ("resize_long", "the configuration's"),
    ):
        meaning = options(Config)[name]
        text = f"{meaning.help} (default: {default})"
        add(f"--{name}", type=meaning.kind, default=argparse.SUPPRESS, help=text)

    add(
        "--config",
        nargs="+",
        default=(),
        metavar="FILE",
        help="settings of maps, affinity and CRF, as `train_voc.py --config` takes them (default: "
        f"{TOY_SETTINGS} beside the toy CLIP, else {Path(SETTINGS).stem})",
    )
    add(
        "--cam",
        choices=options(Config)["cam"].choices,
        default=argparse.SUPPRESS,
        help="CLIP's maps: Grad-CAM, a dense read-out, or their mean (default: that of --config, "
        f"without one {BEST_CAM})",
    )
    add(
        "--refine",
        choices=tuple(STEPS),
        default=BEST_REFINEMENT,
        help="pixel-adaptive refinement, dense CRF, or one after the other (default: %(default)s)",
    )
    add(
        "--min_confidence",
        type=float,
        default=0.0,
        metavar="X",
        help="pixels whose label has a smaller share of the scores become 255, not labelled "
        "(default: %(default)s)",
    )
    add_config_flags(parser, only=MACHINE)
    return parser


if __name__ == "__main__":
    command(main, shared=True)()
