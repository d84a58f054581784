"""Reading JSON with errors that name the place, and writing files, JSON among them, whole or not at
all.
"""

import contextlib
import hashlib
import io
import json
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from utils.common.console import say_once
from utils.common.disk import flush, flush_folder, put_in_place
from utils.common.errors import UserError

_BLOCK = 1 << 20


class _AnyNumPy(pickle.Pickler):
    """A pickler whose arrays every NumPy reads: its own way names the module `numpy._core` since
    version 2, which those before 1.26 have not.
    """

    def reducer_override(self, value: Any) -> Any:
        """Say how an array is made again: an empty one, which then takes shape, type and bytes."""
        if type(value) is not np.ndarray:
            return NotImplemented
        return np.ndarray, ((0,), "b"), value.__reduce__()[2]


def npy_of(values: dict) -> bytes:
    """Serialise a dictionary as NumPy does: `np.load(file, allow_pickle=True).item()` of any
    version reads it.
    """
    whole = np.empty((), object)
    whole[()] = values
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, np.lib.format.header_data_from_array_1_0(whole))
    _AnyNumPy(stream, protocol=3).dump(whole)
    return stream.getvalue()


def read_json(
    path: str | Path,
    each_object: Callable[[dict], Any] | None = None,
    kinds: tuple[type, ...] = (dict,),
) -> Any:
    """Read the object in a JSON file of any Unicode encoding, with or without a byte order mark;
    `each_object` replaces every object as it is read, innermost first.

    Raises:
        UserError: the file is missing, not JSON (names line and column) or none of `kinds`, an
            object by default.
    """
    try:
        content = json.loads(_json_text(Path(path)), object_hook=each_object)
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; check the path or make the file first") from error
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise UserError(
            f"{path} is not valid JSON at {place} ({error.msg}); make or copy it again"
        ) from error
    # ValueError: among others no UTF-8, a number of too many digits
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path} cannot be read as JSON text ({error}); make or copy it again"
        ) from error

    if not isinstance(content, kinds):
        raise UserError(
            f"{path} holds a JSON {type(content).__name__}, not an object; make or copy it again"
        )

    return content


def _json_text(path: Path) -> str:
    """Read the text of a JSON file; its bytes, which may be a gigabyte, are not held beside it."""
    content = path.read_bytes()
    return content.decode(json.detect_encoding(content), "surrogatepass")


def decoded_text(path: str | Path, content: bytes) -> str:
    """Return the text of a file's bytes: UTF-16 or UTF-8, with or without a byte order mark, else
    Windows's Western encoding.

    Raises:
        UserError: it is none of these.
    """
    even = content[:200:2].count(0)
    odd = content[1:200:2].count(0)
    many = len(content[:200]) // 5  # plain letters in UTF-16 have more zeros than this
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        encodings = ["utf-16"]
    elif even > max(many, odd):
        encodings = ["utf-16-be"]
    elif odd > many:
        encodings = ["utf-16-le"]
    else:
        encodings = ["utf-8-sig", "cp1252"]

    for encoding in encodings:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text

    raise UserError(f"{path} cannot be read as text; save it as plain UTF-8")


def is_set(value: object) -> bool:
    """Return whether a mark of a JSON or XML file says yes, in any type: 1, "1", true, "true"."""
    return str(value).strip().casefold() in ("1", "1.0", "true", "yes", "y")


def require_file(path: str | Path, what: str, give: str) -> None:
    """Raise UserError, `WHAT PATH does not exist; GIVE`, unless a file is there that can be read; a
    folder in its place is called one.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{what} {path} is a folder, not a file; {give}")
    if not path.exists():
        raise UserError(f"{what} {path} does not exist; {give}")
    if not os.access(path, os.R_OK):
        raise UserError(f"{what} {path} is closed to this user; make it readable")


def make_folder(folder: Path, called: Path | None = None) -> None:
    """Make a folder, and those above it, where it is not there. Raises UserError, which names the
    folder as the user did (`called`, by default itself), where that is not possible, or where it
    is there and nothing can be written in it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"the folder {called or folder} cannot be made ({reason}); name another"
        ) from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(
            f"nothing can be written in the folder {called or folder}; make it writable or name "
            "another"
        )


def require_place(path: str | Path, flag: str) -> None:
    """Check that a file can be written, before the long work for it; nothing is made.

    Raises UserError, which begins with the flag and the path, where a folder or a device bears the
    name, or where its folder is not there and cannot be made, or takes no file.
    """
    path = Path(path)
    try:
        fault = _why_not(path)
    except OSError as error:
        fault = f"cannot be written ({error.strerror})"
    if fault:
        raise UserError(f"{flag} {path} {fault}; name another file")


def _why_not(path: Path) -> str:
    """Say why a file cannot be written; "" where it can. OSError where the name is none."""
    if path.is_dir():
        return "is a folder, not a file"
    if path.exists() and not path.is_file():
        return "is a device, not a file"

    partial_of(path).exists()  # raises an error where the name is too long
    folder = next(above for above in path.absolute().parents if above.exists())
    if not folder.is_dir():
        return f"cannot be written, as {folder} is not a folder"
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"cannot be written, as nothing can be written in {folder}"
    return ""


def partial_of(path: Path, own: bool = False) -> Path:
    """Name the place where a file's bytes gather until it is whole: `NAME.partial` beside it.

    own: a place of this process alone, `NAME.PID.partial`, where several may write the file.
    """
    if own:
        return path.with_name(f"{path.name}.{os.getpid()}.partial")
    return path.with_name(f"{path.name}.partial")


def note_leftovers(path: Path) -> None:
    """Say which places of `partial_of(path, own=True)` other processes have left, or still use:
    whoever was killed without notice could not remove its own.
    """
    if not path.parent.is_dir():
        return
    head = f"{path.name}."
    for other in sorted(path.parent.iterdir()):
        number = other.name.removeprefix(head).removesuffix(".partial")
        if other.name == f"{head}{number}.partial" and number.isdecimal():
            say_once(
                f"leftover {other}",
                f"{other} is of a process that was killed, or still writes; remove it if none does",
            )


@contextlib.contextmanager
def written_whole(path: str | Path, sync: bool = False, own: bool = False) -> Iterator[BinaryIO]:
    """Open a file, and folders above it, that gets its name only when all is written.

    What bears the name is complete at every moment: an exception keeps what was there before. A
    process that is killed leaves at most the partial file behind, which writing again uses up.

    Args:
        path: of the file; what bears the name already is replaced.
        sync: bring the bytes and the name to the disk, so that they last through a power cut.
        own: as in `partial_of`, for a file that several processes may write at once.

    Yields:
        the file, empty, to write and to read again.

    Raises:
        OSError: the place cannot be written to.
    """
    path = Path(path)
    partial = partial_of(path, own)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with partial.open("w+b") as file:
            yield file

            if sync:
                file.flush()
                flush(file.fileno())

        put_in_place(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise

    if sync:
        flush_folder(path.parent)


def write_whole(path: str | Path, content: bytes) -> None:
    """Write a file, and folders above it, whole or not at all, as `written_whole`.

    Raises:
        UserError: the place cannot be written to.
    """
    try:
        with written_whole(path) as file:
            file.write(content)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror}); name another file, or make its folder "
            "writable"
        ) from error


def write_json(path: str | Path, content: Any) -> None:
    """Write plain values as JSON, whole or not at all. Raises UserError as `write_whole`."""
    write_whole(path, json.dumps(content, indent=1).encode())


def encoded(text: str) -> bytes:
    """Encode text as UTF-8, also where it holds the name of a file that is none.

    Python reads bytes of names that are no UTF-8, as of an old archive, as lone surrogates. They
    are written as escapes such as \\udcfc, which JSON, and YAML in double quotes, read back.
    """
    return text.encode(errors="backslashreplace")


def sha256_of(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes, hexadecimal; about a second for 450 MB."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
