"""Disks that do less than a local one: each call that they may refuse, one after another and all
together.
"""

import errno
import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import run, same_weights

import test_msc_flip_voc
import train_voc
from datasets.prepare import __main__ as prepare
from utils.common import disk
from utils.common.claim import claimed
from utils.common.console import begin_notices
from utils.common.entry import command
from utils.common.files import write_whole
from utils.tools import export

prepare_main, export_main = command(prepare.main), command(export.main)
REFUSALS = ("ENOLCK", "ENOSYS", "EOPNOTSUPP", "EINVAL", "EPERM", "EACCES")
# Calls that a network disk, a memory stick or a container may refuse.
CALLS: dict[str, tuple[object, str]] = {
    "locks": (fcntl, "flock"),
    "other locks": (fcntl, "lockf"),
    "flushes": (os, "fsync"),
    "second names": (os, "link"),
    "symbolic links": (os, "symlink"),
    "renames over": (os, "replace"),
    "renames": (os, "rename"),
    "rights": (os, "chmod"),
    "times": (os, "utime"),
    "quick copies": (os, "sendfile"),
    "extended attributes": (os, "setxattr"),
}


def refuse(patch: pytest.MonkeyPatch, call: str, number: str) -> None:
    """Let a call fail from now on; a rename only where it is over a file."""
    owner, name = CALLS[call]
    real, code = getattr(owner, name), getattr(errno, number)

    def fail(*arguments: object, **options: object) -> object:
        if call == "renames" and not os.path.exists(arguments[1]):
            return real(*arguments, **options)
        raise OSError(code, os.strerror(code), str(arguments[0]))

    patch.setattr(owner, name, fail)


@pytest.fixture(autouse=True)
def notices() -> None:
    begin_notices()


@pytest.mark.parametrize("number", REFUSALS)
@pytest.mark.parametrize("call", CALLS)
def test_every_primitive_does_without(
    call: str, number: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if call == "flushes" and number == "ENOLCK":
        pytest.skip("no file system says so of a flush")
    path, name = tmp_path / "a", tmp_path / "b"
    with monkeypatch.context() as patch:
        refuse(patch, call, number)
        for content in (b"one", b"two"):
            write_whole(path, content)
            disk.second_name(path, name)
            assert path.read_bytes() == name.read_bytes() == content
        with path.open("rb") as file:
            disk.flush(file.fileno())
        disk.flush_folder(tmp_path)
        with claimed(tmp_path):
            (tmp_path / "c").touch()
    assert {file.name for file in tmp_path.iterdir()} - {".lock"} == {"a", "b", "c"}


@pytest.mark.parametrize("number", REFUSALS)
def test_a_disk_without_locks_is_said_once(
    number: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    refuse(monkeypatch, "locks", number)
    for _ in range(3):
        with claimed(tmp_path):
            pass
    assert capsys.readouterr().err.count("cannot be locked here") == 1


@pytest.mark.parametrize("number", ["EIO", "ENOSPC", "EDQUOT"])
def test_a_flush_that_fails_is_an_error(
    number: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, "flushes", number)
    with (tmp_path / "a").open("wb") as file, pytest.raises(OSError, match="."):
        disk.flush(file.fileno())


def test_a_folder_cannot_be_written_over(tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(b"x")
    (tmp_path / "a").mkdir()
    with pytest.raises(OSError, match="directory"):
        disk.put_in_place(tmp_path / "part", tmp_path / "a")


def renames_nothing(patch: pytest.MonkeyPatch) -> None:
    def fail(source: object, *_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted", str(source))

    patch.setattr(os, "replace", fail)
    patch.setattr(os, "rename", fail)


def test_a_disk_that_renames_nothing_gets_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    renames_nothing(monkeypatch)
    for content in (b"one", b"two"):
        write_whole(tmp_path / "a", content)
        assert (tmp_path / "a").read_bytes() == content and len(list(tmp_path.iterdir())) == 1
    assert capsys.readouterr().err.count("does not rename over a file") == 1


def everything(patch: pytest.MonkeyPatch) -> None:
    for number, call in enumerate(CALLS):
        if call not in ("renames", "renames over"):
            refuse(patch, call, REFUSALS[number % len(REFUSALS)].replace("ENOLCK", "EINVAL"))
    renames_nothing(patch)


@pytest.mark.parametrize("refused", [*CALLS, "everything"])
def test_commands_come_to_their_end(
    refused: str,
    trained: Path,
    start: list[str],
    toy_voc: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Training only where all is refused, as it takes longest; preparing, testing and export of a
    few images each time.
    """
    root = shutil.copytree(toy_voc, tmp_path / "data")
    (tmp_path / "few.txt").write_text("toy_val_000000\ntoy_val_000001\n")
    checkpoint = trained / "checkpoints" / "final.pt"
    with monkeypatch.context() as patch:
        if refused == "everything":
            everything(patch)
            assert run(train_voc.main, *start, "--keep", 2, "--checkpoint_every", 1) == 0
        else:
            refuse(patch, refused, "EOPNOTSUPP")
        assert run(prepare_main, "voc", "--root", root, "--workers", 0) == 0
        flags = ["--model_path", checkpoint, "--data_root", root]
        small = ["--no_crf", "--work_dir", tmp_path / "out", "--device", "cpu"]
        for _ in range(2):
            assert run(test_msc_flip_voc.main, *flags, *small) == 0
        split = ["--split", tmp_path / "few.txt", "--out", tmp_path / "export", "--device", "cpu"]
        tags = ["--tags", root / "tags_val.json"]
        assert run(export_main, *flags, *split, *tags) == 0
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err and "error:" not in printed.err
    if refused == "everything":
        assert same_weights(tmp_path / "run", trained)


def test_a_true_fault_is_one_sentence(
    start: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real: Callable[..., None] = Path.mkdir

    def fail(path: Path, *rest: Any, **options: Any) -> None:
        if path.name == "checkpoints":
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        real(path, *rest, **options)

    monkeypatch.setattr(Path, "mkdir", fail)
    assert run(train_voc.main, *start) in (1, 2)
    said = capsys.readouterr().err.splitlines()
    assert "Read-only file system" in said[-1] and "Traceback" not in "".join(said)
