"""Reading JSON with errors that name the place, and writing files whole or not at all."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from utils.common.errors import UserError

_BLOCK = 1 << 20


def read_json(path: str | Path, each_object: Callable[[dict], Any] | None = None) -> dict:
    """The object in a JSON file; `each_object` replaces every object as it is read, innermost
    first.

    Raises:
        UserError: the file is missing, not JSON (names line and column) or no JSON object.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"), object_hook=each_object)
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; check the path or make the file first") from error
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise UserError(
            f"{path} is not valid JSON at {place} ({error.msg}); make or copy it again"
        ) from error
    except (
        OSError,
        ValueError,
        RecursionError,
    ) as error:  # among others no UTF-8, a number of too many digits
        raise UserError(
            f"{path} cannot be read as JSON text ({error}); make or copy it again"
        ) from error
    if not isinstance(content, dict):
        raise UserError(
            f"{path} holds a JSON {type(content).__name__}, not an object; make or copy it again"
        )
    return content


def write_whole(path: str | Path, content: bytes) -> None:
    """Writes a file, and folders above it, whole or not at all: under `NAME.part` first, so that
    what bears the name is complete. A process that is killed leaves at most one `.part` behind,
    which writing the file again uses up.

    Raises:
        UserError: the place cannot be written to.
    """
    path = Path(path)
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)
        part.replace(path)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror}); name or mount a folder that can"
        ) from error


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal; about a second for 450 MB."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
