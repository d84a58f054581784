"""Whatever bytes stand in a file that a user hands in, its reader gives a result or one sentence,
in bounded memory.
"""

import io
import os
import pickle
import resource
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from archives import Payload, as_archive, save_torchscript
from helpers import clip_tensors, tiny_clip
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, features
from safetensors.torch import save_file
from vit_files import deit, in_hugging_face_names, saved

from clip.activation import METADATA
from clip.loader import load_clip
from datasets.annotations import tags_of_file
from datasets.pictures import load_image, load_mask, open_image
from datasets.specs import VOC
from model.vit_loading import from_deit, load_mct
from utils.build import restore
from utils.common.errors import UserError
from utils.common.safe_tensors import load_plain, read_tensors
from utils.config import load_config
from utils.run_folder.checkpoint import checkpoint_config, load_checkpoint

EXAMPLES = int(os.environ.get("CVF_FUZZ", "25"))  # a reader and kind of damage
FUZZ = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES <= 25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
MEMORY = 512 << 20  # bytes that reading a damaged file of less than a megabyte may add


def refused_or_read(read: Callable[[], Any]) -> None:
    """Asserts that reading ends well or with one sentence, within MEMORY."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        read()
    except UserError as error:
        assert len(str(error).splitlines()) == 1, error
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MEMORY


def read_checkpoint(path: Path) -> None:
    """What the test script does with --model_path, up to the first picture."""
    content = load_checkpoint(path, "--model_path")
    restore(content, checkpoint_config(content["config"], path, {}))


FILES = [PurePosixPath(name) for name in ("a.jpg", "sub/b.png", "voc.jpg")]
TEXTS = {
    "tags.csv": "\ufeffimage;tags\r\na.jpg;cat, dog\r\nsub\\b.png;\r\n",
    "tags.json": '\ufeff{"a.jpg": ["cat", "dog"], "sub/b.png": []}',
    "instances.json": '{"images": [{"id": "1", "file_name": "a.jpg", "height": 4, "width": 5}], '
    '"categories": [{"id": 1, "name": "cat"}], "annotations": [{"id": 1, "image_id": 1, '
    '"category_id": "1", "iscrowd": "0", "segmentation": [[0, 0, 1, 1, 2, 2]]}]}',
    "voc.xml": "<annotation><filename>a.jpg</filename><object><name>cat</name><difficult>0"
    "</difficult></object></annotation>",
}


def picture_of(name: str, image: Image.Image) -> bytes:
    """The picture as a file of the kind that the name ends with."""
    stream = io.BytesIO()
    grey = np.asarray(image.convert("L"))
    suffix = name.partition(".")[2]
    deep = {
        "16.png": Image.fromarray(grey.astype(np.uint16) * 16),
        "float.tif": Image.fromarray(grey.astype(np.float32) / 255),
    }
    if suffix == "16.tif":
        written, content = cv2.imencode(".tif", np.asarray(image).astype(np.uint16) * 16)
        assert written
        return content.tobytes()
    options = {"compression": "tiff_lzw"} if suffix == "lzw.tif" else {}
    kinds = {"tif": "TIFF", "jp2": "JPEG2000"}
    ending = suffix.rpartition(".")[2]
    deep.get(suffix, image).save(stream, kinds.get(ending, ending.upper()), **options)
    return stream.getvalue()


AVIF = ("avif",) if features.check("avif") else ()  # Pillow writes it from 11.3 on
READERS: dict[str, Callable[[Path], Any]] = {
    "image.png": load_image,
    "image.jpg": load_image,
    **{f"image.{kind}": load_image for kind in ("webp", "tif", "lzw.tif", "gif", "bmp", "ppm")},
    **{f"image.{kind}": load_image for kind in ("jp2", *AVIF, "16.png", "float.tif", "16.tif")},
    "mask.png": load_mask,
    "tags.csv": lambda path: tags_of_file(path, FILES, VOC),
    "tags.json": lambda path: tags_of_file(path, FILES, VOC),
    "instances.json": lambda path: tags_of_file(path, FILES, VOC),
    "voc.xml": lambda path: tags_of_file(path, FILES, VOC),
    "checkpoint.pt": read_checkpoint,
    "clip.safetensors": load_clip,
    "torchscript.pt": load_clip,
    "mct.pth": lambda path: load_mct(read_tensors(path, "--mct_path")),
    "deit.pth": lambda path: from_deit(read_tensors(path, "--deit_path"), 5),
    "config.yaml": load_config,
}


@pytest.fixture(scope="module")
def whole(
    trained: Path, toy_voc: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """A good file for each reader."""
    folder = tmp_path_factory.mktemp("good")
    tensors = clip_tensors(tiny_clip())
    save_file(tensors, folder / "clip.safetensors", {METADATA: "gelu"})
    save_torchscript(tensors, folder / "torchscript.pt")
    vit = torch.load(trained / "checkpoints" / "classifier.pt", weights_only=True)["model"]
    torch.save({"model": vit}, folder / "mct.pth")
    saved(folder / "deit.pth", in_hugging_face_names(deit()))
    picture = next((toy_voc / "JPEGImages").iterdir())
    files = {
        "image.jpg": picture,
        "image.png": toy_voc / "SegmentationClassAug" / f"{picture.stem}.png",
        "mask.png": toy_voc / "SegmentationClassAug" / f"{picture.stem}.png",
        "checkpoint.pt": trained / "checkpoints" / "final.pt",
        "config.yaml": trained / "config.yaml",
        **{
            name: folder / name
            for name in ("clip.safetensors", "torchscript.pt", "mct.pth", "deit.pth")
        },
    }
    drawn = {
        name: picture_of(name, Image.open(picture).resize((48, 32)))
        for name in READERS
        if name.startswith("image.") and name not in files
    }
    texts = {name: text.encode() for name, text in TEXTS.items()}
    return {**{name: file.read_bytes() for name, file in files.items()}, **drawn, **texts}


@pytest.mark.parametrize("name", READERS)
@given(data=st.data())
@FUZZ
def test_damaged_files(
    name: str, data: st.DataObject, whole: dict[str, bytes], tmp_path: Path
) -> None:
    """Bytes changed, cut out, doubled or put in, most often near the start, where formats keep
    their headers.
    """
    content = bytearray(whole[name])
    for _ in range(data.draw(st.integers(1, 4))):
        limit = data.draw(st.sampled_from([64, 2048, len(content)]))
        place = data.draw(st.integers(0, max(0, min(limit, len(content)) - 1)))
        end = place + data.draw(st.sampled_from([0, 1, 4, 100, len(content)]))
        other = data.draw(st.binary(max_size=8) | st.none())
        content[place:end] = bytes(content[place:end]) * 2 if other is None else other
    (tmp_path / name).write_bytes(content)
    refused_or_read(lambda: READERS[name](tmp_path / name))


@pytest.mark.parametrize("name", READERS)
@given(content=st.binary(max_size=200))
@FUZZ
def test_any_bytes(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    refused_or_read(lambda: READERS[name](tmp_path / name))


# Where metadata lie: JPEG's segments, PNG's chunks, WebP's chunks.
SEGMENTS = {0xE1: b"Exif\0\0", 0xE2: b"ICC_PROFILE\0\1\1", 0xED: b"Photoshop 3.0\0", 0xFE: b""}
CHUNKS = (b"eXIf", b"iCCP", b"zTXt", b"tEXt", b"iTXt", b"pHYs", b"tIME", b"gAMA", b"cHRM", b"acTL")
BLOCKS = st.one_of(
    st.binary(max_size=60),
    st.tuples(  # a directory of entries of any tag, type, count and value
        st.sampled_from([b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08"]),
        st.lists(
            st.tuples(
                st.sampled_from([0x10E, 0x10F, 0x112, 0x11A, 0x132, 0x8769, 0x8825, 0xA005]),
                st.integers(0, 14),
                st.integers(0, 9) | st.integers(0, 2**32 - 1),
                st.binary(min_size=4, max_size=4),
            ),
            max_size=6,
        ),
    ).map(
        lambda made: (
            made[0]
            + b"".join(
                struct.pack(("<" if made[0] < b"J" else ">") + kind, *values)
                for kind, values in [("H", [len(made[1])]), *(("HHI4s", e) for e in made[1])]
            )
        )
    ),
)
PLAIN = Image.fromarray(np.arange(6 * 9 * 3, dtype=np.uint8).reshape(6, 9, 3))


def jpeg_with(content: bytes, block: bytes, which: int) -> bytes:
    marker, start = list(SEGMENTS.items())[which % len(SEGMENTS)]
    body = start + block
    segment = bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body
    return content[:2] + segment + content[2:]


def png_with(content: bytes, block: bytes, which: int) -> bytes:
    kind = CHUNKS[which % len(CHUNKS)]
    checksum = zlib.crc32(kind + block) if which % 3 else 7
    chunk = struct.pack(">I", len(block)) + kind + block + struct.pack(">I", checksum)
    return content[:33] + chunk + content[33:]


def webp_with(content: bytes, block: bytes, which: int) -> bytes:
    kind = (b"EXIF", b"XMP ", b"ICCP")[which % 3]
    chunk = kind + struct.pack("<I", len(block)) + block + bytes(len(block) % 2)
    return content[:4] + struct.pack("<I", len(content) + len(chunk) - 8) + content[8:] + chunk


def tiff_with(content: bytes, block: bytes, which: int) -> bytes:
    """The directory moved to the end, with an entry more of any type, count and value."""
    start = struct.unpack_from("<I", content, 4)[0]
    count = struct.unpack_from("<H", content, start)[0]
    entries = content[start + 2 : start + 2 + 12 * count]
    tag = (270, 271, 282, 305, 315, 700, 34377, 34665, 34675, 34853)[which % 10]
    more = struct.pack("<HHI", tag, which % 15, len(block) or 3) + block[:4].ljust(4, b"\0")
    directory = struct.pack("<H", count + 1) + entries + more + bytes(4)
    return content[:4] + struct.pack("<I", len(content)) + content[8:] + directory


def avif_with(content: bytes, block: bytes, which: int) -> bytes:
    """Bytes of the EXIF item changed in place."""
    place = content.rindex(b"\0*") + 2 + which % 20
    block = block[: len(content) - place][:20]
    return content[:place] + block + content[place + len(block) :]


INTO = {
    "JPEG": jpeg_with,
    "PNG": png_with,
    "WEBP": webp_with,
    "TIFF": tiff_with,
    **{kind.upper(): avif_with for kind in AVIF},
}


@pytest.mark.parametrize("kind", INTO)
@given(blocks=st.lists(st.tuples(BLOCKS, st.integers(0, 200)), min_size=1, max_size=3))
@FUZZ
def test_whatever_the_metadata_the_picture_is_read(
    kind: str, blocks: list[tuple[bytes, int]]
) -> None:
    """The same pixels, perhaps turned; the size is that of the pixels; nothing is refused."""
    stream = io.BytesIO()
    exif = Image.Exif()
    exif[0x10F] = "a maker of cameras"
    options = {"quality": 90} if kind in ("JPEG", "AVIF") else {"lossless": True}
    PLAIN.save(stream, kind, **options, **({"exif": exif} if kind == "AVIF" else {}))
    plain = np.array(open_image(io.BytesIO(stream.getvalue()), "plain").decoded())
    content = stream.getvalue()
    for block, which in blocks[: 1 if kind in ("AVIF", "TIFF") else 3]:
        content = INTO[kind](content, block, which)
    picture = open_image(io.BytesIO(content), f"some {kind}")
    pixels = np.array(picture.decoded())
    assert picture.shape == pixels.shape[:2] and sorted(picture.shape) == [6, 9]
    assert sorted(map(tuple, pixels.reshape(-1, 3))) == sorted(map(tuple, plain.reshape(-1, 3)))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(data=st.data())
@FUZZ
def test_checkpoints_of_any_content(
    data: st.DataObject, whole: dict[str, bytes], tmp_path: Path
) -> None:
    """One value of a good checkpoint, or of the configuration in it, is another one."""
    (tmp_path / "a.pt").write_bytes(whole["checkpoint.pt"])
    content = torch.load(tmp_path / "a.pt", weights_only=True)
    part = data.draw(st.sampled_from([content, content["config"], content["model"]]))
    part[data.draw(st.sampled_from(sorted(part)))] = data.draw(VALUES | st.just(torch.zeros(3)))
    torch.save(content, tmp_path / "a.pt")
    refused_or_read(lambda: read_checkpoint(tmp_path / "a.pt"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("base: config.yaml", "its own base"),
        ("base: [[a]]", "has the base"),
        ("seed: 1" + 400 * "0", "seed is"),
        ("lr: .nan", "lr is nan"),
        ("scales: [.inf]", "scales is"),
        ("lr: 2020-99-99", "is not YAML"),
        ("[" * 100_000, "is not YAML"),
        ("a: !!python/object/apply:os.system ['touch trace']", "is not YAML"),
        (
            "work_dir:\n- &a [x, x, x]\n"
            + "".join(
                f"- &{k} [{', '.join([f'*{j}'] * 9)}]\n"
                for j, k in zip("abcdefghijklmnop", "bcdefghijklmnopq")
            ),
            "work_dir is",
        ),
    ],
    ids=lambda text: text[:20],
)
def test_hostile_settings(
    text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(text)
    with pytest.raises(UserError, match=said) as caught:
        load_config("config.yaml")
    assert len(str(caught.value)) < 400 and not Path("trace").exists()


def bomb_of_zeros(path: Path) -> None:
    """A record of 1 GiB of zeros, deflated to megabytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}, 2))
        with archive.open("archive/data/0", "w") as record:
            for _ in range(1024):
                record.write(bytes(1 << 20))


def expanded(path: Path) -> None:
    """One stored number that shows as 2^40 of them."""
    torch.save({"visual.conv1.weight": torch.zeros(1).expand(1 << 20, 1 << 20)}, path)


def tar_of_code(path: Path) -> None:
    """The form in which old versions of PyTorch would run a pickle under `weights_only`."""
    trace = path.with_name("trace")
    path.with_name("pickle").write_bytes(pickle.dumps(Payload(open, str(trace), "w"), 2))
    with tarfile.open(path, "w") as archive:
        for name in ("storages", "tensors", "pickle"):
            archive.add(path.with_name("pickle"), name)


def archive_of_code(path: Path) -> None:
    as_archive(Payload(open, str(path.with_name("trace")), "w"), path)


@pytest.mark.parametrize("make", [bomb_of_zeros, expanded, tar_of_code, archive_of_code])
def test_files_that_would_fill_the_memory_or_run_code(
    make: Callable[[Path], None], tmp_path: Path
) -> None:
    path = tmp_path / "a.pt"
    make(path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match="a.pt cannot be read"):
        load_clip(path)
    with pytest.raises(UserError, match="a.pt cannot be read"):
        load_checkpoint(path, "--model_path")
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MEMORY
    assert not (tmp_path / "trace").exists()


def test_plain_files_of_every_age_are_read(tmp_path: Path) -> None:
    shared = torch.arange(6.0)
    for modern in (True, False):
        torch.save(
            {"a": shared, "b": shared[2:]}, tmp_path / "a.pt", _use_new_zipfile_serialization=modern
        )
        assert torch.equal(load_plain(tmp_path / "a.pt")["b"], shared[2:])
