"""One's own pictures: a class list, tags from a CSV or from folder names, a split, and a configuration to train with.

Nothing is copied: an index says where the pictures and masks lie, whatever their names and folders.
"""

import csv
import hashlib
import json
import os
import shutil
import unicodedata
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from datasets.classes import CLASSES, SEPARATOR, nearest, read_classes
from datasets.files import write_whole
from datasets.layouts import INDEX, INDEX_FORMAT, picture_names, pictures_below, read_list
from datasets.specs import DatasetSpec
from datasets.tags import TAGS, Tags, write_tags
from utils.errors import UserError

HEADER = ["image", "tags"]
NOTHING = "background"  # folder of pictures that show no class
_EPOCHS, _BATCH, _FEWEST, _MOST = 12, 4, 2000, 30000  # stage 2 sees each VOC picture about 12 times in 30000 iterations
_LONG = 512  # px; training pictures are brought to the size that testing uses


def add_command(kinds: Any) -> None:
    """Adds the sub-command `custom` to an argparse sub-parsers object."""
    text = "one's own pictures: any names, tags from a CSV or from folders"
    parser = kinds.add_parser("custom", help=text, description=__doc__)
    add = parser.add_argument
    add("--images", required=True, type=Path, metavar="DIR", help="folder of pictures, nested as you like")
    add("--classes", required=True, type=Path, metavar="FILE", help="YAML with `classes: [...]`, see README")
    add("--tags", type=Path, metavar="FILE", help="CSV with the columns image,tags; tags separated by ; "
        f"(default: folders named after classes, or {NOTHING})")  # fmt: skip
    add("--masks", type=Path, metavar="DIR", help="label PNGs at the pictures' relative paths, only to score with")
    add("--val_list", type=Path, metavar="FILE", help="pictures to validate with, one path a line (default: drawn)")
    add("--val_share", type=float, default=0.1, metavar="X", help="share drawn without a list (default: %(default)s)")
    add("--seed", type=int, default=0, metavar="INT", help="of the drawn split (default: %(default)s)")
    add("--out", required=True, type=Path, metavar="DIR", help="folder to write, which trains as --data_root")
    parser.set_defaults(run=_run)


def _run(args: Namespace) -> None:
    """Writes index, lists, tags, class list and configuration, and says what was found."""
    spec = read_classes(args.classes)
    if not args.images.is_dir():
        raise UserError(f"--images {args.images} is not a folder; give the folder that holds the pictures")
    if args.masks and not args.masks.is_dir():
        raise UserError(f"--masks {args.masks} is not a folder; give the folder that holds the masks")
    files = [PurePosixPath(file.relative_to(args.images)) for file in pictures_below(args.images)]
    if not files:
        raise UserError(f"--images {args.images} holds no picture; give another folder")
    tags = tags_of_table(args.tags, files, spec) if args.tags else tags_of_folders(args.images, files, spec)
    kept = [file for file in files if file in tags]
    names = picture_names(kept)
    masks = [find_mask(args.masks, file) if args.masks else None for file in kept]
    if args.val_list:
        chosen = _listed(args.val_list, kept)
    else:
        scorable = [file for file, mask in zip(kept, masks) if mask] or kept
        chosen = draw(scorable, args.val_share, len(kept), args.seed)
    splits = {"val": [name for name, file in zip(names, kept) if file in chosen]}
    splits["train"] = [name for name, file in zip(names, kept) if file not in chosen]
    if not splits["train"]:
        raise UserError(f"all {len(kept)} pictures are for validation; leave some of them to train on")
    matrix = np.array([[name in tags[file] for name in spec.classes] for file in kept])
    args.out.mkdir(parents=True, exist_ok=True)
    _write_index(args.out, args.images, args.masks, dict(zip(names, zip(map(str, kept), masks))))
    source = f"table {args.tags.name}" if args.tags else "names of folders"
    write_tags(args.out / TAGS, spec, Tags(tuple(names), matrix, source))
    for split, members in splits.items():
        (args.out / f"{split}.txt").write_text("".join(f"{name}\n" for name in members), encoding="utf-8")
    if args.classes.resolve() != (args.out / CLASSES).resolve():
        shutil.copyfile(args.classes, args.out / CLASSES)
    own = _write_config(args.out, len(splits["train"]))
    _say(args, spec, matrix, splits, sum(mask is not None for mask in masks), len(files) - len(kept), own)


def tags_of_table(path: Path, files: Sequence[PurePosixPath], spec: DatasetSpec) -> dict[PurePosixPath, set[str]]:
    """Classes of the pictures that a CSV lists, found by path, by path without suffix or by file name.

    Raises:
        UserError: names file, line and fix, where the table cannot be read, or a picture or class is unknown.
    """
    found = _Pictures(files)
    tags: dict[PurePosixPath, set[str]] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = csv.reader(stream, strict=True)
            header = [cell.strip().lower() for cell in next(rows, [])]
            if header != HEADER:
                raise UserError(f"{path}, line 1 is {','.join(header)!r:.80}; the header must be {','.join(HEADER)}")
            for row in rows:
                if not row:
                    continue
                place = f"{path}, line {rows.line_num}"
                if len(row) != len(HEADER):
                    raise UserError(
                        f"{place} has {len(row)} cells; write image,tags with {SEPARATOR!r} between the tags"
                        " and quotes around names with commas"
                    )
                file = found.named(row[0], place)
                if file in tags:
                    raise UserError(f"{place} lists {row[0]!r} a second time; keep one line")
                tags[file] = {_class(word.strip(), spec, place) for word in row[1].split(SEPARATOR) if word.strip()}
    except FileNotFoundError:
        raise UserError(f"--tags {path} does not exist; give a CSV with the columns image,tags") from None
    except csv.Error as error:
        raise UserError(f"{path}, line {rows.line_num} is not CSV ({error}); mend that line") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as UTF-8 text ({error}); save it as CSV UTF-8") from None
    if not tags:
        raise UserError(f"{path} lists no picture; write one a line below the header")
    return tags


def tags_of_folders(
    root: Path, files: Sequence[PurePosixPath], spec: DatasetSpec
) -> dict[PurePosixPath, set[str]]:  # fmt: skip
    """Classes of pictures: the names of all folders on the way to them that name a class.

    Raises:
        UserError: a picture lies in no such folder, nor in one called `background`.
    """
    tags = {}
    for file in files:
        folders = [unicodedata.normalize("NFC", part) for part in file.parent.parts]
        tags[file] = set(folders) & set(spec.classes)
        if not tags[file] and NOTHING not in folders:
            raise UserError(
                f"{root / file} lies in no folder named after a class; move it into one, or into"
                f" {NOTHING!r} if it shows none, or give --tags"
            )
    return tags


def find_mask(root: Path, file: PurePosixPath) -> str | None:
    """Relative path of a picture's mask: its own path with .png in place of its suffix, or after it; None if none."""
    candidates = (f"{file}.png", str(file.with_suffix(".png")), str(file.with_suffix(".PNG")))
    return next((path for path in candidates if (root / path).is_file()), None)


def draw(files: Sequence[PurePosixPath], share: float, total: int, seed: int) -> set[PurePosixPath]:
    """`share` of `total` pictures out of `files`, at least one; a function of their paths and the seed alone."""
    if not 0 < share < 1:
        raise UserError(f"--val_share {share} must lie between 0 and 1; use 0.1 for a tenth")
    order = sorted(files, key=lambda file: hashlib.sha256(f"{seed}/{file}".encode(errors="replace")).digest())
    return set(order[: max(1, round(share * total))])


class _Pictures:
    """Finds pictures by what a user calls them."""

    def __init__(self, files: Sequence[PurePosixPath]) -> None:
        self.exact = {self._key(str(file)): file for file in files}
        self.loose: dict[str, list[PurePosixPath]] = {}
        for file in files:
            for called in {str(file.with_suffix("")), file.name, file.stem}:
                self.loose.setdefault(self._key(called), []).append(file)

    @staticmethod
    def _key(called: str) -> str:
        return unicodedata.normalize("NFC", called.strip())

    def named(self, called: str, place: str) -> PurePosixPath:
        """The picture called so. Raises UserError naming the place if there is none, or more than one."""
        key = self._key(called)
        if key in self.exact:
            return self.exact[key]
        found = self.loose.get(key) or self.loose.get(key.replace("\\", "/"), [])
        if len(found) > 1:
            raise UserError(f"{place}: {called!r} may be {found[0]} or {found[1]}; write the path below --images")
        if not found:
            hint = nearest(key, list(self.exact)) or "; write its path below --images"
            raise UserError(f"{place}: {called!r} is no picture below --images{hint}")
        return found[0]


def _class(word: str, spec: DatasetSpec, place: str) -> str:
    name = unicodedata.normalize("NFC", word)
    if name not in spec.classes:
        raise UserError(f"{place} has the tag {word!r}, which is no class{nearest(word, spec.classes) or '; add it'}")
    return name


def _listed(path: Path, files: Sequence[PurePosixPath]) -> set[PurePosixPath]:
    found = _Pictures(files)
    return {found.named(line, f"--val_list {path}") for line in read_list(path)}


def _write_index(
    out: Path, images: Path, masks: Path | None, files: dict[str, tuple[str, str | None]]
) -> None:  # fmt: skip
    """Folders are kept relative to the index, so that all may move together."""
    folders = {
        "images": os.path.relpath(images.resolve(), out.resolve()),
        "masks": None if masks is None else os.path.relpath(masks.resolve(), out.resolve()),
    }
    content = {"format": INDEX_FORMAT, **folders, "files": files}
    write_whole(out / INDEX, json.dumps(content, indent=1).encode())


def _write_config(out: Path, pictures: int) -> bool:
    """Writes a configuration whose length suits so many training pictures, unless there is one; whether it did."""
    path = out / "config.yaml"
    if path.exists():
        return False
    iterations = min(_MOST, max(_FEWEST, _EPOCHS * pictures // _BATCH))
    lines = [
        "# Every setting that is not here is a default of utils/config.py; add any of them, or give it as a flag.",
        "dataset: custom",
        f"data_root: {json.dumps(str(out.resolve()), ensure_ascii=False)}",
        "train_split: train",
        "val_split: val",
        f"train_long: {_LONG}",
        f"batch_size: {_BATCH}",
        f"max_iters: {iterations}",
        f"warmup_iters: {iterations // 20}",
        f"switch_iters: {iterations * 2 // 3}",
        f"eval_every: {iterations // 10}",
        f"work_dir: {json.dumps(f'runs/{out.resolve().name}', ensure_ascii=False)}",
    ]
    path.write_text("\n".join([*lines, ""]), encoding="utf-8")
    return True


def _say(
    args: Namespace, spec: DatasetSpec, matrix: np.ndarray, splits: dict[str, list[str]], masks: int,
    left: int, own: bool,
) -> None:  # fmt: skip
    counts = ", ".join(f"{name} {count}" for name, count in zip(spec.classes, matrix.sum(0)))
    print(f"{args.out}: {len(splits['train'])} training and {len(splits['val'])} validation pictures, {masks} masks")
    print(f"pictures with each tag: {counts}; without any tag: {(~matrix.any(1)).sum()}")
    for name, count in zip(spec.classes, matrix.sum(0)):
        if not count:
            print(f"no picture has the tag {name!r}: it cannot be learnt")
    if left:
        print(f"{left} pictures below {args.images} are not in {args.tags} and are left out")
    for word in spec.dropped:
        print(f"{word!r} names a class and is left out of the background words")
    if not own:
        print(f"{args.out / 'config.yaml'} was there and is kept")
    print(f"check: python -m datasets.prepare check --dataset custom --root {args.out}")
    print(f"train: python train_voc.py --config {args.out / 'config.yaml'}")
