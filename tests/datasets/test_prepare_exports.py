"""One's own data by what annotation tools export: tags, masks that are drawn, and corrections."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT, run
from pages import block_commands, blocks, section
from PIL import Image
from pycocotools import mask as coder

import test_msc_flip_voc
import train_voc
from datasets.layouts import items
from datasets.pictures import load_mask
from datasets.prepare import __main__ as prepare
from datasets.specs import VOC
from datasets.toy.write import write_custom
from utils.common.entry import command
from utils.tools import convert, score

prepare_main = command(prepare.main)
NAMES = ("a.jpg", "sub/b.jpg", "c;d.png")
SQUARE = [2.0, 2, 12, 2, 12, 18, 2, 18]


def instances(outlines: dict[str, list | dict]) -> dict:
    """COCO's JSON of pictures of 32 x 24 px with one cat each, or none for []."""
    images, objects = [], []
    for number, (name, outline) in enumerate(outlines.items()):
        images.append({"id": number, "file_name": name, "width": 32, "height": 24})
        if outline is not None:
            objects.append({"image_id": number, "category_id": 0, "segmentation": outline})
    return {
        "images": images,
        "categories": [{"id": 0, "name": "cat"}],
        "annotations": [{"id": n, **each} for n, each in enumerate(objects)],
    }


def save(path: Path, content: dict) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """photos/, classes.yaml and export/ of COCO, whose last picture has no object."""
    for name in NAMES:
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 24), (0, 90, 0)).save(tmp_path / "photos" / name)
    (tmp_path / "classes.yaml").write_text("classes: [dog, cat]\n")
    outlines = {NAMES[0]: [SQUARE], NAMES[1]: [SQUARE], NAMES[2]: None}
    save(tmp_path / "export" / "annotations" / "instances.json", instances(outlines))
    return tmp_path


def prepared(folder: Path, masks: str = "export", tags: str = "export") -> int:
    flags = ["--images", folder / "photos", "--classes", folder / "classes.yaml"]
    flags += ["--tags", folder / tags, "--masks", folder / masks]
    return run(prepare_main, "custom", *flags, "--val_share", 0.4, "--out", folder / "out")


def test_an_export_gives_tags_and_masks_to_score_with(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepared(folder) == 0
    said = capsys.readouterr().out
    assert "2 training and 1 validation pictures, 3 masks" in said and "cat 2; without" in said

    found = [item for split in ("train", "val") for item in items("custom", folder / "out", split)]
    shown = {item.name: np.unique(load_mask(item.mask)).tolist() for item in found}
    assert shown == {"a": [0, 2], "sub/b": [0, 2], "c;d": [0]}
    masks = folder / "out" / "masks"
    assert load_mask(masks / "a.png").sum() == 2 * 160
    flags = ["--predictions", masks, "--masks", masks, "--classes", folder / "classes.yaml"]
    assert run(command(score.main), *flags) == 0
    assert "100.00" in capsys.readouterr().out


def test_a_corrected_export_replaces_masks_but_not_those_changed_by_hand(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepared(folder) == 0
    before = {path: path.read_bytes() for path in (folder / "out").rglob("*") if path.is_file()}
    assert prepared(folder) == 0
    assert before == {path: path.read_bytes() for path in before}

    smaller = [2, 2, 6, 2, 6, 6, 2, 6]
    save(folder / "corrected" / "x.json", instances({NAMES[0]: [smaller], NAMES[1]: [SQUARE]}))
    assert prepared(folder, masks="corrected") == 0
    mask = folder / "out" / "masks" / "a.png"
    assert load_mask(mask).sum() == 2 * 16
    assert "2 masks" in capsys.readouterr().out and not (mask.parent / "c;d.png").exists()
    assert sorted(path.name for path in (folder / "out").iterdir() if path.is_dir()) == ["masks"]

    mask.write_bytes((folder / "out" / "masks" / "sub" / "b.png").read_bytes())
    assert prepared(folder) == 2
    assert "were changed since; move them elsewhere" in capsys.readouterr().err
    assert load_mask(mask).sum() == 2 * 160
    assert prepared(folder, masks="out/masks") == 0  # as any folder of PNGs


def box(folder: Path) -> None:
    boxes = instances({name: [] for name in NAMES})
    save(folder / "export" / "annotations" / "instances.json", boxes)


def box_beside_maps(folder: Path) -> None:
    box(folder)
    (folder / "export" / "SegmentationClass").mkdir()


def outside(folder: Path) -> None:
    far = [40.0, 2, 44, 2, 44, 6]
    save(folder / "export" / "annotations" / "instances.json", instances({NAMES[1]: [far]}))


def other_size(folder: Path) -> None:
    Image.new("RGB", (64, 48)).save(folder / "photos" / NAMES[1])


def other_pictures(folder: Path) -> None:
    save(folder / "export" / "annotations" / "instances.json", instances({"x.jpg": [SQUARE]}))


def all_to_validate(folder: Path) -> None:
    for name in NAMES[1:]:
        (folder / "photos" / name).unlink()


def broken(folder: Path) -> None:
    (folder / "photos" / NAMES[1]).write_bytes(b"\xff\xd8\xff")


BAD: dict[Callable[[Path], None], str] = {
    box: "boxes or points there alone; give it as --tags",
    box_beside_maps: "SegmentationClass, which may hold label PNGs, as --masks",
    outside: "object 1 (cat) has a polygon outside the picture of 32 x 24; correct it",
    other_size: "is of a picture of 32 x 24, but",
    other_pictures: "lists no picture of these, but 1 others, first 'x.jpg'; give the pictures",
    all_to_validate: "all 1 pictures are for validation",
    broken: "cannot be read",
}


@pytest.mark.parametrize("spoil", BAD, ids=lambda spoil: spoil.__name__)
@pytest.mark.parametrize("is_there", [False, True])
def test_bad_input_is_one_sentence_and_leaves_all_as_it_was(
    spoil: Callable[[Path], None],
    is_there: bool,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if is_there:
        assert prepared(folder) == 0
    before = {path: path.read_bytes() for path in (folder / "out").rglob("*") if path.is_file()}
    spoil(folder)
    capsys.readouterr()
    assert prepared(folder) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1 and BAD[spoil] in lines[0], lines
    assert (folder / "out").exists() == is_there
    after = {path: path.read_bytes() for path in (folder / "out").rglob("*") if path.is_file()}
    assert after == before


def test_boxes_of_some_pictures_cost_these_alone_their_mask(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed = instances({NAMES[0]: [SQUARE], NAMES[1]: []})
    save(folder / "export" / "annotations" / "instances.json", mixed)
    assert prepared(folder) == 0
    said = capsys.readouterr()
    assert "1 pictures, first sub/b.jpg, have tags, boxes or points there without" in said.err
    assert "1 masks" in said.out


def corrected(masks: Path, out: Path) -> None:
    """Stand in for a person's work in a tool: COCO's JSON of the toy's true masks."""
    content = {"images": [], "categories": [], "annotations": []}
    for number, file in enumerate(sorted(masks.rglob("*.png"))):
        labels = load_mask(file)
        height, width = labels.shape
        name = file.relative_to(masks).with_suffix("").as_posix()
        content["images"].append(
            {"id": number, "file_name": name, "width": width, "height": height}
        )
        for label in set(np.unique(labels).tolist()) - {0, 255}:
            runs = coder.encode(np.asfortranarray(labels == label))
            content["annotations"].append(
                {
                    "image_id": number,
                    "category_id": label,
                    "segmentation": {**runs, "counts": runs["counts"].decode()},
                }
            )
    content["categories"] = [
        {"id": label, "name": name} for label, name in enumerate(VOC.classes, 1)
    ]
    save(out / "result.json", content)


MAINS = {
    "datasets.prepare": prepare_main,
    "utils.tools.convert": command(convert.main),
    "utils.tools.score": command(score.main),
    "train_voc.py": train_voc.main,
    "test_msc_flip_voc.py": test_msc_flip_voc.main,
}


def runbook() -> list[list[str]]:
    """The commands of the page's runbook, as words."""
    text = section(ROOT / "datasets/README.md", "From photographs to masks")
    return [list(each.words) for block in blocks(text, "bash") for each in block_commands(block)]


def test_every_command_of_the_runbook_runs(
    quick: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_custom(tmp_path / "data", train=10, val=2, size=96, seed=0)
    corrected(tmp_path / "data" / "masks", tmp_path / "data" / "corrected")
    shutil.rmtree(tmp_path / "data" / "masks")

    extra = {"train_voc.py": quick, "test_msc_flip_voc.py": ["--device", "cpu", "--no_crf"]}
    commands = [words[1:] for words in runbook()]
    for words in commands:
        name, *flags = words[1:] if words[0] == "-m" else words
        assert run(MAINS[name], *flags, *extra.get(name, ())) == 0, words
    assert len(commands) == 6 and "mIoU" in capsys.readouterr().out
