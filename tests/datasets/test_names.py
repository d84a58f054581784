"""Names of pictures: fit for output files on any system, never two alike, whatever the files are
called.
"""

from pathlib import Path, PurePosixPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from datasets.own_pictures import picture_names, pictures
from utils.common.errors import UserError


def names(*files: str) -> list[str]:
    return picture_names([PurePosixPath(file) for file in files])


def test_plain_paths_lose_their_suffix_alone() -> None:
    assert names("a.jpg", "sub dir/b.v2.JPG", "Küche/写真.png") == [
        "a",
        "sub dir/b.v2",
        "Küche/写真",
    ]


def test_files_that_differ_in_suffix_or_case_keep_names_of_their_own() -> None:
    assert names("a.jpg", "a.png", "A.JPG", "b.jpg") == ["a", "a.png", "A.JPG", "b"]
    assert names("a?.jpg", "a*.jpg", "a:.jpg") == ["a_", "a_.jpg", "a_.jpg (2)"]


def test_what_some_file_system_refuses_is_replaced() -> None:
    assert names(" a .jpg", 'x:y?"<>|*\\.jpg', "line\nbreak.jpg") == [
        "a",
        "x_y_______",
        "line_break",
    ]
    assert len(names("ü" * 250 + ".jpg")[0].encode()) <= 200


@given(
    st.lists(
        st.text(st.characters(exclude_characters="/\0"), min_size=1).filter(
            lambda t: t not in (".", "..")
        )
    )
)
@example(["e\u0301.jpg", "\u00e9.jpg", "\udcff.jpg", "a.b.jpg"])
def test_every_name_can_be_listed_and_is_alone(files: list[str]) -> None:
    found = names(*files)
    assert len({name.casefold() for name in found}) == len(found)
    for name in found:
        assert name == name.strip() and len(name.splitlines()) == 1 and len(name.encode()) < 250
        assert not set('<>:"\\|?*') & set(name) and Path(name).name == name


def test_pictures_of_several_folders(tmp_path: Path) -> None:
    for file in ("one/a.jpg", "two/a.jpg", "two/deep/c.WEBP", "two/._a.jpg", "two/notes.txt"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / file, format="PNG")
    found = pictures([tmp_path / "one", tmp_path / "two"])
    assert [item.name for item in found] == ["a", "a.jpg", "deep/c"]
    assert [item.image for item in found] == [
        tmp_path / "one/a.jpg",
        tmp_path / "two/a.jpg",
        tmp_path / "two/deep/c.WEBP",
    ]
    with pytest.raises(UserError, match="nowhere is no file, folder or pattern"):
        pictures([tmp_path / "nowhere"])
