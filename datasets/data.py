"""Datasets and sampling: tagged images to train on, masked images to test on. Only the latter knows
of masks.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from datasets.lists import Item, Items, TagTable
from datasets.mask_signs import misfit
from datasets.pictures import Picture, load_mask, open_image
from datasets.transforms import IMAGENET_MEAN, View
from utils.common.errors import UserError

Sample = dict[str, torch.Tensor | int | str]  # what the loader collates, by name
MOST_SKIPPED = 10  # images in a row; more mean that the disk is gone, not that a file is broken


class Split:
    """Images to train on, and their tags."""

    def __init__(self, items: Iterable[Item], tags: np.ndarray | TagTable) -> None:
        """items: n images; tags: (n, K) bool, the classes of each."""
        self.items = Items.of(items)
        self.tags = TagTable.of(tags)

    def __len__(self) -> int:
        return len(self.items)

    def at(self, places: Sequence[int] | np.ndarray) -> "Split":
        """Return the images at these places, in their order."""
        return Split(self.items.at(places), self.tags.at(places))

    def tagged(self) -> "Split":
        """Return the images that have a tag."""
        tagged = self.tags.tagged
        if tagged.all():
            return self
        return self.at(np.flatnonzero(tagged))

    @property
    def fingerprint(self) -> dict[str, str]:
        """Return the SHA-256 of the names, as a JSON list, and of the tags, both in order.

        Files and pixels do not count.
        """
        names = hashlib.sha256(b"[")
        separator = b""
        for name in self.items.names:
            names.update(separator + json.dumps(name).encode())
            separator = b", "
        names.update(b"]")
        return {
            "images": names.hexdigest(),
            "tags": hashlib.sha256(self.tags.bits.tobytes()).hexdigest(),
        }


class Batch(TypedDict):
    """Views of B training images, as `TaggedImages` gives them and a loader puts them together."""

    image: torch.Tensor  # (B, 3, c, c) uint8
    valid: torch.Tensor  # (B, c, c) bool, False on padding
    tags: torch.Tensor  # (B, K) float32, 1 where tagged
    index: torch.Tensor  # (B,) int64, place in the list of images


class TaggedImages(Dataset):
    """Training images with their image-level labels; of an item, only name and image file are kept.

    The view of an image is a pure function of (seed, iteration, index), so that neither the number
    of workers or processes nor resuming changes what is trained on (model/README.md, "Decisions").
    """

    def __init__(
        self,
        items: Iterable[Item],
        tags: np.ndarray | TagTable,
        crop_size: int,
        scale_range: tuple[float, float] = (0.5, 2.0),
        seed: int = 0,
        fill: Sequence[float] = IMAGENET_MEAN,
        longest: int = 0,
        skip_bad: bool = False,
    ) -> None:
        """
        Args:
            items: n images.
            tags: (n, K) bool, the classes of each.
            crop_size: side of the square views in pixels.
            scale_range: bounds of the random rescaling.
            seed: of the augmentation, >= 0.
            fill: colour, 0..255, of padding.
            longest: longer side, px, that larger images are shrunk to before the rescaling; 0: they
                stay as they are.
            skip_bad: in place of an image that cannot be read, show the next one.

        Raises:
            ValueError: items and tags differ in number.
        """
        images = Items.of(items)
        if len(images) != len(tags):
            raise ValueError(f"{len(images)} items but {len(tags)} rows of tags")

        self.names = images.names
        self.files = images.images
        self.tags = TagTable.of(tags)
        self.crop_size = crop_size
        self.scale_range = scale_range
        self.longest = longest
        self.seed = seed
        self.fill = fill
        self.skip_bad = skip_bad

    def __len__(self) -> int:
        return len(self.files)

    def view(self, key: tuple[int, int], height: int, width: int) -> View:
        """Tell how image `index`, of height x width px, shows at `iteration`, for key = (iteration,
        index).
        """
        rng = np.random.default_rng((self.seed, *key))
        return View.draw(height, width, self.crop_size, self.scale_range, rng, self.longest)

    def altered(self, crop: np.ndarray, key: tuple[int, int]) -> np.ndarray:
        """Change the colours of a view (c, c, 3) uint8; here they stay as they are."""
        return crop

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        """Return the view that image `index` shows at `iteration`, for key = (iteration, index).

        Returns:
            "image": uint8 (3, c, c); "valid": bool (c, c), False on padding; "tags": float32 (K,);
            "index": int, of the image shown; "skipped": why images before it were not, or "".

        Raises:
            UserError: the image cannot be read; with `skip_bad`, nor can those after it.
        """
        iteration, first = key
        skipped: list[str] = []

        for index in (place % len(self) for place in range(first, first + MOST_SKIPPED + 1)):
            try:
                return {**self._sample(iteration, index), "skipped": "; ".join(skipped)}
            except UserError as error:
                if not self.skip_bad:
                    raise
                skipped.append(str(error))

        raise UserError(
            f"{len(skipped)} images one after another cannot be read, the last: {skipped[-1]}"
        )

    def _sample(self, iteration: int, index: int) -> Sample:
        picture = open_image(self.files[index])
        view = self.view((iteration, index), *picture.shape)
        crop = view.of_image(picture.decoded(view.scale), self.fill)
        return {
            "image": _channels_first(self.altered(crop, (iteration, index))),
            "valid": torch.from_numpy(view.valid()),
            "tags": torch.from_numpy(self.tags[index].astype(np.float32)),
            "index": index,
        }


def fitting_mask(path: str | Path, image: str | Path, picture: Picture) -> np.ndarray:
    """Read the mask (H, W) uint8 of a picture, which is the file `image`, opened. Raises UserError
    where it has not the picture's size as shown.
    """
    mask = load_mask(path)
    if mask.shape != picture.shape:
        raise UserError(misfit(path, mask.shape, image, picture))
    return mask


class MaskedImages(Dataset):
    """Whole images with their masks, at original size. Of several processes, process r of w gets
    images r, r + w, ..., so that each image is seen exactly once.
    """

    def __init__(
        self, items: Iterable[Item], rank: int = 0, world: int = 1, skip_bad: bool = False
    ) -> None:
        self.items = Items.of(items)
        self.skip_bad = skip_bad
        self.indices = range(rank, len(self.items), world)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> Sample:
        """Read image `position` of this process's share, and its mask.

        Returns:
            "image": uint8 (3, H, W); "mask": uint8 (H, W) labels, left out where the item has none;
            "name": str; "index": the image's place in the whole list. Of an unreadable one, with
            `skip_bad`: "name", "index" and the "error".

        Raises:
            UserError: a file cannot be read, or image and mask differ in size.
        """
        index = self.indices[position]

        try:
            return self._sample(index)
        except UserError as error:
            if not self.skip_bad:
                raise
            return {"name": self.items[index].name, "index": index, "error": str(error)}

    def _sample(self, index: int) -> Sample:
        item = self.items[index]
        picture = open_image(item.image)
        image = np.array(picture.decoded())
        sample: Sample = {"image": _channels_first(image), "name": item.name, "index": index}
        if item.mask is None:
            return sample

        mask = fitting_mask(item.mask, item.image, picture)
        return {**sample, "mask": torch.from_numpy(mask)}


class IterationSampler(Sampler[list[tuple[int, int]]]):
    """Batch sampler over iterations: each batch is a list of (iteration, index), the keys of
    `TaggedImages`.

    The samples of all batches form one sequence, in which every image comes once an epoch, in an
    order drawn from (seed, epoch). Iteration i takes positions i * batch ... i * batch + batch - 1
    of it, and each of the processes an equal contiguous part of those; so any iteration can be
    resumed at, with any number of processes.
    """

    def __init__(
        self,
        n: int,
        batch: int,
        seed: int,
        start_iteration: int,
        max_iterations: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """
        Args:
            n: number of images.
            batch: images per iteration, all processes together.
            seed: of the order, >= 0.
            start_iteration, max_iterations: first iteration and the one to stop before, counted
                from 0.
            rank, world: this process and their number.

        Raises:
            UserError: the batch cannot be shared equally.
            ValueError: there is no image.
        """
        if n < 1:
            raise ValueError("cannot sample from 0 images")
        if batch < 1 or batch % world:
            raise UserError(
                f"batch {batch} cannot be shared equally by {world} processes; use a multiple of "
                f"{world}"
            )

        self.n = n
        self.batch = batch
        self.seed = seed
        self.iterations = range(start_iteration, max_iterations)
        self.share = batch // world
        self.rank = rank

    def __len__(self) -> int:
        return len(self.iterations)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch = -1
        order = np.empty(0, int)
        for iteration in self.iterations:
            start = iteration * self.batch + self.rank * self.share
            keys = []
            for position in range(start, start + self.share):
                if position // self.n != epoch:
                    epoch = position // self.n
                    order = np.random.default_rng((self.seed, epoch)).permutation(self.n)
                keys.append((iteration, int(order[position % self.n])))
            yield keys


def _channels_first(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
