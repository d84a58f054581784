"""Reading pictures, reading and writing masks, the random view a training step sees, normalisation
on the device.
"""

import io
import math
import struct
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from utils.common.errors import UserError

# Statistics of RGB values in 0..255.
IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)
CLIP_MEAN = (122.7709383, 116.7460125, 104.09373615)
CLIP_STD = (68.5005327, 66.6321579, 70.32316305)

MAX_PIXELS = (
    150_000_000  # a few kB can announce a picture of any size, which would then fill the memory
)

EXIF_ORIENTATION = 0x0112
_QUARTER_TURNS = (5, 6, 7, 8)  # values of the above under which width and height change places

# What Pillow raises on broken files, depending on the format and on where the damage is.
_DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    Image.DecompressionBombError,
)

READ_AGAIN_AFTER = (0.1, 1.0)  # seconds: network mounts fail for a moment


@contextmanager
def open_image(path: str | Path | BinaryIO, name: str | Path = "") -> Iterator[Image.Image]:
    """A picture of which only the header has been read, for `shown_size` and `decoded`.

    Args:
        path: picture file, or its bytes as an open binary file.
        name: what errors call it; the path if empty.

    Raises:
        UserError: the file is missing or no picture, or its header announces more than MAX_PIXELS;
            and, within the
            block, decoding it fails.
    """
    name = name or path
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path if isinstance(path, io.IOBase) else _read(path))
        with image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            yield image
    except Image.DecompressionBombError as error:
        raise UserError(
            f"image {name} has more than {MAX_PIXELS / 1e6:.0f} million pixels; shrink it or take "
            "it off the list"
        ) from error
    except _DECODE_ERRORS as error:
        reason = _reason(error)
        raise UserError(
            f"image {name} cannot be read ({reason}); replace the file or take it off the list"
        ) from error


def shown_size(image: Image.Image) -> tuple[int, int]:
    """(height, width) in pixels as shown: the EXIF rotation may swap what the file says. Reads the
    header alone.
    """
    turned = image.getexif().get(EXIF_ORIENTATION) in _QUARTER_TURNS
    return (image.width, image.height) if turned else (image.height, image.width)


def decoded(image: Image.Image, scale: float = 1.0) -> Image.Image:
    """RGB pixels of a picture from `open_image`, as a person sees it.

    The EXIF rotation is applied; grey, palette, CMYK and 16-bit pictures become RGB; transparency
    is laid over white. With a scale up to 1/2 a JPEG is decoded at 1/2, 1/4 or 1/8 of its size,
    never below `scale` times its size: the decoder averages blocks, so that nothing aliases.
    """
    if scale <= 0.5:
        image.draft(None, (math.ceil(image.width * scale), math.ceil(image.height * scale)))
    image.load()
    ImageOps.exif_transpose(image, in_place=True)
    return _to_rgb(image)


def load_image(path: str | Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a picture as a person sees it: `open_image`, then `decoded`.

    Raises:
        UserError: the file is missing, truncated, no picture or larger than MAX_PIXELS.
    """
    with open_image(path) as image:
        return np.array(decoded(image))


def load_mask(path: str | Path) -> np.ndarray:
    """(H, W) uint8 labels of a palette or 8-bit grey mask file.

    Raises:
        UserError: the file is missing, broken or holds colours instead of labels.
    """
    try:
        with Image.open(_read(path)) as image:
            image.load()
            mode, labels = image.mode, np.array(image)
    except _DECODE_ERRORS as error:
        raise UserError(
            f"mask {path} cannot be read ({_reason(error)}); replace the file"
        ) from error
    if mode not in ("P", "L"):
        raise UserError(
            f"mask {path} has mode {mode}, not labels; save it as palette (P) or 8-bit grey (L) PNG"
        )
    return labels


def mask_png(labels: np.ndarray, colours: np.ndarray | None = None) -> bytes:
    """A single-channel PNG of (H, W) uint8 labels: grey, or with a palette (256, 3) uint8."""
    image, stream = Image.fromarray(labels), io.BytesIO()
    if colours is not None:
        image.putpalette(colours.ravel().tolist())
    image.save(stream, "PNG")
    return stream.getvalue()


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
        """A view of a height x width picture in a crop of `size` px, both sides multiplied by a
        factor in the range.

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
        """RGB picture -> crop (size, size, 3) uint8, of colour `fill` where the picture does not
        reach.
        """
        # Pillow's filter widens when shrinking, so nothing aliases.
        return self._crop(image, tuple(map(round, fill)), self.resampling)

    def of_labels(self, labels: np.ndarray, fill: int) -> np.ndarray:
        """(H, W) uint8 -> (size, size) uint8 by nearest neighbour, `fill` where the picture does
        not reach.
        """
        return self._crop(Image.fromarray(labels), fill, Image.Resampling.NEAREST)

    def valid(self) -> np.ndarray:
        """(size, size) bool, True where the picture reaches."""
        valid = np.zeros((self.size, self.size), bool)
        start, stop = self.columns.start, self.columns.stop
        valid[
            self.rows, slice(self.size - stop, self.size - start) if self.mirrored else self.columns
        ] = True
        return valid

    def _crop(
        self, source: Image.Image, fill: int | tuple[int, ...], method: Image.Resampling
    ) -> np.ndarray:
        across, down = source.width / self.width, source.height / self.height
        left, top, right, bottom = self.window
        box = (left * across, top * down, right * across, bottom * down)
        extent = (self.columns.stop - self.columns.start, self.rows.stop - self.rows.start)
        crop = Image.new(source.mode, (self.size, self.size), fill)
        # only what is kept
        crop.paste(source.resize(extent, method, box), (self.columns.start, self.rows.start))
        return np.array(crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if self.mirrored else crop)


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
    # a tensor of them makes a GPU wait
    channels = (images[:, c].float().sub(mean[c]).div_(std[c]) for c in range(3))
    return torch.stack(list(channels), 1)


def _reason(error: Exception) -> str:
    """Pillow names the bytes in memory where it knows no such format; that tells nobody
    anything.
    """
    return "its content is no picture" if isinstance(error, UnidentifiedImageError) else str(error)


def _read(path: str | Path) -> io.BytesIO:
    """A file's bytes, read again after a moment where the disk or mount fails. Raises OSError if it
    goes on failing.
    """
    for pause in READ_AGAIN_AFTER:
        try:
            return io.BytesIO(Path(path).read_bytes())
        except (PermissionError, IsADirectoryError):
            raise
        except OSError:
            time.sleep(pause)
    return io.BytesIO(Path(path).read_bytes())


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "I" or image.mode.startswith("I;16"):
        # Pillow would clip 16-bit grey at 255 rather than scale it.
        return Image.fromarray(
            (np.array(image, np.int64).clip(0, 65535) >> 8).astype(np.uint8)
        ).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _span(
    length: int, scale: float, size: int, rng: np.random.Generator
) -> tuple[float, float, slice]:
    """One axis of the view: start and end in the source picture, and the slice of the crop that
    they fill.
    """
    scaled = max(1, round(length * scale))
    offset = int(rng.integers(abs(scaled - size) + 1))
    if scaled < size:
        return 0, length, slice(offset, offset + scaled)
    ratio = length / scaled
    return offset * ratio, min((offset + size) * ratio, length), slice(0, size)
