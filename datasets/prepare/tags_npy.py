"""`python -m datasets.prepare tags`: the field's `cls_labels_onehot.npy` becomes a tags file, and
the other way round.

Such a file is a pickled dict from image name to one-hot array; it is read without running anything
in it.
"""

from argparse import Namespace
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from datasets.specs import SPECS, DatasetSpec
from datasets.tags import Tags, read_all_tags, write_tags
from utils.common.errors import UserError
from utils.common.files import npy_of, require_place, write_whole
from utils.common.plain_pickle import read_npy_dict

_LARGEST_FILE = 1 << 29  # bytes; COCO's is 40 MB
_FORM = (
    "give the cls_labels_onehot.npy of a WSSS repository: a dict from image name to one-hot array"
)


def add_command(kinds: Any) -> None:
    """Add the sub-command `tags` to an argparse sub-parsers object."""
    parser = kinds.add_parser(
        "tags", help="convert tags files from and to cls_labels_onehot.npy", description=__doc__
    )
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument(
        "--import_npy", metavar="FILE", help="a cls_labels_onehot.npy, to become a tags file"
    )
    way.add_argument(
        "--export_npy", metavar="FILE", help="a tags file, to become a cls_labels_onehot.npy"
    )
    parser.add_argument(
        "--dataset", choices=sorted(SPECS), default="voc", help="class list (default: %(default)s)"
    )
    parser.add_argument("--out", required=True, metavar="FILE", help="file to write")

    parser.set_defaults(run=run)


def run(args: Namespace) -> None:
    """Read one form, write the other. Raises UserError where the given file is not of its
    form.
    """
    require_place(args.out, "--out")
    spec = SPECS[args.dataset]
    if args.import_npy:
        tags = read_npy(args.import_npy, spec)
        write_tags(args.out, spec, tags)
    else:
        tags = read_all_tags(args.export_npy, spec)
        write_npy(args.out, tags)
    print(f"{args.out}: {tags.matrix.sum()} tags of {len(tags.names)} images")


def write_npy(path: str | Path, tags: Tags) -> None:
    """Write {image name: (K,) float32 of 0 and 1} as `np.load(path, allow_pickle=True).item()`
    gives it elsewhere.
    """
    write_whole(path, npy_of(dict(zip(tags.names, tags.matrix.astype(np.float32)))))


def read_npy(path: str | Path, spec: DatasetSpec) -> Tags:
    """Read the tags in a `cls_labels_onehot.npy`, written by any NumPy under Python 2 or 3, in name
    order.

    Raises:
        UserError: the file is missing or holds anything but a dict from image names to K values 0
            or 1.
    """
    onehots = _read_dict(Path(path))
    named = sorted(
        ((_image_name(path, key, spec), values) for key, values in onehots.items()),
        key=itemgetter(0),
    )
    matrix = np.zeros((len(named), len(spec.classes)), bool)

    for row, (name, values) in zip(matrix, named):
        row[:] = _onehot(f"{path}, image {name}", values, spec)

    return Tags(tuple(name for name, _ in named), matrix, f"imported from {Path(path).name}")


def _image_name(path: str | Path, key: str | int, spec: DatasetSpec) -> str:
    """Return an image's name; some VOC files write 2007_000032 as the number 2007000032."""
    if isinstance(key, int):
        if spec.name != "voc" or not 0 < key < 10**10:
            raise UserError(
                f"{path} has the number {key} for an image name; write names as in the data set's "
                "lists"
            )
        return f"{key // 10**6:04d}_{key % 10**6:06d}"
    return key


def _onehot(place: str, values: Any, spec: DatasetSpec) -> np.ndarray:
    """Return (K,) bool of an entry."""
    row = values if isinstance(values, np.ndarray) else np.empty(0)
    if (
        row.dtype.kind not in "biuf"
        or row.shape != (len(spec.classes),)
        or not np.isin(row, (0, 1)).all()
    ):
        raise UserError(
            f"{place} has no one-hot array of {len(spec.classes)} values 0 or 1 for {spec.name}; "
            f"{_FORM}, or the right --dataset"
        )
    return row.astype(bool)


def _read_dict(path: Path) -> dict[str | int, Any]:
    """Read the dict in the 0-d object array of a .npy file."""
    try:
        content = None
        if path.stat().st_size <= _LARGEST_FILE:
            content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); {_FORM}") from error

    if content is None:
        raise UserError(f"{path} is larger than {_LARGEST_FILE >> 20} MiB; {_FORM}")

    try:
        found = read_npy_dict(content)
    except ValueError as error:
        raise UserError(f"{path} {error}; {_FORM}") from error

    if not found:
        raise UserError(f"{path} holds no images; {_FORM}")
    return found
