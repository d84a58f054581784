"""Label maps for annotation tools and trainings elsewhere: `python -m utils.tools.convert --labels
DIR --images PHOTOS --classes voc --format coco --out DIR`.

Takes any folder of this project's label PNGs: of a test or of `--images`, pseudo labels, masks. Of
a prediction those count that its last run tells, not what an earlier one left beside them.
"""

import argparse
from pathlib import Path

from datasets.classes import given_classes
from datasets.exporting.maps import label_maps, maps_folder
from datasets.exporting.options import add_flags, options_of
from datasets.exporting.write import export_labels
from datasets.folders import label_files
from datasets.lists import Items
from datasets.own_pictures import pictures
from datasets.prepare.parallel import add_workers
from utils.common.entry import command
from utils.common.errors import UserError
from utils.common.parser import Parser
from utils.inference.outputs import LABELS
from utils.run_folder.journal import read_journal


def photos_of(labels: Path, images: list[str], out: Path) -> Items:
    """Find the photos that `--images` names, or those that the run folder of a prediction tells.

    Raises:
        UserError: there are none.
    """
    if images:
        return pictures(images, outside=(labels, out))
    entries = read_journal(labels)[1] or read_journal(labels.parent)[1]
    if not entries:
        raise UserError(
            f"{labels} does not tell its photos; name them, or their folder, by --images"
        )
    return Items((entry["name"], entry["image"], "") for entry in entries)


def told_files(folder: Path) -> dict[str, Path]:
    """Find the label PNGs of a folder, by name; of a prediction those that its journal tells. Says
    which are left out.

    Raises UserError where there are none.
    """
    files = label_files(folder, "--labels")
    entries = read_journal(folder.parent)[1]
    if folder.name != Path(LABELS).parent.name or not entries:
        return files

    told = {entry["name"] for entry in entries if "error" not in entry}
    if former := [name for name in files if name not in told]:
        print(
            f"{len(former)} of {len(files)} label maps in {folder} are left out, as the last run "
            f"into {folder.parent} made none of their names, the first is {files[former[0]].name}"
        )
    return {name: file for name, file in files.items() if name in told}


def main() -> None:
    """Command line."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
    files = told_files(maps_folder(args.labels))
    items = label_maps(files, photos_of(args.labels, args.images, args.out))
    print(export_labels(items, spec, options, args.out, args.workers))


if __name__ == "__main__":
    command(main)()
