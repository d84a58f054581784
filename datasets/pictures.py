"""The one way to open a picture or a mask, and to write a mask: what a person sees, or one
sentence.

Every size is that of the picture as shown: the orientation is read by `metadata`, for all formats,
and applied here, for all formats; the library is given the pixels alone.
"""

import io
import math
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from datasets.metadata import Stripped, orientation_in, stripped
from datasets.picture_files import check_size, fenced, library_image, read_file
from utils.common.console import say_once
from utils.common.errors import UserError
from utils.common.opencv import cv2

# Values that are white: of fractions, and of 8, 10, 12, 14, 16 and more bits.
WHITES = (1.0, *(2.0**bits - 1 for bits in (8, 10, 12, 14, 16, 24, 32)))
_DARKEST = 16

_LOSSY = ("JPEG", "MPO", "JPEG2000")  # what may hold other values than were saved
_STRETCHED = ("L;2", "L;4")  # pixels of PNG, of 0..3 and 0..15, that Pillow brings to 0..255

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_QUARTER_TURNS = (5, 6, 7, 8)  # orientations under which width and height change places


class Picture:
    """A picture file of which only the header has been read.

    name: what errors call it. orientation: 1..8 as in EXIF. deep: whether it has more than 8 bits
    per channel. stretched: whether `decoded` found that its values do not fill the range of their
    type, and took their own largest for white.
    """

    def __init__(self, image: Image.Image, name: str, orientation: int = 1, white: int = 0) -> None:
        self.name = name
        self.orientation = orientation
        self._image = image
        self._white = white
        self.deep = image.mode == "F" or image.mode.startswith("I") or "16" in _raw_mode(image)
        self.stretched = False

    @property
    def mode(self) -> str:
        """Return Pillow's mode of the pixels as stored, such as "RGB" or "L"."""
        return self._image.mode

    @property
    def transparent(self) -> bool:
        """Return whether some pixel may let the background through."""
        return self._image.has_transparency_data

    @property
    def turned(self) -> bool:
        """Return whether it is shown otherwise than stored."""
        return self.orientation != 1

    @property
    def shape(self) -> tuple[int, int]:
        """Return (height, width) in px, as shown."""
        image = self._image
        sideways = self.orientation in _QUARTER_TURNS
        if sideways:
            return (image.width, image.height)
        return (image.height, image.width)

    def decoded(self, scale: float = 1.0) -> Image.Image:
        """Return the RGB pixels as a person sees them.

        The orientation is applied; grey, palette, CMYK, deep and floating-point pictures become
        RGB; transparency is laid over white. With a scale up to 1/2 a JPEG is decoded at 1/2, 1/4
        or 1/8 of its size, never below `scale` times its size: the decoder averages blocks, so that
        nothing aliases.

        Raises:
            UserError: the file is cut short or damaged.
        """
        return fenced(self._decoded, self.name, scale)

    def _decoded(self, scale: float) -> Image.Image:
        image = self._image
        if scale <= 0.5:
            image.draft(None, (math.ceil(image.width * scale), math.ceil(image.height * scale)))
        image.load()
        if image.mode == "F" or image.mode.startswith("I"):
            values = np.array(image)
            shown, stretched, white = eight_bits(values, self._white)
            self._note(values.dtype, stretched, white)
            image = Image.fromarray(shown)
        return _turned(_to_rgb(image), self.orientation)

    def _note(self, kind: np.dtype, stretched: bool, white: float) -> None:
        """Keep and say that white is another value than that of the number type."""
        self.stretched = stretched
        if stretched:
            say_once(
                "stretched",
                f"{self.name} does not fill the range of its {kind} values: {white:.6g} is shown "
                "as white; other such pictures likewise",
            )


def open_image(source: str | Path | BinaryIO, name: str | Path = "") -> Picture:
    """Open a picture, of which only the header has been read.

    Args:
        source: picture file, or its bytes as an open binary file.
        name: what errors call it; the path if empty.

    Raises:
        UserError: the file is missing or no picture, or its header announces more than MAX_PIXELS.
    """
    name = str(name or source)
    return fenced(_open, name, source, name)


def load_image(path: str | Path) -> np.ndarray:
    """Load (H, W, 3) uint8 RGB of a picture as a person sees it: `open_image`, then `decoded`.

    Raises:
        UserError: the file is missing, truncated, no picture or larger than MAX_PIXELS.
    """
    return np.array(open_image(path).decoded())


def as_shown(image: Image.Image) -> np.ndarray:
    """Return (H, W, 3) uint8 RGB of an open Pillow image as a person sees it. Raises UserError
    where it cannot be decoded.
    """

    def load() -> Picture:
        """Copy the pixels, with the orientation that is still to be applied."""
        copy = image.copy()  # which loads it; a TIFF is turned by that already
        turned = 1
        if image.format != "TIFF":
            turned = orientation_in(image.info.get("exif", b""))
        return Picture(copy, name, turned)

    name = str(getattr(image, "filename", "") or "the Pillow image")
    return np.array(fenced(load, name).decoded())


def load_mask(path: str | Path) -> np.ndarray:
    """Load (H, W) uint8 labels of a palette or 8-bit grey mask file.

    Raises:
        UserError: the file is missing, broken, or of a form that holds colours or grey levels
            instead of labels.
    """
    return load_palette_mask(path)[0]


def load_palette_mask(path: str | Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Do as `load_mask`, and return also the colours (n, 3) uint8 of labels 0..n-1 where the file
    has a palette.
    """

    def load() -> tuple[str, np.ndarray, list[int] | None]:
        """Return why the file holds no labels, its values as shown, and its palette."""
        parts = stripped(read_file(path))
        image = library_image(parts.content, str(path))
        check_size(image.size)
        why = _no_labels(image)
        image.load()
        image = _turned(image, _orientation(image, parts))
        return why, np.array(image), image.getpalette()

    why, labels, colours = fenced(load, f"mask {path}", remedy="replace the file")
    if why:
        raise UserError(f"mask {path} {why}")
    if colours is None:
        return labels, None
    return labels, np.array(colours, np.uint8).reshape(-1, 3)


def mask_png(labels: np.ndarray, colours: np.ndarray | None = None) -> bytes:
    """Encode (H, W) uint8 labels as a PNG of one channel, grey or with a palette (256, 3) uint8."""
    image = Image.fromarray(labels)
    stream = io.BytesIO()
    if colours is not None:
        image.putpalette(colours.ravel().tolist())
    image.save(stream, "PNG")
    return stream.getvalue()


def eight_bits(values: np.ndarray, white: float = 0) -> tuple[np.ndarray, bool, float]:
    """Bring values of any number type to uint8 so that a person sees something.

    White is what the file declares; else the first of the usual whites (WHITES) that no value
    exceeds, as cameras fill 10, 12 or 14 bits of 16, or the largest value where that does not reach
    a sixteenth of it. Values below 0 make the smallest one black. What is no number is black, and
    infinity white.

    Returns:
        (H, W[, C]) uint8; whether white is other than 65535, or 1 of floating-point numbers, or
        black other than 0; white.
    """
    floating = values.dtype.kind == "f"
    finite = values
    usual = 65535.0
    if floating:
        finite = values[np.isfinite(values)]
        usual = 1.0

    low = min(0.0, float(finite.min(initial=0)))
    most = float(finite.max(initial=0)) - low
    if not most:
        white = usual
    elif white < most:  # also where none is declared
        white = next((usual for usual in WHITES[not floating :] if usual >= most), most)
        if most * _DARKEST < white:
            white = most

    # of integers, this is a shift to the right
    factor = 255 / white if floating else 256 / (white + 1)
    exact: np.ndarray = values.astype(np.float32 if values.dtype.itemsize <= 2 else np.float64)
    shown = np.nan_to_num((exact - low) * factor, copy=False, nan=0, posinf=255, neginf=0)
    return shown.clip(0, 255).astype(np.uint8), white != usual or low < 0, white


def _no_labels(image: Image.Image) -> str:
    """Tell why the values of a file of which only the header is read are no labels, and what to do;
    "" where they are.
    """
    why = ""
    remedy = "save it as palette (P) or 8-bit grey (L) PNG"
    if image.mode not in ("P", "L"):
        why = f"has mode {image.mode}, not labels"
    elif image.format in _LOSSY:
        why = f"is a {image.format} whatever its name, whose values are only near the labels"
    elif _raw_mode(image) in _STRETCHED:
        why = "has fewer than 8 bits of grey, which libraries stretch to 0..255"
    if not why:
        return ""

    if image.mode in ("RGB", "RGBA") and image.format not in _LOSSY:
        remedy = (
            "save its labels as 8-bit grey (L) PNG, not its colours; `prepare custom --masks` also "
            "takes a folder whose labelmap.txt tells the colours, as `convert --format voc` "
            "writes it"
        )
    return f"{why}; {remedy}"


def _open(source: str | Path | BinaryIO, name: str) -> Picture:
    content = read_file(source) if isinstance(source, (str, Path)) else source.read()
    parts = stripped(content)
    if parts.apart and parts.channels > 1 and parts.bits > 8:
        raise UserError(
            f"image {name} is a TIFF whose {parts.channels} channels of {parts.bits} bits lie "
            "apart (planar), which libraries misread; save it with its channels interleaved, such "
            "as by `gdal_translate -co INTERLEAVE=PIXEL`"
        )

    image: Image.Image | None
    try:
        image = library_image(parts.content, name)
        size = image.size
    except UnidentifiedImageError:
        if parts.size is None:
            raise
        image = None  # a TIFF of a kind that Pillow does not know, as of three floating channels
        size = parts.size

    check_size(size)
    if image is None or (image.mode in ("RGB", "RGBA", "LA") and "16" in _raw_mode(image)):
        # Of colours of 16 bits, Pillow keeps the upper 8, and those of 12 bits would be black.
        return _deep_colours(parts, image, name)

    return Picture(image, name, _orientation(image, parts), parts.white)


def _deep_colours(parts: Stripped, image: Image.Image | None, name: str) -> Picture:
    """Read a picture by OpenCV, which keeps all bits of colours; else as Pillow can."""
    values = cv2.imdecode(np.frombuffer(parts.content, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None and image is None:
        raise ValueError(
            f"a TIFF of {parts.channels} channels of {parts.bits} bits that is damaged, or of a "
            "form that no library here reads"
        )
    if image is not None and (values is None or values.dtype == np.uint8):
        return Picture(image, name, parts.orientation)

    values = np.atleast_3d(values)
    colours = values[..., :3][..., ::-1]
    deep = values.dtype != np.uint8
    stretched = False
    white = 0.0
    if deep:
        colours, stretched, white = eight_bits(colours, parts.white)

    if values.shape[-1] == 4 and not parts.opaque:
        whole = 1 if values.dtype.kind == "f" else np.iinfo(values.dtype).max
        colours = np.dstack([colours, eight_bits(values[..., 3], whole)[0]])

    picture = Picture(Image.fromarray(colours.squeeze()), name, parts.orientation)
    picture.deep = deep
    picture._note(values.dtype, stretched, white)
    return picture


def _orientation(image: Image.Image, parts: Stripped) -> int:
    """Return the orientation; of AVIF, the library tells what its boxes say as if it were EXIF."""
    if image.format == "AVIF":
        told = orientation_in(image.info.get("exif", b""))
        if told != 1:
            return told
    return parts.orientation


def _raw_mode(image: Image.Image) -> str:
    """Tell how the file stores pixels, such as "RGB;16B"; empty where that is not known."""
    tiles = getattr(image, "tile", None)
    if not tiles:
        return ""
    raw = tiles[0][3]
    if isinstance(raw, tuple) and raw:
        raw = raw[0]
    return str(raw)


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    if orientation == 1:
        return image
    return image.transpose(_TURNS[orientation])


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if image.mode == "RGB":
        return image
    return image.convert("RGB")
