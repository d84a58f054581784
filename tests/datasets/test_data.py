"""Layouts, datasets and the sampler: what is found on disk, and that training order depends on the
seed alone.
"""

import json
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from datasets.data import IterationSampler, MaskedImages, TaggedImages
from datasets.layouts import items
from datasets.list_files import read_list
from datasets.lists import Item
from utils.common.errors import UserError


@pytest.fixture
def voc(tmp_path):
    """Three images 20 x 10; b has masks in VOC's own folder and in the augmented one, c in VOC's
    own, a has none.
    """
    for folder in (
        "JPEGImages",
        "SegmentationClass",
        "SegmentationClassAug",
        "ImageSets/Segmentation",
    ):
        (tmp_path / folder).mkdir(parents=True)
    for value, name in enumerate("abc", 1):
        noise = np.random.default_rng(value).integers(0, 256, (10, 20, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"JPEGImages/{name}.jpg")
    for value, place in enumerate(
        ("SegmentationClassAug/b", "SegmentationClass/b", "SegmentationClass/c")
    ):
        Image.new("L", (20, 10), value).save(tmp_path / f"{place}.png")
    (tmp_path / "ImageSets/Segmentation/train.txt").write_bytes(b"c\r\n\r\na\r\n  b \n")
    return tmp_path


def write_list(root, text: str):
    path = root / "list.txt"
    path.write_text(text)
    return path


def test_voc_layout(voc):
    found = items("voc", voc, "train")
    assert [item.name for item in found] == ["c", "a", "b"]
    assert found[0].image == voc / "JPEGImages/c.jpg"
    masks = [voc / "SegmentationClass/c.png", None, voc / "SegmentationClass/b.png"]
    assert [item.mask for item in found] == masks


def test_list_file_replaces_the_split(voc):
    assert [item.name for item in items("voc", voc, "no such split", write_list(voc, "b\n"))] == [
        "b"
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n \r\n", "list.txt holds no image name"),
        ("a\nx\ny\n", "2 of the 3 images listed in .*list.txt .*first x"),
        ("../a\n", "'../a'"),
        ("/JPEGImages/a\n", "'/JPEGImages/a'"),
        ("..\\a\n", "plain image names"),
        ("C:/a\n", "plain image names"),
        ("a\nb\na\n", "'a' twice"),
        ("a\nb\na.jpg\n", "'a' twice"),
        ("x\ny\n", "2 of the 2 images .* first x, but names like a.jpg are; complete"),
    ],
)
def test_bad_lists_are_refused(voc, text, message):
    with pytest.raises(UserError, match=message):
        items("voc", voc, "train", write_list(voc, text))


def test_missing_root_and_missing_split_are_named(voc):
    with pytest.raises(UserError, match="nowhere is not a folder"):
        items("voc", voc / "nowhere", "train")
    with pytest.raises(UserError, match="trian.txt does not exist"):
        items("voc", voc, "trian")


def test_a_list_may_have_the_whole_names_of_files(voc):
    found = items("voc", voc, "", write_list(voc, "b.jpg\na\n"))
    assert [item.name for item in found] == ["b", "a"]
    assert found[0].mask == voc / "SegmentationClass/b.png"
    Image.new("RGB", (4, 4)).save(voc / "JPEGImages/b.jpg.png")
    assert items("voc", voc, "", write_list(voc, "b.jpg\n"))[0].name == "b.jpg"


def test_names_may_hold_folders_and_dots(voc):
    (voc / "JPEGImages/sub.d").mkdir()
    Image.new("RGB", (4, 4)).save(voc / "JPEGImages/sub.d/x.y.png")
    assert (
        items("voc", voc, "", write_list(voc, "sub.d/x.y"))[0].image
        == voc / "JPEGImages/sub.d/x.y.png"
    )


@pytest.mark.parametrize(("year", "prefix"), [("2014", "COCO_val2014_"), ("2017", "")])
def test_coco_layout(tmp_path, year, prefix):
    folder = f"val{year}"
    for path in ("annotations", f"coco{year}/{folder}", f"mask/{folder}"):
        (tmp_path / path).mkdir(parents=True)
    names = [f"{prefix}{number:012d}" for number in (7, 3)]
    for name in names:
        Image.new("RGB", (4, 4)).save(tmp_path / f"coco{year}/{folder}/{name}.jpg")
    (tmp_path / f"mask/{folder}/{names[1]}.png").touch()
    images = [{"id": i, "file_name": f"{name}.jpg"} for i, name in enumerate([*names, "empty"])]
    cups = [{"id": i, "image_id": i, "category_id": 47} for i in range(len(names))]
    annotations = {
        "images": images,
        "annotations": cups,
        "categories": [{"id": 47, "name": "cup"}],
    }
    (tmp_path / f"annotations/instances_{folder}.json").write_text(json.dumps(annotations))
    found = items("coco", tmp_path, "val")
    assert [item.name for item in found] == sorted(names)
    assert [item.mask for item in found] == [tmp_path / f"mask/{folder}/{names[1]}.png", None]
    assert found[0].image.is_file()


@pytest.mark.parametrize("place", ["coco2017/val2017", "val2017", "images/val2017"])
def test_of_two_years_of_coco_that_one_counts_whose_images_are_there(tmp_path, place):
    """Archives of annotations hold both, and nobody has the images twice."""
    categories = [{"id": 47, "name": "cup"}]
    (tmp_path / "annotations").mkdir()
    (tmp_path / place).mkdir(parents=True)
    for year, name in (("2014", "COCO_val2014_000000000007"), ("2017", "000000000007")):
        content = {
            "images": [{"id": 1, "file_name": f"{name}.jpg"}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 47}],
            "categories": categories,
        }
        (tmp_path / f"annotations/instances_val{year}.json").write_text(json.dumps(content))
    Image.new("RGB", (4, 4)).save(tmp_path / place / "000000000007.jpg")
    assert [item.image for item in items("coco", tmp_path, "val")] == [
        tmp_path / place / "000000000007.jpg"
    ]

    (tmp_path / "val2014").mkdir()  # with images of both, the earlier one
    Image.new("RGB", (4, 4)).save(tmp_path / "val2014/COCO_val2014_000000000007.jpg")
    assert [item.name for item in items("coco", tmp_path, "val")] == ["COCO_val2014_000000000007"]


def test_coco_masks_of_another_repository_are_found_by_their_short_names(tmp_path):
    (tmp_path / "annotations").mkdir()
    name = "COCO_val2014_000000000042"
    for folder in ("JPEGImages/val", "SegmentationClass/val"):
        (tmp_path / folder).mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(tmp_path / f"JPEGImages/val/{name}.jpg")
    mask = tmp_path / "SegmentationClass/val/000000000042.png"
    mask.touch()
    only = write_list(tmp_path, name)
    assert [item.mask for item in items("coco", tmp_path, "val", only)] == [mask]
    ours = tmp_path / "mask/val2014/000000000042.png"  # copied, not renamed
    ours.parent.mkdir(parents=True)
    ours.touch()
    assert [item.mask for item in items("coco", tmp_path, "val", only)] == [ours]


def test_a_coco_split_without_any_object_is_refused(tmp_path):
    (tmp_path / "annotations").mkdir()
    content = {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [], "categories": []}
    (tmp_path / "annotations/instances_val2014.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="no image of .*instances_val2014.json has an object"):
        items("coco", tmp_path, "val")


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("/JPEGImages/2007_000032.jpg /SegmentationClassAug/2007_000032.png", "2007_000032"),
        ("JPEGImages/a.JPG\t SegmentationClass/a.png", "a"),
        ("a.jpg b.png", "a.jpg b.png"),  # a name with a space
        ("IMG 01", "IMG 01"),
    ],
)
def test_lists_of_images_and_masks_give_the_images(tmp_path, line, name):
    (tmp_path / "l.txt").write_text(f"{line}\n")
    assert read_list(tmp_path / "l.txt") == [name]


def test_broken_coco_json_names_the_place(tmp_path):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "coco2014/val2014").mkdir(parents=True)
    path = tmp_path / "annotations/instances_val2014.json"
    path.write_text('{"images": [\n  {"id": 1,,}')
    with pytest.raises(
        UserError, match="instances_val2014.json is not valid JSON at line 2, column 12"
    ):
        items("coco", tmp_path, "val")
    path.write_text('{"images": [{"id": 1}], "categories": []}')
    with pytest.raises(UserError, match="file_name"):
        items("coco", tmp_path, "val")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_a_list_may_be_of_any_line_ending_and_encoding(tmp_path, ending, encoding):
    text = ending.join(["Küche/a.jpg", "", "b 1"])
    (tmp_path / "l.txt").write_bytes(text.encode(encoding))
    assert read_list(tmp_path / "l.txt") == ["Küche/a.jpg", "b 1"]


def test_a_list_that_is_no_text_is_one_sentence(tmp_path):
    for content in (b"a\0b", b"\xff\xfea", b"\x81"):
        (tmp_path / "l.txt").write_bytes(content)
        with pytest.raises(UserError, match=r"l\.txt cannot be read as text; save it as plain"):
            read_list(tmp_path / "l.txt")
    with pytest.raises(UserError, match=r"list .* cannot be read \(.*; give a text of one image"):
        read_list(tmp_path)


def tagged(root, **options) -> TaggedImages:
    return TaggedImages(
        items("voc", root, "train"), np.eye(3, 5, dtype=bool), crop_size=16, **options
    )


def test_tagged_images_are_a_function_of_seed_iteration_and_index(voc):
    sample, again = tagged(voc)[7, 2], tagged(voc)[7, 2]
    assert sample["image"].dtype == torch.uint8
    assert sample["image"].shape == (3, 16, 16)
    assert sample["valid"].shape == (16, 16)
    assert sample["tags"].tolist() == [0, 0, 1, 0, 0]
    assert sample["index"] == 2
    assert torch.equal(sample["image"], again["image"])
    assert torch.equal(sample["valid"], again["valid"])
    for other in (tagged(voc)[8, 2], tagged(voc, seed=1)[7, 2], tagged(voc)[7, 1]):
        assert not torch.equal(sample["image"], other["image"])


def test_tagged_images_know_no_mask(voc):
    assert b"Segmentation" not in pickle.dumps(tagged(voc))
    assert b"Segmentation" in pickle.dumps(MaskedImages(items("voc", voc, "train")))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_change_nothing(voc, method):
    data = tagged(voc)
    batches = []
    for workers in (0, 1):
        sampler = IterationSampler(3, batch=2, seed=0, start_iteration=1, max_iterations=4)
        context = method if workers else None
        loader = DataLoader(
            data, batch_sampler=sampler, num_workers=workers, multiprocessing_context=context
        )
        batches.append([(batch["index"].tolist(), batch["image"]) for batch in loader])
    assert [index for index, _ in batches[0]] == [index for index, _ in batches[1]]
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(*batches))


def keys(
    n: int, batch: int, start: int = 0, stop: int = 12, rank: int = 0, world: int = 1, seed: int = 5
) -> list:
    return list(IterationSampler(n, batch, seed, start, stop, rank, world))


@pytest.mark.parametrize(("n", "batch"), [(10, 4), (3, 8), (1, 2)])
def test_every_epoch_holds_every_image_once(n, batch):
    order = [index for share in keys(n, batch, stop=30) for _, index in share]
    epochs = [order[start : start + n] for start in range(0, len(order) - n + 1, n)]
    assert all(sorted(epoch) == list(range(n)) for epoch in epochs)
    assert n < 10 or epochs[0] != epochs[1]


def test_resuming_continues_the_same_sequence():
    assert keys(10, 4, start=5) == keys(10, 4)[5:]


def test_processes_split_each_batch_in_order():
    shares = [keys(10, 4, rank=rank, world=2) for rank in range(2)]
    assert [a + b for a, b in zip(*shares)] == keys(10, 4)


def test_sampler_names_iterations_and_counts_them():
    batches = keys(10, 4, start=2, stop=5)
    assert [[iteration for iteration, _ in share] for share in batches] == [
        [2] * 4,
        [3] * 4,
        [4] * 4,
    ]
    assert len(IterationSampler(10, 4, 0, 2, 5)) == 3
    assert keys(10, 4) != keys(10, 4, seed=6)


def test_indivisible_batch_is_refused():
    with pytest.raises(UserError, match="batch 4 .* by 3 processes"):
        IterationSampler(10, 4, 0, 0, 1, world=3)


def test_masked_images_at_original_size(voc):
    samples = list(map(MaskedImages(items("voc", voc, "train")).__getitem__, range(3)))
    assert [sample["name"] for sample in samples] == ["c", "a", "b"]
    assert [sample["index"] for sample in samples] == [0, 1, 2]
    assert samples[0]["image"].shape == (3, 10, 20)
    assert (samples[0]["mask"] == 2).all()
    assert "mask" not in samples[1]


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_processes_share_masked_images_without_repeats(voc, world):
    found = items("voc", voc, "train")
    parts = [MaskedImages(found, rank, world) for rank in range(world)]
    assert sorted(part[i]["index"] for part in parts for i in range(len(part))) == [0, 1, 2]


def test_mask_of_another_size_is_refused(voc):
    Image.new("L", (10, 20)).save(voc / "SegmentationClassAug/b.png")
    with pytest.raises(UserError, match="b.png is 10 x 20 but its image .*b.jpg is 20 x 10"):
        MaskedImages([Item("b", voc / "JPEGImages/b.jpg", voc / "SegmentationClassAug/b.png")])[0]
