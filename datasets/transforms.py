"""Reading pictures, the random view a training step sees of one, and normalisation on the device."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from utils.errors import UserError

# Statistics of RGB values in 0..255.
IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)
CLIP_MEAN = (122.7709383, 116.7460125, 104.09373615)
CLIP_STD = (68.5005327, 66.6321579, 70.32316305)

# What Pillow raises on broken files, depending on the format and on where the damage is.
_DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


def load_image(path: str | Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a picture as a person sees it.

    The EXIF rotation is applied; grey, palette, CMYK and 16-bit pictures become RGB; transparency is laid over white.

    Raises:
        UserError: the file is missing, truncated or no picture.
    """
    try:
        with Image.open(path) as image:
            image.load()
            return np.array(_to_rgb(ImageOps.exif_transpose(image)))
    except _DECODE_ERRORS as error:
        raise UserError(f"image {path} cannot be read ({error}); replace the file or take it off the list") from error


def load_mask(path: str | Path) -> np.ndarray:
    """(H, W) uint8 labels of a palette or 8-bit grey mask file.

    Raises:
        UserError: the file is missing, broken or holds colours instead of labels.
    """
    try:
        with Image.open(path) as image:
            image.load()
            mode, labels = image.mode, np.array(image)
    except _DECODE_ERRORS as error:
        raise UserError(f"mask {path} cannot be read ({error}); replace the file") from error
    if mode not in ("P", "L"):
        raise UserError(f"mask {path} has mode {mode}, not labels; save it as palette (P) or 8-bit grey (L) PNG")
    return labels


@dataclass(frozen=True)
class View:
    """A random view of a picture: rescaled, cropped to a square at a random place, mirrored half of the time.

    `window` (left, top, right, bottom) of the picture, in its pixels, fills `rows` and `columns` of the crop.
    Source: augmentation of AFA (Ru et al., CVPR 2022) and WeCLIP, without their look at the mask.
    """

    size: int
    window: tuple[float, float, float, float]
    rows: slice
    columns: slice
    mirrored: bool

    @classmethod
    def draw(
        cls, height: int, width: int, size: int, scale_range: tuple[float, float], rng: np.random.Generator
    ) -> "View":
        """A view of a height x width picture in a crop of `size` px, both sides multiplied by a factor in the range."""
        scale = rng.uniform(*scale_range)
        top, bottom, rows = _span(height, scale, size, rng)
        left, right, columns = _span(width, scale, size, rng)
        return cls(size, (left, top, right, bottom), rows, columns, bool(rng.random() < 0.5))

    def of_image(self, image: np.ndarray, fill: Sequence[float]) -> np.ndarray:
        """(H, W, 3) uint8 -> crop (size, size, 3) uint8, of colour `fill` where the picture does not reach."""
        # Pillow's filter widens when shrinking, so nothing aliases.
        return self._paste(image, np.round(fill).astype(np.uint8), Image.Resampling.BILINEAR)

    def of_labels(self, labels: np.ndarray, fill: int) -> np.ndarray:
        """(H, W) uint8 -> (size, size) uint8 by nearest neighbour, `fill` where the picture does not reach."""
        return self._paste(labels, np.uint8(fill), Image.Resampling.NEAREST)

    def valid(self) -> np.ndarray:
        """(size, size) bool, True where the picture reaches."""
        return self._place(True, np.zeros((self.size, self.size), bool))

    def _paste(self, source: np.ndarray, fill: np.ndarray, method: Image.Resampling) -> np.ndarray:
        extent = (self.columns.stop - self.columns.start, self.rows.stop - self.rows.start)
        part = np.asarray(Image.fromarray(source).resize(extent, method, self.window))  # only what is kept
        crop = np.empty((self.size, self.size, *source.shape[2:]), np.uint8)
        crop[:] = fill
        return self._place(part, crop)

    def _place(self, part: np.ndarray | bool, crop: np.ndarray) -> np.ndarray:
        crop[self.rows, self.columns] = part
        return np.ascontiguousarray(crop[:, ::-1]) if self.mirrored else crop


def training_view(
    image: np.ndarray,
    size: int,
    scale_range: tuple[float, float],
    rng: np.random.Generator,
    fill: Sequence[float] = IMAGENET_MEAN,
) -> tuple[np.ndarray, np.ndarray]:
    """A random `View` of an image (H, W, 3) uint8.

    Returns:
        The crop (size, size, 3) uint8 and valid (size, size) bool, False where the crop was filled.
    """
    view = View.draw(*image.shape[:2], size, scale_range, rng)
    return view.of_image(image, fill), view.valid()


def normalise(
    images: torch.Tensor, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
) -> torch.Tensor:
    """(value - mean) / std a channel, on the images' device.

    Args:
        images: (B, 3, H, W) of values 0..255, usually uint8.
        mean, std: three values each, in 0..255 units.

    Returns:
        (B, 3, H, W) float32.
    """
    mean, std = (torch.tensor(values, device=images.device).view(1, 3, 1, 1) for values in (mean, std))
    return (images.float() - mean) / std


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "I" or image.mode.startswith("I;16"):
        # Pillow would clip 16-bit grey at 255 rather than scale it.
        return Image.fromarray((np.array(image, np.int64).clip(0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _span(length: int, scale: float, size: int, rng: np.random.Generator) -> tuple[float, float, slice]:
    """One axis of the view: start and end in the source picture, and the slice of the crop that they fill."""
    scaled = max(1, round(length * scale))
    offset = int(rng.integers(abs(scaled - size) + 1))
    if scaled < size:
        return 0, length, slice(offset, offset + scaled)
    ratio = length / scaled
    return offset * ratio, min((offset + size) * ratio, length), slice(0, size)
