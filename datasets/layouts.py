"""Where the images and masks of a dataset lie on disk. Files are located here and never opened, but
for lists.
"""

import os
import shlex
from collections.abc import Iterable, Iterator, Sequence
from itertools import compress
from pathlib import Path

from datasets.coco_json import coco_annotations, coco_classes, coco_image_folders, coco_year
from datasets.coco_masks import mask_folders, short_name
from datasets.folders import picture_suffixes
from datasets.index import INDEX, read_index
from datasets.list_files import check_names, read_list
from datasets.lists import Items
from utils.common.errors import UserError

Listing = dict[str, tuple[str, ...]]  # suffixes of each file's path without its suffix


def items(
    layout: str,
    root: str | Path,
    split: str,
    list_file: str | Path | None = None,
    complete: bool = True,
) -> Items:
    """Return the images of a split, each checked to exist.

    They come in the order of the list. Without one, COCO's are the images with objects, as in the
    field's lists (82,081 of train2014, 40,137 of val2014), in name order.

    Args:
        layout: "voc" (JPEGImages/, SegmentationClass/ or else SegmentationClassAug/,
            ImageSets/Segmentation/),
            "coco" (coco2014/{split}2014/, mask/{split}2014/, annotations/; the same with 2017; or
            WeCLIP's JPEGImages/{split}/ and SegmentationClass/{split}/) or
            "custom" (index.json, which says where the files are, and {split}.txt).
        root: the dataset's folder.
        split: a name such as "train_aug" or "val".
        list_file: a text file as `read_list` takes it, used instead of the split's own list.
        complete: whether a missing image is an error; otherwise its item names the file that should
            be there.

    Raises:
        UserError: the root, the list or a listed image is missing, the list is empty, repeats or
            misnames an image.
        ValueError: unknown layout.
    """
    if layout not in ("voc", "coco", "custom"):
        raise ValueError(f"layout {layout!r} is none of 'voc', 'coco' and 'custom'")
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"{layout} root {root} is not a folder; {_remedy(layout, root)}")
    given = Path(list_file) if list_file else None
    if layout == "custom":
        return _indexed(root, given or root / f"{split}.txt", complete)
    if layout == "voc":
        source = given or _voc_list(root, split)
        names = read_list(source)
        return _locate(source, names, root / "JPEGImages", voc_mask_folders(root), complete)

    year = coco_year(root, split)
    source = given or coco_annotations(root, split)
    names = read_list(source) if given else _with_objects(root, split)
    images = _coco_images(root, split, year)
    return _locate(source, names, images, mask_folders(root, split, year), complete)


def _remedy(layout: str, root: Path) -> str:
    """Return what to do where the folder of a data set is not there."""
    if root.name == f"toy_{layout}":  # as the toy configurations call it
        return (
            f"draw it with `python -m datasets.prepare toy --layout {layout} --root "
            f"{shlex.quote(str(root))}`"
        )
    flag = "--data_root"
    if layout != "custom":
        flag += f" ({layout.upper()}_ROOT=... for run_{layout}.sh)"
    return f"name the data set's folder by {flag}, or by --root where a command has that"


def voc_mask_folders(root: Path) -> tuple[Path, ...]:
    """Return the folders that may hold the masks of VOC, the one that is asked first in front.

    That is VOC's own: as some repositories make it, SegmentationClassAug holds SBD's masks of all
    of SBD's images, of VOC's val too, which are coarser and have no rim of 255.
    """
    return root / "SegmentationClass", root / "SegmentationClassAug"


def _voc_list(root: Path, split: str) -> Path:
    """Return the list of a split of VOC.

    Raises UserError where the folder is not VOC's, or train_aug, which VOC itself lacks, is still
    to be made.
    """
    path = root / "ImageSets" / "Segmentation" / f"{split}.txt"
    if not path.is_file() and not (root / "JPEGImages").is_dir():
        raise UserError(
            f"{root} has no folder JPEGImages, as VOC 2012 has; name the folder VOC2012 of the "
            "unpacked archive"
        )

    if split == "train_aug" and not path.is_file():
        raise UserError(
            f"list {path} does not exist, as VOC itself has none; `python -m datasets.prepare voc "
            f"--root {shlex.quote(str(root))}` makes it from the masks in SegmentationClassAug, "
            "with --sbd DIR from SBD"
        )
    return path


def _with_objects(root: Path, split: str) -> list[str]:
    """Return the names of COCO's images that show an object."""
    names = [name for name, classes in coco_classes(root, split).items() if classes]
    if not names:
        raise UserError(
            f"no image of {coco_annotations(root, split)} has an object; use the official "
            "instance annotations"
        )
    return names


def _coco_images(root: Path, split: str, year: str) -> Path:
    """Return the folder of the images of a split of COCO."""
    places = coco_image_folders(root, split, year)
    found = next((place for place in places if place.is_dir()), None)
    if found is None:
        usual = " nor ".join(str(place.relative_to(root)) for place in places[:3])
        raise UserError(f"{root} has neither {usual}; put the images of {split} there")
    return found


def layout_of(root: str | Path) -> str:
    """Return the layout that a folder has: "custom", "voc" or "coco".

    Raises:
        UserError: it holds no data set.
    """
    for layout, name in (
        ("custom", INDEX),
        ("voc", "ImageSets"),
        ("coco", "annotations"),  # WeCLIP's COCO has JPEGImages too
        ("voc", "JPEGImages"),
    ):
        if (Path(root) / name).exists():
            return layout

    raise UserError(
        f"--root {root} is no data set's folder: it has neither JPEGImages (VOC) nor annotations "
        f"(COCO) nor {INDEX}, which `python -m datasets.prepare custom` writes; name one that has"
    )


def _locate(
    source: Path, names: list[str], image_dir: Path, mask_dirs: tuple[Path, ...], complete: bool
) -> Items:
    """Return the items of `names`; errors name `source`. Folders are listed once, as one stat per
    image is slow on network disks.
    """
    check_names(source, names)
    folders = {name.rpartition("/")[0] for name in names}
    images = _listing(image_dir, folders)
    stems = [_stem(name, images) for name in names]
    if stems != names:
        check_names(source, stems)
        names = stems

    masks = [(folder, _listing(folder, folders)) for folder in mask_dirs]
    if complete:
        suffixes = picture_suffixes()
        missing = [name for name in names if not _first(name, suffixes, images)]
        _check_complete(source, names, missing, image_dir)

    return Items(_located(names, image_dir, images, masks))


def _stem(name: str, images: Listing) -> str:
    """Return the name of an image whose list gives its file's whole name, without the suffix."""
    stem, dot, suffix = name.rpartition(".")
    if name not in images and f"{dot}{suffix}" in images.get(stem, ()):
        return stem
    return name


def _located(
    names: list[str], image_dir: Path, images: Listing, masks: Sequence[tuple[Path, Listing]]
) -> Iterator[tuple[str, str, str]]:
    """Yield name, image file and mask file of each image, "" for no mask; an image that is missing
    has the file that should be there.
    """
    suffixes = picture_suffixes()
    folder = str(image_dir)
    for name in names:
        file = _first(name, suffixes, images) or f"{name}.jpg"
        yield name, os.path.join(folder, file), _mask_of(name, masks)


def _mask_of(name: str, masks: Sequence[tuple[Path, Listing]]) -> str:
    """Return the mask of an image from the first folder that has it, under its name or the short
    name of COCO; "" where there is none.
    """
    for folder, files in masks:
        for stem in (name, short_name(name)):
            if file := _first(stem, (".png",), files):
                return os.path.join(folder, file)
    return ""


def _indexed(root: Path, source: Path, complete: bool) -> Items:
    """Return the items of a custom data set's list `source`, located by its index."""
    index = read_index(root)
    names = read_list(source)
    check_names(source, names)
    located = index.items(source, names)
    if complete:
        absent = (not os.path.isfile(image) for image in located.images)
        _check_complete(source, names, list(compress(names, absent)), Path(index.images))

    return located


def _check_complete(source: Path, names: list[str], missing: list[str], image_dir: Path) -> None:
    if not missing:
        return
    there = ""
    if len(missing) == len(names):
        there = found_instead(image_dir)
    raise UserError(
        f"{len(missing)} of the {len(names)} images listed in {source} are not in {image_dir}, "
        f"first {missing[0]}{there}; complete the images or correct the list"
    )


def found_instead(folder: Path) -> str:
    """Tell, after a comma, what lies in a folder that lacks all that is looked for: names of other
    files, or a folder that was unpacked one level too deep. Empty where nothing does.
    """
    if not folder.is_dir():
        return ""
    first = min((each for each in os.listdir(folder) if not each.startswith(".")), default="")
    if not first:
        return ", the folder being empty"
    if (folder / first).is_dir():
        return f", but the folder {folder / first} is, whose files may belong one level higher"
    return f", but names like {first} are"


def _listing(root: Path, folders: Iterable[str]) -> Listing:
    """List the files in the given folders under `root`; a missing folder holds none."""
    found: Listing = {}
    endings: dict[tuple[str, ...], tuple[str, ...]] = {}  # each kept once
    for folder in folders:
        if not (root / folder).is_dir():
            continue
        above = f"{folder}/" if folder else ""
        for name in os.listdir(root / folder):
            stem, suffix = os.path.splitext(above + name)
            suffixes = (*found.get(stem, ()), suffix)
            found[stem] = endings.setdefault(suffixes, suffixes)
    return found


def _first(name: str, suffixes: Iterable[str], listing: Listing) -> str:
    """Return the file of this name with the first of the suffixes, in any case, that there is; ""
    where there is none.
    """
    there = listing.get(name)
    if there is None:
        return ""
    if len(there) == 1:  # as nearly always
        return name + there[0] if there[0].lower() in suffixes else ""
    found = (min((own for own in there if own.lower() == s), default="") for s in suffixes)
    return next((name + suffix for suffix in found if suffix), "")
