"""Files that are written whole or not at all."""

import io
import json
import os
import pickletools
from pathlib import Path

import numpy as np
import pytest
import yaml

from utils.common.errors import UserError
from utils.common.files import encoded, npy_of, require_place, write_whole, written_whole


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_file_is_written_whole_with_its_folders_or_refused(tmp_path: Path) -> None:
    write_whole(tmp_path / "a/b.txt", b"one")
    write_whole(tmp_path / "a/b.txt", b"two")
    assert contents(tmp_path / "a") == {"b.txt": b"two"}
    with pytest.raises(UserError, match="b.txt/c cannot be written"):
        write_whole(tmp_path / "a/b.txt/c", b"")


@pytest.mark.parametrize("name", [b"K\xfcche", "Küche 写真 😀".encode(), b'"\xff\\udcfc'])
def test_a_name_of_any_bytes_is_text_that_json_and_yaml_read_back(name: bytes) -> None:
    path = os.fsdecode(name)
    written = encoded(json.dumps(path, ensure_ascii=False)).decode()
    assert json.loads(written) == yaml.safe_load(written) == path


@pytest.mark.parametrize("path", ["new.json", "a/b/new.json", "there.json"])
def test_a_place_that_takes_a_file_passes_and_nothing_is_made(path: str, tmp_path: Path) -> None:
    (tmp_path / "there.json").write_bytes(b"one")
    require_place(tmp_path / path, "--out")
    assert contents(tmp_path) == {"there.json": b"one"}


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("folder", "--out .*folder is a folder, not a file; name another file"),
        ("pipe", "--out .*pipe is a device, not a file"),
        ("file/new.json", "new.json cannot be written, as .*file is not a folder; name another"),
        ("file/a/b.json", "b.json cannot be written, as .*file is not a folder"),
        ("closed/a.json", "a.json cannot be written, as nothing can be written in .*closed;"),
        ("closed/new/a.json", "a.json cannot be written, as nothing can be written in .*closed;"),
        ("n" * 250, "cannot be written .File name too long.; name another file"),
        ("n" * 300 + "/a.json", "cannot be written .File name too long.; name another file"),
    ],
)
def test_a_place_that_takes_no_file_is_refused(
    path: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "closed").mkdir()
    (tmp_path / "file").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe")
    access = os.access  # by which root may write anywhere
    monkeypatch.setattr(os, "access", lambda at, how: at.name != "closed" and access(at, how))
    with pytest.raises(UserError, match=said):
        require_place(tmp_path / path, "--out")


def break_off(path: Path, fault: type[BaseException]) -> None:
    with written_whole(path) as file:
        file.write(b"tw")
        raise fault


@pytest.mark.parametrize("fault", [KeyboardInterrupt, OSError, ValueError])
def test_a_broken_off_file_leaves_the_one_before_and_nothing_else(
    tmp_path: Path, fault: type[BaseException]
) -> None:
    write_whole(tmp_path / "b.txt", b"one")
    with pytest.raises(fault):
        break_off(tmp_path / "b.txt", fault)
    assert contents(tmp_path) == {"b.txt": b"one"}


@pytest.mark.parametrize("own", [False, True])
def test_the_bytes_gather_under_a_partial_name(tmp_path: Path, own: bool) -> None:
    name = f"b.txt.{os.getpid()}.partial" if own else "b.txt.partial"
    (tmp_path / name).write_bytes(b"what a killed process left")
    with written_whole(tmp_path / "b.txt", own=own) as file:
        file.write(b"two")
        file.flush()
        assert contents(tmp_path) == {name: b"two"}
        file.seek(0)
        assert file.read() == b"two"
    assert contents(tmp_path) == {"b.txt": b"two"}


def test_bytes_reach_the_disk_before_the_name_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[list[str]] = []
    monkeypatch.setattr(os, "fsync", lambda _: synced.append(sorted(contents(tmp_path))))
    with written_whole(tmp_path / "b.txt", sync=True) as file:
        file.write(b"two")
    folder_too = [["b.txt"]] if os.name == "posix" else []
    assert synced == [["b.txt.partial"], *folder_too]


def test_nothing_waits_for_the_disk_unless_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "fsync")
    write_whole(tmp_path / "b.txt", b"one")


def test_a_pickled_dictionary_names_no_module_that_an_older_numpy_lacks() -> None:
    values = {
        "a": np.arange(6, dtype=np.float16).reshape(2, 3).T,
        5: np.zeros((0, 4, 4), np.float32),
        "flat": np.array([True, False]),
    }
    stream = io.BytesIO(npy_of(values))
    found = np.load(stream, allow_pickle=True).item()
    assert list(found) == list(values)
    for key, array in values.items():
        assert found[key].dtype == array.dtype and found[key].flags.writeable
        np.testing.assert_array_equal(found[key], array)

    stream.seek(0)
    np.lib.format.read_magic(stream)
    np.lib.format.read_array_header_1_0(stream)
    named = {told for code, told, _ in pickletools.genops(stream) if code.name == "GLOBAL"}
    assert named == {"numpy ndarray", "numpy dtype"}
