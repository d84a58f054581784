"""What some file systems refuse: locks, flushes, second names, renames over a file.

Network disks, memory sticks and containers do less than a local disk. What is not needed is done
without, said once; what is needed raises OSError, as it would otherwise.
"""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from utils.common.console import say_once

# What a system says of a call that it does not have, or does not do here.
_REFUSED = {
    *(errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM, errno.EACCES),
    *(errno.EBADF, errno.EROFS, errno.ENOTTY, errno.EISDIR),
}
# What renaming over a file may end with although the new file is whole and can be read.
_NOT_OVER = {*_REFUSED, errno.EEXIST, errno.EBUSY, errno.EXDEV, errno.ETXTBSY, errno.ENOLCK}


class Held(Exception):
    """A lock that another process holds."""


@contextlib.contextmanager
def locked(path: Path, patience: float) -> Iterator[None]:
    """Hold a lock file, which dies with this process. Where the file system has no locks, go on
    without one.

    Raises Held where another process holds it for `patience` seconds.
    """
    lock = FileLock(path)
    try:
        if _has_locks(path):
            lock.acquire(timeout=patience)
    except Timeout:
        raise Held from None
    except (OSError, NotImplementedError) as error:
        _without_lock(path, error)

    try:
        yield
    finally:
        with contextlib.suppress(OSError, NotImplementedError):
            lock.release()


def _has_locks(path: Path) -> bool:
    """Return whether the file system locks files: asked first, as the library may stand in a file
    for a lock, which a killed process would leave behind.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return True

    try:
        with path.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(file, fcntl.LOCK_UN)
    except BlockingIOError:  # held by another process
        return True
    except OSError as error:
        _without_lock(path, error)
        return False
    return True


def _without_lock(path: Path, error: Exception) -> None:
    say_once(
        "lock",
        f"{path} cannot be locked here ({_reason(error)}); see that no other process uses "
        f"{path.parent}",
    )


def flush(descriptor: int) -> None:
    """Bring a file's bytes to the disk, so that they last through a power cut; where the file
    system has no such call, leave that to it.
    """
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
        say_once("flush", f"this disk cannot be told to keep a file at once ({_reason(error)})")


def flush_folder(folder: Path) -> None:
    """Make a rename in a folder last through a power cut, where the system can."""
    if os.name != "posix":
        return
    with contextlib.suppress(OSError):  # the file itself is whole and flushed
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def put_in_place(partial: Path, path: Path) -> None:
    """Give a whole file its name, in the place of what bears it.

    Where the file system does not rename over a file, the old one is removed first; where it does
    not rename at all, the bytes are copied. Raises OSError where neither can be done.
    """
    try:
        os.replace(partial, path)
    except OSError as error:
        if error.errno not in _NOT_OVER or path.is_dir() or not partial.is_file():
            raise
        try:
            path.unlink(missing_ok=True)
            os.rename(partial, path)
        except OSError:
            if not partial.is_file():
                raise
            shutil.copyfile(partial, path)
            remove(partial)

        say_once(
            "rename", f"{path.parent} does not rename over a file ({_reason(error)}); going on"
        )


def second_name(path: Path, name: Path) -> None:
    """Give a file a second name, in the place of what bears that; a copy where the file system has
    no second names.
    """
    remove(name)
    try:
        os.link(path, name)
    except OSError:
        shutil.copyfile(path, name)


def remove(path: Path) -> None:
    """Remove a file that is no longer needed, if it is there and can be removed."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        say_once("remove", f"{path} cannot be removed ({_reason(error)}) and stays")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
