"""Files that are scored, and the masks of the same names."""

import unicodedata
from dataclasses import dataclass
from pathlib import Path

from datasets.folders import without_suffix
from datasets.list_files import check_names, read_list
from datasets.predictions import told_files
from utils.common.errors import UserError

Pairs = list[tuple[Path, Path]]  # a file that is scored, and its mask


@dataclass(frozen=True)
class Folder:
    """A folder of which files are scored: its files by name, and the suffix of those it lacks."""

    path: Path
    files: dict[str, Path]
    suffix: str = ".png"


def predictions_in(folder: Path) -> Folder:
    """Find the label PNGs to score. Raises UserError where there are none."""
    return Folder(folder, told_files(folder, "--predictions"))


def masks_in(folder: Path) -> Folder:
    """Find the true label PNGs, a.JPG.png being the mask of a.JPG. Raises UserError where there are
    none.
    """
    true = told_files(folder, "--masks")
    pictures = {without_suffix(name): mask for name, mask in true.items()}
    return Folder(folder, {**pictures, **true})


def files_to_score(given: Folder, masks: Folder, listed: str | None) -> Pairs:
    """Return the file and the mask of each name of the list, or of all that is given.

    Raises:
        UserError: a file or a mask is missing, or the list names an image twice.
    """
    names = sorted(given.files)
    if listed:
        names = [_listed(name, given) for name in read_list(listed)]
        check_names(Path(listed), names)

    for folder in (given, masks):
        missing = [name for name in names if name not in folder.files]
        if missing:
            raise UserError(
                f"{folder.path} lacks {len(missing)} of {len(names)} images, first {missing[0]}"
                f"{folder.suffix}; complete it or name fewer images with --list"
            )

    return [(given.files[name], masks.files[name]) for name in names]


def _listed(name: str, given: Folder) -> str:
    """Return the name of an image in a list, without the suffix where the list gives its file's
    whole name.
    """
    name = unicodedata.normalize("NFC", name)
    stem = without_suffix(name)
    if name not in given.files and stem in given.files:
        return stem
    return name


def unscored(pairs: Pairs, masks: Folder, what: str, listed: str | None) -> list[str]:
    """Say how many masks are not scored, as they have no prediction or whatever `what` says.

    Returns a sentence, or none where all are scored or a list names what shall be.
    """
    every = set(masks.files.values())
    left = sorted(every - {mask for _, mask in pairs})
    if listed or not left:
        return []
    return [
        f"{len(left)} of {len(every)} masks in {masks.path} have no {what}, first {left[0].name}: "
        f"the score is of the other {len(every) - len(left)}"
    ]
