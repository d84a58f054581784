"""Faults of the machine a run lives on, each said in one sentence; and pictures that cannot be read, counted."""

import contextlib
import errno
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from tqdm import tqdm

from utils.errors import UserError

LOCK = ".lock"
PATIENCE = 12.0  # seconds; loading processes of a killed run hold its lock until they notice, 5 s at most
BAD_IMAGES = "bad_images.jsonl"
_REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "free space or name another --work_dir"),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "make it writable or name another --work_dir"),
    **dict.fromkeys((errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT), "check the disk or mount"),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "lower --workers or raise `ulimit -n`"),
    **dict.fromkeys((errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG), "name another file or folder"),
    errno.ENOENT: "put back what was moved or deleted",
}


def explain(error: Exception) -> str | None:
    """One sentence, with the fix, for a fault of disk, memory or a loading process; None for any other error, a bug."""
    text = str(error)
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return (
            "the GPU is out of memory; lower --batch_size, --mct_batch_size or --crop_size to train, --resize_long to "
            "test; the last checkpoint is kept"
        )
    if isinstance(error, MemoryError) or "DefaultCPUAllocator: can't allocate memory" in text:
        return "out of memory; lower --batch_size, --crop_size or --workers; the last checkpoint is kept"
    if isinstance(error, RuntimeError) and "DataLoader worker" in text:
        return (
            f"a data loading process died ({text.splitlines()[0].rstrip('. ')}), perhaps for want of memory; lower "
            "--workers (0 uses none); the last checkpoint is kept"
        )
    if isinstance(error, OSError) and error.errno in _REMEDIES:
        place = error.filename or "a file of this run"
        return f"{place}: {error.strerror}; {_REMEDIES[error.errno]}; what is written so far is kept"
    return None


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process; the claim dies with it. Raises UserError where another process holds it."""
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=PATIENCE)
    except Timeout:
        raise UserError(
            f"--work_dir {folder} is in use by another process; wait for its end or name another folder"
        ) from None
    try:
        yield
    finally:
        lock.release()


def note_bad_image(folder: Path, place: str, reason: str) -> None:
    """Say that a picture was skipped, and keep that in the run folder: one JSON line {"place", "reason"} a picture."""
    tqdm.write(f"{place}: skipped, {reason}")
    with (folder / BAD_IMAGES).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"place": place, "reason": reason}) + "\n")


def readable(samples: Iterable[dict[str, Any]], folder: Path, place: str) -> Iterator[dict[str, Any]]:
    """The samples without an "error" of `MaskedImages`; the others are noted."""
    for sample in samples:
        if "error" in sample:
            note_bad_image(folder, place, sample["error"])
        else:
            yield sample


def bad_images(folder: Path) -> list[dict[str, str]]:
    """What `note_bad_image` kept in a run folder, repetitions by resumed runs and torn lines left out."""
    file = folder / BAD_IMAGES
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    noted = []
    for line in dict.fromkeys(text.split("\n")):
        with contextlib.suppress(ValueError):
            noted.append(json.loads(line))
    return noted
