"""Where the images and masks of a dataset lie on disk. Files are located here and never opened, but for lists."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from datasets.instances import coco_annotations, coco_classes, coco_year
from utils.errors import UserError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True)
class Item:
    """One image of a dataset: its name in lists and tags files, its file, and its mask where there is one."""

    name: str
    image: Path
    mask: Path | None


def items(layout: str, root: str | Path, split: str, list_file: str | Path | None = None) -> list[Item]:
    """The images of a split, each checked to exist (design: command line, "VOC layout", "COCO layout").

    They come in the order of the list; without one, COCO's come in name order.

    Args:
        layout: "voc" (JPEGImages/, SegmentationClassAug/ or else SegmentationClass/, ImageSets/Segmentation/) or
            "coco" (coco2014/{split}2014/, mask/{split}2014/, annotations/; the same with 2017).
        root: the dataset's folder.
        split: a name such as "train_aug" or "val".
        list_file: a text file with one image name (no suffix) a line, used instead of the split's own list.

    Raises:
        UserError: the root, the list or a listed image is missing, the list is empty, repeats or misnames an image.
        ValueError: unknown layout.
    """
    if layout not in ("voc", "coco"):
        raise ValueError(f"layout {layout!r} is neither 'voc' nor 'coco'")
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"{layout} root {root} is not a folder; give the folder that holds the dataset")
    if layout == "voc":
        source = Path(list_file) if list_file else root / "ImageSets" / "Segmentation" / f"{split}.txt"
        return _locate(
            source,
            read_list(source),
            root / "JPEGImages",
            (root / "SegmentationClassAug", root / "SegmentationClass"),
        )
    year = coco_year(root, split)
    source = Path(list_file) if list_file else coco_annotations(root, split)
    names = read_list(source) if list_file else list(coco_classes(root, split))
    folder = f"{split}{year}"
    images = next((d for d in (root / f"coco{year}" / folder, root / folder) if d.is_dir()), None)
    if images is None:
        raise UserError(f"{root} has neither coco{year}/{folder} nor {folder}; put the images of {split} there")
    return _locate(source, names, images, (root / "mask" / folder,))


def pictures(paths: Iterable[str | Path]) -> list[Item]:
    """Files, and all pictures below folders, as items without masks, named by their path without the suffix.

    A name that two files share keeps the suffix of the later one. Raises UserError where a path is missing or a folder
    holds no picture.
    """
    found: dict[str, Item] = {}
    for given in map(Path, paths):
        if not given.exists():
            raise UserError(f"--images {given} does not exist; give picture files or folders")
        files = (
            sorted(f for f in given.rglob("*") if f.suffix.lower() in PICTURE_SUFFIXES) if given.is_dir() else [given]
        )
        if not files:
            raise UserError(f"--images {given} holds no picture ({', '.join(PICTURE_SUFFIXES)}); give another folder")
        for file in files:
            relative = file.relative_to(given) if given.is_dir() else Path(file.name)
            name = relative.with_suffix("").as_posix()
            name = name if name not in found else relative.as_posix()
            found[name] = Item(name, file, None)
    return list(found.values())


def read_list(path: str | Path) -> list[str]:
    """Image names of a list file: one a line, blank lines skipped, any line ending.

    Raises:
        UserError: the file is missing, not UTF-8 text or holds no name.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError as error:
        raise UserError(f"list {path} does not exist; check the split's name or give another list file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"list {path} cannot be read as text ({error}); write one image name a line") from error
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise UserError(f"list {path} holds no image name; write one a line")
    return names


def _locate(source: Path, names: list[str], image_dir: Path, mask_dirs: tuple[Path, ...]) -> list[Item]:
    """Items of `names`; errors name `source`. Folders are listed once, as a stat an image is slow on network disks."""
    _check_names(source, names)
    folders = {name.rpartition("/")[0] for name in names}
    images = _listing(image_dir, folders)
    masks = [(folder, _listing(folder, folders)) for folder in mask_dirs]
    located, missing = [], []
    for name in names:
        file = next((name + suffix for suffix in IMAGE_SUFFIXES if name + suffix in images), None)
        if file is None:
            missing.append(name)
            continue
        mask = next((folder / f"{name}.png" for folder, files in masks if f"{name}.png" in files), None)
        located.append(Item(name, image_dir / file, mask))
    if missing:
        raise UserError(
            f"{len(missing)} of the {len(names)} images listed in {source} are not in {image_dir}, first {missing[0]};"
            " complete the images or shorten the list"
        )
    return located


def _check_names(source: Path, names: list[str]) -> None:
    seen = set()
    for name in names:
        if name.startswith("/") or "\\" in name or name[1:2] == ":" or ".." in name.split("/"):
            raise UserError(f"{source} lists {name!r}; list plain image names relative to the image folder")
        if name in seen:
            raise UserError(f"{source} lists {name!r} twice; remove the second line")
        seen.add(name)


def _listing(root: Path, folders: Iterable[str]) -> set[str]:
    """Files in the given folders under `root`, as paths relative to it; a missing folder holds none."""
    found = set()
    for folder in folders:
        if (root / folder).is_dir():
            with os.scandir(root / folder) as entries:
                found.update(f"{folder}/{entry.name}" if folder else entry.name for entry in entries)
    return found
