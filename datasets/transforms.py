"""The random view a training step sees, and normalisation on the device."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

# Statistics of RGB values in 0..255.
IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)
CLIP_MEAN = (122.7709383, 116.7460125, 104.09373615)
CLIP_STD = (68.5005327, 66.6321579, 70.32316305)
STATISTICS = {"imagenet": (IMAGENET_MEAN, IMAGENET_STD), "clip": (CLIP_MEAN, CLIP_STD)}


@dataclass(frozen=True)
class View:
    """A random view of a picture: rescaled, cropped to a square at a random place, mirrored half of
    the time.

    `window` (left, top, right, bottom) of the height x width picture, in its pixels, fills `rows`
    and `columns` of the crop, magnified by `scale`. Any rendition of the picture may be shown: its
    mask, or, to within a pixel of that, the picture decoded smaller. Source: augmentation of AFA
    (Ru et al., CVPR 2022) and WeCLIP, less their look at the mask.
    """

    height: int
    width: int
    scale: float
    size: int
    window: tuple[float, float, float, float]
    rows: slice
    columns: slice
    mirrored: bool
    resampling: Image.Resampling = Image.Resampling.BILINEAR

    @classmethod
    def draw(
        cls,
        height: int,
        width: int,
        size: int,
        scale_range: tuple[float, float],
        rng: np.random.Generator,
        longest: int = 0,
    ) -> "View":
        """Draw a view of a height x width picture in a crop of `size` px, both sides multiplied by
        a factor in the range.

        With `longest`, the factor is one on the picture shrunk until its longer side is at most
        `longest` px.
        """
        scale = rng.uniform(*scale_range)
        if longest:
            scale *= min(1.0, longest / max(height, width))

        top, bottom, rows = _span(height, scale, size, rng)
        left, right, columns = _span(width, scale, size, rng)
        window = (left, top, right, bottom)
        return cls(height, width, scale, size, window, rows, columns, bool(rng.random() < 0.5))

    def of_image(self, image: Image.Image, fill: Sequence[float]) -> np.ndarray:
        """Crop an RGB picture to (size, size, 3) uint8, of colour `fill` where the picture does not
        reach.
        """
        # Pillow's filter widens when shrinking, so nothing aliases.
        return self._crop(image, tuple(map(round, fill)), self.resampling)

    def of_labels(self, labels: np.ndarray, fill: int) -> np.ndarray:
        """Crop labels (H, W) uint8 to (size, size) uint8 by nearest neighbour, `fill` where the
        picture does not reach.
        """
        return self._crop(Image.fromarray(labels), fill, Image.Resampling.NEAREST)

    def valid(self) -> np.ndarray:
        """Return (size, size) bool, True where the picture reaches."""
        valid = np.zeros((self.size, self.size), bool)
        columns = self.columns
        if self.mirrored:
            columns = slice(self.size - columns.stop, self.size - columns.start)
        valid[self.rows, columns] = True
        return valid

    def _crop(
        self, source: Image.Image, fill: int | tuple[int, ...], method: Image.Resampling
    ) -> np.ndarray:
        across = source.width / self.width
        down = source.height / self.height
        left, top, right, bottom = self.window
        box = (left * across, top * down, right * across, bottom * down)
        extent = (self.columns.stop - self.columns.start, self.rows.stop - self.rows.start)
        crop = Image.new(source.mode, (self.size, self.size), fill)
        # only what is kept
        crop.paste(source.resize(extent, method, box), (self.columns.start, self.rows.start))
        if self.mirrored:
            crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return np.array(crop)


def normalise(
    images: torch.Tensor, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
) -> torch.Tensor:
    """Compute (value - mean) / std per channel, on the images' device.

    Args:
        images: (B, 3, H, W) of values 0..255, usually uint8.
        mean, std: three values each, in 0..255 units.

    Returns:
        (B, 3, H, W) float32.
    """
    # a tensor of them makes a GPU wait
    channels = (images[:, c].float().sub(mean[c]).div_(std[c]) for c in range(3))
    return torch.stack(list(channels), 1)


def _span(
    length: int, scale: float, size: int, rng: np.random.Generator
) -> tuple[float, float, slice]:
    """Return one axis of the view: start and end in the source picture, and the slice of the crop
    that they fill.
    """
    scaled = max(1, round(length * scale))
    offset = int(rng.integers(abs(scaled - size) + 1))
    if scaled < size:
        return 0, length, slice(offset, offset + scaled)
    ratio = length / scaled
    return offset * ratio, min((offset + size) * ratio, length), slice(0, size)
