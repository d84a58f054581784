"""The file of a picture, up to the library's image: read from a disk that may fail for a moment,
opened by Pillow as one of the formats that are pictures, and every fault put into one sentence.
"""

import importlib
import io
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from utils.common.errors import UserError

# A few kB can announce a picture of any size, which would then fill the memory.
MAX_PIXELS = 150_000_000

# What Pillow may try: pictures alone, none of the formats that start other programs.
FORMATS = (
    *("AVIF", "BMP", "DIB", "GIF", "HEIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TGA"),
    *("TIFF", "WEBP"),
)
HEIC_PLUGIN = "pillow-heif"
# Content that people take for a picture; bytes 4..12 of it for the first kind.
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_NOT_READ = {
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"8BPS": "Photoshop",
    b"%PDF": "PDF",
    b"%!PS": "PostScript",
    b"<svg": "SVG",
    b"<!DOCTYPE html": "a web page",
    b"<html": "a web page",
    b"version https://git-lfs": "a pointer of Git LFS, whose file was not fetched",
}

READ_AGAIN_AFTER = (0.1, 1.0)  # seconds: network mounts fail for a moment

warnings.filterwarnings("ignore", module=r"PIL\.")  # of metadata and sizes, which are handled here


def read_file(path: str | Path) -> bytes:
    """Read a file's bytes, again after a moment where the disk or mount fails. Raises OSError if it
    goes on failing.
    """
    for pause in READ_AGAIN_AFTER:
        try:
            return Path(path).read_bytes()
        except (PermissionError, IsADirectoryError):
            raise
        except OSError:
            time.sleep(pause)
    return Path(path).read_bytes()


def library_image(content: bytes, name: str) -> Image.Image:
    """Open the bytes of a picture, of which only the header is read; `name` is for errors.

    Raises:
        UserError: they are of a kind that people take for a picture, and is read by no library
            here.
        UnidentifiedImageError: Pillow knows no such picture.
    """
    if content[4:8] == b"ftyp" and content[8:12] in _HEIC_BRANDS:
        _register_heic(name)

    kind = next((kind for start, kind in _NOT_READ.items() if content.startswith(start)), "")
    if kind:
        raise UserError(f"image {name} is {kind}; replace it by a JPEG or PNG of the picture")

    Image.init()
    return Image.open(io.BytesIO(content), formats=[name for name in FORMATS if name in Image.OPEN])


def _register_heic(name: str) -> None:
    try:
        importlib.import_module("pillow_heif").register_heif_opener()
    except ImportError:
        raise UserError(
            f"image {name} is HEIC, whatever its name, which needs the package {HEIC_PLUGIN}; `pip "
            f"install {HEIC_PLUGIN}`, or save it as JPEG"
        ) from None


def check_size(size: tuple[int, int]) -> None:
    """Raise DecompressionBombError, which `fenced` knows, for a picture of more than MAX_PIXELS."""
    if size[0] * size[1] > MAX_PIXELS:
        raise Image.DecompressionBombError


def fenced(work: Callable[..., Any], name: str, *given: Any, remedy: str = "") -> Any:
    """Call work(*given), and put whatever a library raises on a file into one sentence."""
    try:
        return work(*given)
    except (UserError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise UserError(
            f"image {name} has more than {MAX_PIXELS / 1e6:.0f} million pixels; shrink it or take "
            "it off the list"
        ) from error
    except Exception as error:  # formats and versions of the library raise nearly anything
        what = f"image {name}"
        if name.startswith("mask "):
            what = name
        if isinstance(error, FileNotFoundError):
            raise UserError(
                f"{what} does not exist; check its path, or take it off the list"
            ) from error
        remedy = remedy or "replace the file or take it off the list"

        raise UserError(f"{what} cannot be read ({_reason(error)}); {remedy}") from error


def _reason(error: Exception) -> str:
    """Tell why a file cannot be read; where Pillow knows no such format, it names the bytes in
    memory, which tells nobody anything.
    """
    if isinstance(error, UnidentifiedImageError):
        return "its content is no picture"
    return " ".join(str(error).split())[:200] or type(error).__name__
