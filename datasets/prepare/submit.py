"""`python -m datasets.prepare submit voc`: predictions become the archive that the VOC evaluation
server accepts.

The archive holds results/VOC2012/Segmentation/{comp}_{split}_cls/NAME.png: one palette PNG per
image of the list, at the image's own size, with labels 0..20. Source: VOC 2012 development kit,
"Submission of results".
"""

import gzip
import io
import tarfile
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from datasets.layouts import items
from datasets.lists import Item
from datasets.pictures import load_mask, mask_png, open_image
from datasets.predictions import PREDICTION, told_files
from datasets.specs import VOC, palette
from utils.common.errors import UserError
from utils.common.files import require_place, written_whole
from utils.common.progress import progress


def add_command(kinds: Any) -> None:
    """Add the sub-command `submit` to an argparse sub-parsers object."""
    parser = kinds.add_parser(
        "submit", help="pack predictions for the VOC evaluation server", description=__doc__
    )
    add = parser.add_argument

    add("dataset", choices=("voc",), help="whose server")
    add(
        "--work_dir",
        required=True,
        type=Path,
        metavar="DIR",
        help="folder of a test run, which holds prediction/",
    )
    add(
        "--root",
        default="VOCdevkit/VOC2012",
        metavar="DIR",
        help="VOC with the test images (default: %(default)s)",
    )
    add("--split", default="test", help="list that was predicted (default: %(default)s)")
    add(
        "--comp",
        choices=("comp5", "comp6"),
        default="comp6",
        help="comp6: trained on more than VOC, as CLIP was; comp5: on VOC alone (default: "
        "%(default)s)",
    )
    add(
        "--out",
        type=Path,
        metavar="FILE",
        help="archive to write (default: WORK_DIR/{comp}_{split}_cls.tgz)",
    )

    parser.set_defaults(run=_run)


def _run(args: Namespace) -> None:
    folder = f"{args.comp}_{args.split}_cls"
    out = args.out or args.work_dir / f"{folder}.tgz"
    require_place(out, "--out")
    if not (args.work_dir / PREDICTION).is_dir():
        raise UserError(
            f"--work_dir {args.work_dir} has no folder prediction; predict --eval_set "
            f"{args.split} first"
        )
    images = items("voc", args.root, args.split)
    pack(images, args.work_dir / PREDICTION, f"results/VOC2012/Segmentation/{folder}", out)
    print(
        f"{out}: {len(images)} palette PNGs of {args.split} for {args.comp}, "
        f"{out.stat().st_size / 1e6:.1f} MB; checked"
    )


def pack(images: Sequence[Item], predictions: Path, folder: str, out: Path) -> None:
    """Write the archive, the same bytes for the same predictions, and read it again to check
    every member. Predictions that the last run did not make count as missing.

    Raises:
        UserError: a prediction is missing, or is no label map of its image's size with labels of
            the data set.
    """
    colours = palette()
    files = told_files(predictions, "--work_dir")
    try:
        with written_whole(out, own=True) as file:
            with (
                gzip.GzipFile("", "wb", fileobj=file, mtime=0) as stream,
                tarfile.open(fileobj=stream, mode="w") as archive,
            ):
                for item in progress(images, desc="packing"):
                    content = mask_png(_labels(item, _made(item, files, predictions)), colours)
                    member = tarfile.TarInfo(f"{folder}/{item.name}.png")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))

            file.seek(0)
            _verify(file, images, folder, colours)
    except OSError as error:
        raise UserError(
            f"{out} cannot be written ({error}); name another file with --out"
        ) from error


def _made(item: Item, files: Mapping[str, Path], folder: Path) -> Path:
    if item.name not in files:
        raise UserError(
            f"{folder / item.name}.png does not exist, or is of an earlier run; predict the whole "
            "list before packing it"
        )
    return files[item.name]


def _labels(item: Item, path: Path) -> np.ndarray:
    """Read the (H, W) uint8 prediction of an image, checked."""
    labels = load_mask(path)
    size = open_image(item.image).shape
    if labels.shape != size:
        raise UserError(
            f"{path} is {labels.shape[1]} x {labels.shape[0]} but its image is {size[1]} x "
            f"{size[0]}"
            "; predict it again"
        )
    if labels.max() > len(VOC.classes):
        raise UserError(
            f"{path} holds label {labels.max()}, VOC has 0..{len(VOC.classes)}; use a model "
            "trained on VOC"
        )

    return labels


def _verify(file: BinaryIO, images: Sequence[Item], folder: str, colours: np.ndarray) -> None:
    """Check that an archive is what the server asks for.

    Raises:
        ValueError: it is anything else, which is a fault of this program.
    """
    with tarfile.open(fileobj=file, mode="r:gz") as archive:
        names = []
        for member in archive:
            names.append(member.name)
            content = archive.extractfile(member)
            if content is None:
                raise ValueError(f"the archive has a member {member.name} that is no file")
            with Image.open(content) as image:
                image.load()
                palette = image.getpalette() or []
                whole = image.mode == "P" and palette[: colours.size] == colours.ravel().tolist()
                if not whole or np.asarray(image).max() > len(VOC.classes):
                    raise ValueError(f"the archive has a wrong member {member.name}")

    if names != [f"{folder}/{item.name}.png" for item in images]:
        raise ValueError("the archive does not hold exactly the images of the list")
