"""One walk for all commands: what it finds, what it leaves out and why, and that it ends."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from datasets import folders
from datasets.folders import files_below, matching, picture_suffixes
from datasets.layouts import items
from datasets.own_pictures import pictures
from utils.common.console import begin_notices
from utils.common.errors import UserError


def put(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def found(root: Path) -> list[str]:
    return [file.relative_to(root).as_posix() for file in files_below(root).files]


@pytest.mark.parametrize(
    "name",
    [
        *("a.jpg", "b.JPG", "c.Jpeg", "d.jfif", "e.JPE", "f.gif", "g.TIF", "h.tiff", "i.bmp"),
        *("j.png", "k.WebP", "l.ppm", "m.mpo", "n.apng", "deep/er/o.jpg", "con.tent/p.v2.jpg"),
    ],
)
def test_suffixes_of_any_case_are_pictures(name: str, tmp_path: Path) -> None:
    put(tmp_path, name)
    assert found(tmp_path) == [name]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (".ipynb_checkpoints/1-checkpoint.jpg", folders.HIDDEN),
        ("cat/.thumbnails/1.jpg", folders.HIDDEN),
        ("._a.jpg", folders.HIDDEN),
        (".trash/deep/a.jpg", folders.HIDDEN),
        ("__MACOSX/a.jpg", folders.RUBBISH),
        ("dog/@eaDir/2.jpg/SYNOPHOTO_THUMB_M.jpg", folders.RUBBISH),
        ("$RECYCLE.BIN/a.jpg", folders.RUBBISH),
        ("Thumbnails/a.jpg", folders.RUBBISH),
        ("lost+found/a.png", folders.RUBBISH),
        ("prediction/a.png", folders.OUTPUTS),
        ("out/prediction_cmap/a.png", folders.OUTPUTS),
        ("a.cr2", folders.FOREIGN),
        ("a.MOV", folders.FOREIGN),
        ("a.psd", folders.FOREIGN),
        ("a_mask.png", folders.MASKS),
        ("a-mask.png", folders.MASKS),
    ],
)
def test_what_is_left_out_is_named_with_its_reason(name: str, why: str, tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", name)
    walk = files_below(tmp_path)
    assert walk.files == [tmp_path / "a.jpg"] and list(walk.left_out) == [why]
    assert why in walk.explanation()


@pytest.mark.parametrize("name", ["notes.txt", "tags.csv", "desktop.ini", ".DS_Store", "Thumbs.db"])
def test_what_nobody_takes_for_a_picture_is_not_mentioned(name: str, tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", name)
    assert files_below(tmp_path).left_out == {} and found(tmp_path) == ["a.jpg"]


@pytest.mark.parametrize(
    "written",
    [
        ("run/images.jsonl", "run/overlay/a.jpg", "run/b.png"),
        ("run/config.yaml", "run/checkpoints/a.pt", "run/panels/a.png"),
        ("run/export.json", "run/seeds/a.npz", "run/pseudo_labels/a.png"),
        ("images.jsonl", "overlay/a.jpg", "prediction/a.png", "logits/a.png"),
        ("config.yaml", "checkpoints/a.pt", "pictures/overlay/a.jpg"),
    ],
)
def test_results_are_not_predicted_again_wherever_they_lie(
    written: tuple[str, ...], tmp_path: Path
) -> None:
    folders._is_run.cache_clear()
    put(tmp_path, "cat/1.jpg", *written)
    assert found(tmp_path) == ["cat/1.jpg"]
    put(tmp_path / "cat", "overlay/2.jpg", "seeds/3.jpg")  # a user's own folders of such names
    assert len(found(tmp_path)) == 3


def test_what_the_libraries_cannot_read_names_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "a.jpg", "b.HEIC", "c.heif", "d.avif", "e.jp2")
    remedy = "pip install"
    without = {group: (lambda: False, text) for group, (_, text) in folders._SOMETIMES.items()}
    monkeypatch.setattr(folders, "_SOMETIMES", without)
    picture_suffixes.cache_clear()
    try:
        said = files_below(tmp_path).explanation()
        assert found(tmp_path) == ["a.jpg"]
        assert "1 .heic: HEIC needs a plugin: `pip install pillow-heif` (first b.HEIC)" in said
        assert said.count(remedy) == 4
    finally:
        picture_suffixes.cache_clear()


def link(to: str, name: str) -> Callable[[Path], None]:
    return lambda root: (root / name).symlink_to(root / to)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (link("outside/more", "photos/linked"), ["cat/1.jpg", "linked/3.jpg"]),
        (link("outside/more/3.jpg", "photos/two.jpg"), ["cat/1.jpg", "two.jpg"]),
        (link("photos", "photos/cat/up"), ["cat/1.jpg"]),
        (link("photos/cat", "photos/cat/self"), ["cat/1.jpg"]),
        (link("photos/cat", "photos/a"), ["cat/1.jpg"]),
        (link("nowhere.jpg", "photos/dead.jpg"), ["cat/1.jpg"]),
        (link("photos/loop.jpg", "photos/loop.jpg"), ["cat/1.jpg"]),
    ],
)
def test_links_are_followed_once(
    make: Callable[[Path], None], expected: list[str], tmp_path: Path
) -> None:
    put(tmp_path, "photos/cat/1.jpg", "outside/more/3.jpg")
    make(tmp_path)
    assert found(tmp_path / "photos") == expected


def test_many_folders_that_link_to_each_other_end(tmp_path: Path) -> None:
    for name in "abcdefghijkl":
        put(tmp_path, f"{name}/{name}.jpg")
    for name in "abcdefghijkl":
        for other in "abcdefghijkl":
            (tmp_path / name / f"to_{other}").symlink_to(tmp_path / other)
    assert len(found(tmp_path)) == 12
    assert len(files_below(tmp_path).left_out[folders.AGAIN]) == 144


def test_pipes_and_closed_folders_are_no_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "a.jpg", "closed/b.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    scan = os.scandir
    monkeypatch.setattr(
        os, "scandir", lambda path: scan(path if Path(path).name != "closed" else "/nowhere")
    )
    walk = files_below(tmp_path)
    assert walk.files == [tmp_path / "a.jpg"] and list(walk.left_out) == [folders.CLOSED]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", ["a.jpg", "b[1].jpg"]),
        ("**/*.jpg", ["a.jpg", "b[1].jpg", "set [2020]/d.jpg"]),
        ("b[1].jpg", ["b[1].jpg"]),
        ("set [2020]/*.jpg", ["set [2020]/d.jpg"]),
        ("[ab]*.jpg", ["a.jpg", "b[1].jpg"]),
        ("**/*.png", []),
    ],
)
def test_patterns_leave_out_the_same(pattern: str, expected: list[str], tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "b[1].jpg", "set [2020]/d.jpg", "prediction/a.png", "@eaDir/c.jpg")
    files = matching(f"{tmp_path}/{pattern}").files
    assert [file.relative_to(tmp_path).as_posix() for file in files] == expected


def test_pictures_of_a_pattern_leave_other_files_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path, "a.jpg", "tags.csv", "sub/b.png", "sub/.hidden.png")
    begin_notices()
    assert {item.image.name for item in pictures([f"{tmp_path}/*"])} == {"a.jpg", "b.png"}
    assert f"left out of {tmp_path / 'sub'}: 1 hidden" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"matches any; check its spelling"):
        pictures([f"{tmp_path}/*.tif"])
    put(tmp_path, "only/x.HEIF.part", "raw/a.NEF")
    with pytest.raises(UserError, match=r"holds no picture \(1 other formats \(first a.NEF\)\)"):
        pictures([tmp_path / "raw"])


@pytest.mark.parametrize("suffix", [".Jpg", ".jpeg", ".PNG", ".Webp", ".jfif", ".TIF"])
def test_listed_images_are_found_whatever_the_case_of_their_suffix(
    suffix: str, tmp_path: Path
) -> None:
    put(tmp_path, f"JPEGImages/a.b{suffix}", "SegmentationClass/a.b.Png")
    put(tmp_path, "ImageSets/Segmentation/val.txt")
    (tmp_path / "ImageSets" / "Segmentation" / "val.txt").write_text("a.b\n")
    (item,) = items("voc", tmp_path, "val")
    assert item.image.name == f"a.b{suffix}" and item.mask.name == "a.b.Png"


def test_a_picture_that_was_shown_once_is_walked_by_its_own_name(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "z.png")
    assert found(tmp_path) == ["z.png"]
