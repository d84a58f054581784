"""Label maps for annotation tools and trainings elsewhere: `python -m utils.tools.convert --labels
DIR --images PHOTOS --classes voc --format coco --out DIR`.

Takes any folder of this project's label PNGs: of a test or of `--images`, pseudo labels, masks. Of
a prediction those count that its last run tells, not what an earlier one left beside them.
"""

from pathlib import Path

from datasets.classes import given_classes
from datasets.exporting.maps import label_maps, maps_folder
from datasets.exporting.options import add_flags, options_of
from datasets.exporting.write import export_labels
from datasets.lists import Items
from datasets.own_pictures import pictures
from datasets.predictions import Entries, check_order, told_files
from datasets.prepare.parallel import add_workers
from utils.common.entry import command
from utils.common.errors import UserError
from utils.common.parser import Parser


def photos_of(labels: Path, images: list[str], out: Path) -> Items:
    """Find the photos that `--images` names, or those that the run folder of a prediction tells.

    Raises:
        UserError: there are none.
    """
    if images:
        return pictures(images, outside=(labels, out))
    entries = Entries(labels) or Entries(labels.parent)
    if not entries:
        raise UserError(
            f"{labels} does not tell its photos; name them, or their folder, by --images"
        )
    return Items((entry["name"], entry["image"], "") for entry in entries)


def main() -> None:
    """Read the command line and do what it asks."""
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add(
        "--labels",
        required=True,
        type=Path,
        metavar="DIR",
        help="folder of label PNGs, or run folder or export that has prediction/ or pseudo_labels/",
    )
    add(
        "--images",
        nargs="+",
        default=[],
        metavar="PATH",
        help="their photos: files, folders or patterns (default: those that the run folder tells)",
    )
    add(
        "--classes",
        required=True,
        metavar="CLASSES",
        help='voc, coco, a class list (YAML), or "cat, dog": the names of labels 1, 2, ...',
    )
    add("--out", required=True, type=Path, metavar="DIR", help="folder to write, a new one")
    add_workers(add)
    add_flags(parser, required=True)
    args = parser.parse_args()

    options = options_of(args)
    spec = given_classes(args.classes)
    folder = maps_folder(args.labels)
    check_order(folder, spec.label_names)
    files = told_files(folder, "--labels")
    items = label_maps(files, photos_of(args.labels, args.images, args.out))
    print(export_labels(items, spec, options, args.out, args.workers))


if __name__ == "__main__":
    command(main)()
