"""What every command shares: its exit status, and one sentence for whatever went wrong."""

import errno
import functools
import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch

from utils.common.console import begin_notices, lasting_streams, say_once
from utils.common.distributed import refuse_several
from utils.common.errors import INTERRUPTED, LEFT_ALONE, MISTAKE, UserError
from utils.common.signals import interrupted_by_signals
from utils.common.startup import ROOT, outdated
from utils.common.temporary import temporary_folder

# Bytes of the folder of temporary files: the path of a socket in it may have 104 on some systems.
_LONGEST_TEMPORARY = 60


_REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "free space or name another folder"),
    **dict.fromkeys(
        (errno.EROFS, errno.EACCES, errno.EPERM),
        "make it readable and writable, or name another file or folder",
    ),
    **dict.fromkeys(
        (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT), "check the disk or mount"
    ),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "lower --workers or raise `ulimit -n`"),
    **dict.fromkeys(
        (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG),
        "name another file or folder",
    ),
    errno.ENOENT: "put back what was moved or deleted",
}


# what Gloo and NCCL say where another process has gone
_GONE = ("closed by peer", "reset by peer", "remote process exit")


_LESS = (
    "lower --mct_batch_size or --mct_crop_size in stage 1, --batch_size or --crop_size in stage 2"
)


def explain(error: Exception) -> str | None:
    """Return one sentence, with the fix, for a fault of disk, memory or a loading process; None for
    any other error, a bug.
    """
    text = str(error)
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return (
            f"the GPU is out of memory; {_LESS}, --resize_long to test; the last checkpoint is kept"
        )
    if isinstance(error, MemoryError) or "DefaultCPUAllocator: can't allocate memory" in text:
        return f"out of memory; {_LESS}, or --workers; the last checkpoint is kept"
    if isinstance(error, RuntimeError) and "DataLoader worker" in text:
        return (
            f"a data loading process died ({text.splitlines()[0].rstrip('. ')}), perhaps for want "
            "of memory; lower "
            "--workers (0 uses none); the last checkpoint is kept"
        )
    if isinstance(error, OSError) and error.errno in _REMEDIES:
        place = error.filename or "a file of this run"
        return (
            f"{place}: {error.strerror}; {_REMEDIES[error.errno]}; what is written so far is kept"
        )

    return None


def is_left_alone(error: Exception) -> bool:
    """Return whether an error of Gloo or NCCL says that another process has gone."""
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _GONE)


def check_imports() -> None:
    """Refuse to run with another installed package in place of one of this repository's."""
    for name in ("clip", "datasets", "model", "utils"):
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None or ROOT not in Path(spec.origin).resolve().parents:
            where = spec.origin if spec else "nowhere"
            raise UserError(
                f"the package {name} is imported from {where}, not from {ROOT}; run the command "
                "inside that folder"
            )


def check_versions() -> None:
    """Refuse to run with a package that is older than it must be."""
    if said := outdated():
        raise UserError(said)


def check_numpy() -> None:
    """Refuse to run where PyTorch cannot exchange arrays with the NumPy that is installed."""
    try:
        torch.zeros(1).numpy()
    except RuntimeError as error:
        raise UserError(
            f"PyTorch {torch.__version__} cannot use NumPy {version('numpy')} ({error}); `pip "
            "install 'numpy<2'` where PyTorch is older than 2.3, else install both again"
        ) from None


def command(main: Callable[[], None], shared: bool = False) -> Callable[[], None]:
    """Wrap an entry point: a user's mistake prints one sentence and exits with 2, a fault of the
    machine with 1.

    An interrupt, by Ctrl-C or any signal that asks to end, exits with 130. What is printed never
    ends the command, whoever reads it. Several processes of a command are refused unless they
    share its work (`shared`).
    """

    @functools.wraps(main)
    def run() -> None:
        """Run `main`, its faults and what it prints taken care of."""
        begin_notices()
        with lasting_streams():
            _answered(main, shared)

    return run


def _answered(main: Callable[[], None], shared: bool) -> None:
    """Run `main` with every fault that is not a bug put into one sentence and an exit status."""
    try:
        check_imports()
        check_versions()
        check_numpy()
        make_room_for_sockets()
        if not shared:
            refuse_several()
        with interrupted_by_signals():
            main()

    except UserError as error:
        print(f"error: {sentence(error)}", file=sys.stderr)
        sys.exit(MISTAKE)

    except KeyboardInterrupt as stop:
        kept = ": ".join(filter(None, ("what is written is kept", str(stop))))
        print(f"interrupted; {kept}", file=sys.stderr)
        sys.exit(INTERRUPTED)

    except Exception as error:
        if is_left_alone(error):
            print("error: another process of this run has ended before its time", file=sys.stderr)
            sys.exit(LEFT_ALONE)

        if (said := explain(error)) is None:
            raise
        print(f"error: {said}", file=sys.stderr)
        sys.exit(1)


def make_room_for_sockets() -> None:
    """Ensure that processes can exchange data by sockets in the temporary folder, whose paths have
    a bound.

    Where TMPDIR is too long, they lie in another folder, as an over-long one makes loading
    processes wait for ever. Raises UserError where there is none.
    """
    usual = temporary_folder()
    if os.name != "posix" or len(os.fsencode(usual)) <= _LONGEST_TEMPORARY:
        return
    for folder in ("/tmp", "/var/tmp", "/dev/shm"):
        if os.access(folder, os.W_OK | os.X_OK):
            say_once("TMPDIR", f"TMPDIR {usual} is too long for sockets; using {folder} instead")
            os.environ["TMPDIR"] = folder
            tempfile.tempdir = None
            return

    raise UserError(f"TMPDIR {usual} is too long for sockets; set TMPDIR to a shorter folder")


def sentence(error: UserError) -> str:
    """Return what the error says; one from a data loading process stands at the end of that
    process's traceback.
    """
    return (
        str(error)
        .strip()
        .splitlines()[-1]
        .removeprefix(f"{UserError.__module__}.{UserError.__name__}: ")
    )
