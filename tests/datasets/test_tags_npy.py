"""The field's pickled tag files are read for what they hold, and nothing in them is ever run."""

import io
import os
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import run
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.prepare import __main__ as prepare
from datasets.prepare.tags_npy import read_npy, write_npy
from datasets.specs import COCO, VOC
from datasets.tags import Tags, read_all_tags, write_tags
from utils.common.entry import command
from utils.common.errors import UserError
from utils.common.plain_pickle import read_plain

EYE = np.eye(20, dtype=np.float32)
ONE = {"2007_000032": EYE[3], "2007_000039": EYE[0] + EYE[19]}


def pickled(content: Any, protocol: int = 4) -> bytes:
    """A .npy file of one object, as NumPy writes it with this protocol of pickle."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": "|O", "fortran_order": False, "shape": ()}
    )
    held = np.empty((), object)
    held[()] = content
    pickle.dump(held, stream, protocol=protocol)
    return stream.getvalue()


def save(folder: Path, content: bytes) -> Path:
    path = folder / "cls_labels_onehot.npy"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("key", [str, np.str_, np.bytes_], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("dtype", ["f4", ">f8", "u1", "i8", "?"])
def test_every_form_that_numpy_writes_is_read(
    tmp_path: Path, protocol: int, key: type, dtype: str
) -> None:
    content = {key(name): row.astype(dtype) for name, row in ONE.items()}
    tags = read_npy(save(tmp_path, pickled(content, protocol)), VOC)
    assert tags.names == tuple(ONE)
    np.testing.assert_array_equal(tags.matrix, np.array(list(ONE.values()), bool))


@pytest.mark.parametrize("key", [int, np.int32, np.int64], ids=lambda kind: kind.__name__)
def test_voc_names_written_as_numbers(tmp_path: Path, key: type) -> None:
    path = save(tmp_path, pickled({key(2007000032): EYE[3]}))
    assert read_npy(path, VOC).names == ("2007_000032",)
    with pytest.raises(UserError, match="the number 2007000032 for an image name"):
        read_npy(path, COCO)


def test_a_file_of_python_2(tmp_path: Path) -> None:
    """Its texts and bytes are one kind of string; written here as Python 2 did."""
    raw = EYE[3].tobytes()
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR(K\x01K\x14\x85cnumpy\ndtype\n"
        b"U\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x50"
        + raw
        + b"tb"
    )
    content = b"\x80\x02}U\x0b2007_000032" + array + b"s."
    header = pickled({})[:128]
    assert read_npy(save(tmp_path, header + content), VOC).matrix[0].nonzero()[0].tolist() == [3]


def test_written_files_are_read_by_numpy_and_here(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tags = Tags(("a", "b", "c"), rng.random((3, len(COCO.classes))) < 0.1, "a test")
    write_npy(tmp_path / "x.npy", tags)
    theirs = np.load(tmp_path / "x.npy", allow_pickle=True).item()
    assert list(theirs) == ["a", "b", "c"] and theirs["b"].dtype == np.float32
    np.testing.assert_array_equal(np.array(list(theirs.values())), tags.matrix)
    np.testing.assert_array_equal(read_npy(tmp_path / "x.npy", COCO).matrix, tags.matrix)


def test_the_command_imports_and_exports(tmp_path: Path) -> None:
    tags = Tags(("a", "b"), np.eye(2, 20, dtype=bool), "a test")
    write_tags(tmp_path / "first.json", VOC, tags)
    convert = ("tags", "--dataset", "voc")
    assert (
        run(
            command(prepare.main),
            *convert,
            "--export_npy",
            tmp_path / "first.json",
            "--out",
            tmp_path / "x.npy",
        )
        == 0
    )
    assert (
        run(
            command(prepare.main),
            *convert,
            "--import_npy",
            tmp_path / "x.npy",
            "--out",
            tmp_path / "new.json",
        )
        == 0
    )
    back = read_all_tags(tmp_path / "new.json", VOC)
    assert back.names == tags.names and back.source == "imported from x.npy"
    np.testing.assert_array_equal(back.matrix, tags.matrix)


class Bomb:
    """Unpickled, it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("place", ["value", "whole"])
@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_nothing_is_run(tmp_path: Path, place: str, protocol: int) -> None:
    bomb = Bomb(tmp_path / "made")
    content = pickled(bomb if place == "whole" else {**ONE, "2007_000042": bomb}, protocol)
    with pytest.raises(
        UserError,
        match=r"cls_labels_onehot.npy holds, after \d+ bytes of header at byte \d+: a call of '",
    ):
        read_npy(save(tmp_path, content), VOC)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({}, "holds no images"),
        ([1, 2], "does not hold one dict"),
        ({"a": EYE[0, :19]}, "image a has no one-hot array of 20 values 0 or 1 for voc"),
        ({"a": EYE[0] * 2}, "image a has no one-hot array"),
        ({"a": [0, 1]}, "image a has no one-hot array"),
        ({"a": EYE[:2]}, "image a has no one-hot array"),
        ({(1, 2): EYE[0]}, "a tuple is a key"),
        ({"a": {1, 2}}, "instruction EMPTY_SET"),
        ({"a": EYE[0] + 1j}, "an array of type 'c8'"),
    ],
)
def test_other_content_is_refused(tmp_path: Path, content: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        read_npy(save(tmp_path, pickled(content)), VOC)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="absent.npy cannot be read"):
        read_npy(tmp_path / "absent.npy", VOC)
    np.save(tmp_path / "cls_labels_onehot.npy", EYE)
    with pytest.raises(UserError, match="is no .npy file of a dict"):
        read_npy(tmp_path / "cls_labels_onehot.npy", VOC)
    with open(tmp_path / "large.npy", "wb") as file:
        file.truncate((1 << 29) + 1)
    with pytest.raises(UserError, match="is larger than 512 MiB"):
        read_npy(tmp_path / "large.npy", VOC)


def test_memory_is_bounded_by_the_file() -> None:
    """What makes an unpickler allocate, or recurse, far beyond the file's size."""
    for content in (
        b"\x80\x04]r\xff\xff\xff\x7f.",
        b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f.",
        b"\x80\x04B\xff\xff\xff\x7f.",
    ):
        try:
            assert read_plain(content) == []
        except ValueError as error:
            assert "at byte" in str(error)
    with pytest.raises(ValueError, match="a tuple is a key"):
        read_plain(b"\x80\x04}K\x01" + b"\x85" * 100_000 + b"K\x01s.")


INSTRUCTIONS = [code.code.encode("latin-1") for code in pickletools.opcodes]


@settings(max_examples=200, deadline=None)
@given(
    pieces=st.lists(
        st.one_of(
            st.sampled_from(INSTRUCTIONS),
            st.binary(max_size=6),
            st.just(b"cnumpy.core.multiarray\n_reconstruct\n"),
        )
    )
)
def test_any_instructions_give_a_value_or_one_sentence(pieces: list[bytes]) -> None:
    try:
        read_plain(b"".join(pieces))
    except ValueError as error:
        assert len(str(error).splitlines()) <= 1


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_damaged_files_are_read_or_refused_in_one_sentence(
    data: st.DataObject, tmp_path_factory: Any
) -> None:
    content = bytearray(pickled(ONE))
    for place, value in data.draw(
        st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=4)
    ):
        content[place] = value
    path = save(
        tmp_path_factory.mktemp("npy"), bytes(content[: data.draw(st.integers(0, len(content)))])
    )
    try:
        assert read_npy(path, VOC).matrix.any()
    except UserError as error:
        assert str(error).startswith(str(path)) and len(str(error).splitlines()) == 1
