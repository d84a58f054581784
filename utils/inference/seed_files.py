"""Files of CAM seeds, in the layouts of this field's repositories: written, and read without
unpickling them.
"""

import io
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clip.resize import resize
from utils.common.console import say_once
from utils.common.errors import UserError
from utils.common.files import npy_of
from utils.common.plain_pickle import read_npy_dict
from utils.common.stored_tensors import first_sentence

SEEDS = "seeds"  # where exports have theirs
LAYOUTS = {"npz": ".npz", "irn": ".npy", "mctformer": ".npy"}

_KEYS = "keys"
_BEST = ("high_res", "attn_highres")  # of several maps at the size of the image, the one to take
_LARGEST = 1 << 30  # bytes, unless all classes of a large image need more
_ROUNDING = 1e-3  # by which half precision and interpolation leave 0..1
_FORM = "give seed files of a layout that --help lists"


def packed(layout: str, keys: Tensor, scores: Tensor) -> bytes:
    """Return the content of a seed file: classes (n,) and scores (n, H, W) in one of LAYOUTS."""
    names = keys.numpy()
    values = scores.half().numpy()
    if layout == "npz":
        stream = io.BytesIO()
        np.savez_compressed(stream, keys=names, scores=values)
        return stream.getvalue()

    if layout == "irn":
        size = [-(-side // 4) for side in scores.shape[-2:]]
        small = scores.new_zeros(0, *size)
        if len(keys):
            small = resize(scores[None], size)[0]
        return npy_of({"keys": names, "cam": small, "high_res": values.astype(np.float32)})
    return npy_of(dict(zip(names.tolist(), values)))


def read_seeds(path: Path, size: tuple[int, int], classes: int) -> tuple[Tensor, Tensor]:
    """Read the seeds of an image of size (H, W) in any layout that is known by its content.

    Returns classes (n,) int64, of 0..classes-1, and their scores (n, H, W) float32, 0..1.

    Raises:
        UserError: the file is of no such layout, has maps of another size, a class outside, or
            scores that no background threshold is for.
    """
    held = _held(path, max(_LARGEST, 32 * classes * size[0] * size[1]))
    if _KEYS in held:
        keys, maps = _keyed(path, held, size)
    else:
        keys, maps = _by_class(path, held, size)

    outside = [key for key in keys if not 0 <= key < classes]
    if outside:
        raise UserError(
            f"{path} has the class {outside[0]}, and the classes are 0..{classes - 1} without "
            "background; save each class's place in the class list, from 0 on, or name the data "
            "set with --dataset or --classes"
        )

    scores = np.zeros((len(keys), *size), np.float32)
    with np.errstate(over="ignore"):  # an infinite score is refused
        for score, values in zip(scores, maps):
            score[:] = values

    _check_range(path, scores)
    return torch.tensor(keys, dtype=torch.int64), torch.from_numpy(scores)


def _held(path: Path, most: int) -> dict[str | int, Any]:
    """Read the dict in a file, of at most so many bytes; its arrays are NumPy's."""
    try:
        if path.stat().st_size > most:
            raise _too_large(path, most)
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); {_FORM}") from error

    if content.startswith(b"PK"):
        return _archived(path, content, most)
    try:
        return read_npy_dict(content)
    except ValueError as error:
        raise UserError(f"{path} {error}; {_FORM}") from error


def _archived(path: Path, content: bytes, most: int) -> dict[str | int, Any]:
    """Read the arrays of an .npz file, of at most so many bytes unpacked."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            unpacked = sum(record.file_size for record in archive.infolist())
        if unpacked > most:
            raise _too_large(path, most)
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return dict(arrays)
    except UserError:
        raise
    except Exception as error:  # bytes of no form make the reader fail in any way
        raise UserError(f"{path} cannot be read ({first_sentence(error)}); {_FORM}") from error


def _too_large(path: Path, most: int) -> UserError:
    return UserError(
        f"{path} holds more than {most >> 20} MiB, too much for seeds of one image; {_FORM}"
    )


def _keyed(
    path: Path, held: dict[str | int, Any], size: tuple[int, int]
) -> tuple[list[int], Iterable[np.ndarray]]:
    """Return classes and maps (n, H, W) of `keys` and entries of maps, of which one has the image's
    size. Background may be the first of either.
    """
    keys = _whole_numbers(held[_KEYS])
    if keys is None:
        raise UserError(f"{path} has `keys` that are no array of whole numbers; {_FORM}")
    if not keys:
        return [], []

    maps = {name: each for name, each in held.items() if name != _KEYS and _is_numbers(each)}
    name = _of_size(path, maps, (len(keys), *size))
    if name is not None:
        return keys, maps[name]

    # AMN: the background's map comes first, its key is left out
    name = _of_size(path, maps, (len(keys) + 1, *size))
    if name is not None:
        say_once(
            "background of seeds",
            f"{path} has one more map in {name} than `keys`: there and in all files like it the "
            "first is left out as the background's, since a threshold decides on background",
        )
        return keys, maps[name][1:]

    # PuzzleCAM: the background's key comes first, and it has no map
    name = _of_size(path, maps, (len(keys) - 1, *size))
    if name is not None and keys[0] == 0 and all(keys[1:]):
        return [key - 1 for key in keys[1:]], maps[name]

    raise _other_size(path, {str(name): each for name, each in maps.items()}, (len(keys), *size))


def _of_size(path: Path, maps: dict[str | int, Any], shape: tuple[int, ...]) -> str | int | None:
    """Return the name of the maps of a shape, the best of several; None where there are none.

    Raises UserError where several have it and none is known to be the best.
    """
    fitting = [name for name, each in maps.items() if each.shape == shape]
    best = [name for name in _BEST if name in fitting] or fitting
    if len(fitting) > 1 and best is fitting:
        raise UserError(
            f"{path} has several maps of the image's size, {' and '.join(map(str, fitting))}; keep "
            f"the one to score, or call it {_BEST[0]}"
        )
    return next(iter(best), None)


def _whole_numbers(keys: Any) -> list[int] | None:
    """Return the whole numbers (n,) of an array or list; None where it holds anything else."""
    if isinstance(keys, np.ndarray):
        if keys.ndim != 1 or (keys.size and keys.dtype.kind not in "iu"):
            return None
        keys = keys.tolist()
    if isinstance(keys, list) and all(type(key) is int for key in keys):
        return keys
    return None


def _by_class(
    path: Path, held: dict[str | int, Any], size: tuple[int, int]
) -> tuple[list[int], Iterable[np.ndarray]]:
    """Return classes and maps (H, W) of a dict from class to map."""
    for key, each in held.items():
        if type(key) is not int or not _is_numbers(each):
            raise UserError(f"{path} has an entry {key!r:.40} that is no map of a class; {_FORM}")
        if each.shape != size:
            raise _other_size(path, {f"class {key}": each}, size)
    return [key for key in held if isinstance(key, int)], list(held.values())


def _is_numbers(values: Any) -> bool:
    return isinstance(values, np.ndarray) and values.dtype.kind in "biuf"


def _other_size(path: Path, maps: dict[str, np.ndarray], wanted: tuple[int, ...]) -> UserError:
    found = ", ".join(f"{name} is {each.shape}" for name, each in maps.items()) or "there are none"
    return UserError(
        f"{path} has no maps of shape {wanted}, which its mask has: {found}; save maps at the "
        "image's original size"
    )


def _check_range(path: Path, scores: np.ndarray) -> None:
    """Raise UserError for scores that are not finite, or further than rounding from 0..1."""
    if not scores.size:
        return
    low, high = float(scores.min()), float(scores.max())
    if not np.isfinite([low, high]).all():
        raise UserError(
            f"{path} has scores that are NaN or infinite; make it anew without, where a map may "
            "have been divided by its maximum of 0"
        )
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        raise UserError(
            f"{path} has scores of {low:.4g} to {high:.4g}, and background thresholds are of "
            "0..1; normalise each class's map to 0..1 before it is saved"
        )
