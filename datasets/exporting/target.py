"""What every form of an export shares: where it goes, what it is of, and the photos in it."""

import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from datasets.exporting.options import ExportOptions
from datasets.lists import Item
from datasets.outlines import regions, rings, run_lengths
from datasets.specs import DatasetSpec
from utils.common.errors import UserError

INSET = 0.25  # px that vertices lie inside, for tools that round down and draw the outline too


@dataclass(frozen=True)
class Target:
    """An export that is being written.

    folder: where files are written. final: what the folder will be called. spec: names of the
    labels. options: how they are written.
    """

    folder: Path
    final: Path
    spec: DatasetSpec
    options: ExportOptions


# takes, of each label map in order, what its form's `write` returned
Collector = Callable[[Item, Any], None]


class Form(Protocol):
    """A module that writes one form."""

    def write(self, target: Target, item: Item, labels: np.ndarray) -> Any:
        """Write the files of one label map (H, W) uint8, perhaps in another process; return what
        the files of all need.
        """

    def gather(self, target: Target) -> AbstractContextManager[Collector]:
        """Write the files of all label maps, as far as there are any; at its end they are whole."""


class Objects(NamedTuple):
    """The objects of a label map: the (n,) uint8 label of each; (H, W) int32 number of each pixel's
    region, from 1, 0 for none; the (m,) place of each region's object.
    """

    labels: np.ndarray
    regions: np.ndarray
    owners: np.ndarray

    def polygons(self, tolerance: float, inset: float = 0) -> list[list[np.ndarray]]:
        """Outline each object: a polygon (k, 2) px per region, as of `rings`."""
        found: list[list[np.ndarray]] = [[] for _ in self.labels]
        for owner, ring in zip(self.owners.tolist(), rings(self.regions, tolerance, inset)):
            found[owner].append(ring)
        return found

    def runs(self) -> list[list[int]]:
        """Count the run lengths of each object."""
        numbers = np.concatenate([[0], self.owners + 1]).astype(np.int32)
        return run_lengths(numbers[self.regions])


def objects_of(labels: np.ndarray, kind: str) -> Objects:
    """Find the objects of a label map (H, W) uint8: one per region or per class, as `kind` is
    "regions" or "classes".
    """
    numbers, of_region = regions(labels)
    if kind == "regions":
        return Objects(of_region, numbers, np.arange(len(of_region)))
    shown, owners = np.unique(of_region, return_inverse=True)
    return Objects(shown, numbers, owners)


def photo_name(item: Item) -> str:
    """Name the copy of a photo, with / between folders; like no other's, even without suffix."""
    return item.name + item.image.suffix


def copy_photo(item: Item, path: Path) -> None:
    """Copy a photo as it is. Raises OSError where that cannot be done."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(item.image, path)


def link_photo(item: Item, path: Path) -> None:
    """Make a link to a photo. Raises UserError where the file system has none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.symlink(item.image.absolute(), path)
    except (OSError, NotImplementedError) as error:
        raise UserError(
            f"{path.parent} takes no links to photos ({error}); copy them with --copy_images"
        ) from error
