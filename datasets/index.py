"""The index of a custom data set: where its pictures and masks lie, whatever their names and
folders.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets.list_files import is_plain
from datasets.lists import Items
from utils.common.errors import UserError
from utils.common.files import read_json, write_json

INDEX = "index.json"
# {"format": 1, "images": folder, "masks": folder or null, "files": {name: [image, mask or null]}}
INDEX_FORMAT = 1


@dataclass(frozen=True)
class Index:
    """What an index file says.

    images, masks: folders. files: by name, paths of a picture and of its mask, if it has one,
    below these.
    """

    path: Path
    images: str
    masks: str
    files: Mapping[str, Any]

    def items(self, source: Path, names: Sequence[str]) -> Items:
        """Return the items of the names in a list. Raises UserError, which names the list `source`,
        where the index does not hold one of them.
        """
        for name in names:
            self._check(source, name)
        return Items(
            (
                name,
                os.path.join(self.images, image),
                os.path.join(self.masks, mask) if mask else "",
            )
            for name in names
            for image, mask in (self.files[name],)
        )

    def _check(self, source: Path, name: str) -> None:
        entry = self.files.get(name)
        if entry is None:
            raise UserError(
                f"{source} lists {name!r}, which {self.path} does not hold; prepare the data again"
            )
        if (
            not isinstance(entry, list)
            or len(entry) != 2
            or not (is_plain(entry[0]) and is_plain(entry[1] or ""))
        ):
            raise UserError(
                f"{self.path} has no plain file names at {name!r}; prepare the data again"
            )


def read_index(root: Path) -> Index:
    """Read the index of a custom data set's folder. Raises UserError where it is missing or of
    another form.
    """
    path = root / INDEX
    content = read_json(path)
    files = content.get("files")
    if (
        content.get("format") != INDEX_FORMAT
        or not isinstance(files, dict)
        or not isinstance(content.get("images"), str)
    ):
        raise UserError(
            f"{path} is no index of format {INDEX_FORMAT}; make it with `python -m "
            "datasets.prepare custom`"
        )

    # Resolved first: the folders are relative to where the index really lies.
    images, masks = (
        os.path.normpath(root.resolve() / str(content.get(key))) for key in ("images", "masks")
    )
    return Index(path, images, masks, files)


def write_index(
    root: Path, images: Path, masks: Path | None, files: Mapping[str, tuple[str, str | None]]
) -> None:
    """Write the index of a custom data set into its folder.

    images, masks: folders. files: by name, paths of a picture and of its mask, if it has one,
    below these.
    """
    content = {
        "format": INDEX_FORMAT,
        "images": _relative(images, root),
        "masks": _relative(masks, root) if masks else None,
        "files": files,
    }
    write_json(root / INDEX, content)


def _relative(folder: Path, root: Path) -> str:
    """Return a path relative to the index, so that data and index may move together."""
    return os.path.relpath(folder.resolve(), root.resolve())
