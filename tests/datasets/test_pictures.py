"""Pictures and masks are read as a person sees them, whatever else stands in their files."""

import io
import struct
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin, features

from datasets.picture_files import MAX_PIXELS
from datasets.pictures import (
    as_shown,
    eight_bits,
    load_image,
    load_mask,
    open_image,
)
from datasets.transforms import View
from utils.common.console import begin_notices
from utils.common.errors import UserError


def save(image: Image.Image, path, **options):
    image.save(path, **options)
    return path


def test_exif_rotation_is_applied(tmp_path):
    image = Image.new("RGB", (4, 2), "black")
    image.putpixel((0, 0), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # shown rotated by 90 degrees clockwise
    loaded = load_image(save(image, tmp_path / "a.png", exif=exif))
    assert loaded.shape == (4, 2, 3)
    assert loaded[0, 1].tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    ("image", "pixel"),
    [
        (Image.new("L", (3, 2), 77), [77, 77, 77]),
        (Image.new("1", (3, 2), 1), [255, 255, 255]),
        (Image.new("LA", (3, 2), (0, 0)), [255, 255, 255]),
        (Image.new("RGBA", (3, 2), (255, 0, 0, 0)), [255, 255, 255]),
        (Image.new("RGBA", (3, 2), (0, 0, 0, 51)), [204, 204, 204]),
        (Image.fromarray(np.full((2, 3), 0x8040, np.uint16)), [128, 128, 128]),
    ],
)
def test_every_mode_becomes_rgb(tmp_path, image, pixel):
    loaded = load_image(save(image, tmp_path / "a.png"))
    assert loaded.dtype == np.uint8
    assert loaded.shape == (2, 3, 3)
    assert loaded[1, 2].tolist() == pixel


def test_palette_with_transparent_entry_shows_white(tmp_path):
    image = Image.new("P", (2, 1), 0)
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    loaded = load_image(save(image, tmp_path / "a.png", transparency=1))
    assert loaded[0].tolist() == [[10, 20, 30], [255, 255, 255]]


def test_cmyk_jpeg_becomes_rgb(tmp_path):
    loaded = load_image(save(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), tmp_path / "a.jpg"))
    assert loaded.shape == (8, 8, 3)
    assert loaded[4, 4, 0] > 230
    assert loaded[4, 4, 1:].max() < 60


@pytest.mark.parametrize("keep", [0, 10, 700])
def test_truncated_image_is_named(tmp_path, keep):
    rng = np.random.default_rng(0)
    path = save(
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)), tmp_path / "half.jpg"
    )
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match="half.jpg"):
        load_image(path)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_shown_size_is_the_size_of_the_pixels(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(Image.new("RGB", (64, 24)), tmp_path / "a.jpg", exif=exif)
    assert open_image(path).shape == load_image(path).shape[:2]


@pytest.mark.parametrize("side", [int(MAX_PIXELS**0.5) + 1, 65000])
def test_a_few_bytes_that_announce_a_huge_picture_are_refused(tmp_path, side):
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    path = tmp_path / "bomb.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b""))
    )
    with pytest.raises(UserError, match="bomb.png has more than 150 million pixels; shrink it"):
        load_image(path)


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_large_jpeg_shown_small_is_decoded_small(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    rows, columns = np.mgrid[:600, :801]
    waves = [128 + 100 * np.sin(rows / 40), 128 + 100 * np.cos(columns / 55), (rows + columns) / 6]
    image = Image.fromarray(np.stack(waves, -1).astype(np.uint8))
    path = save(image, tmp_path / "a.jpg", exif=exif, quality=95)
    picture = open_image(path)
    view = View.draw(*picture.shape, 96, (0.2, 0.2), np.random.default_rng(0))
    small = picture.decoded(view.scale)
    assert max(small.size) == 201  # an eighth would be fewer than 0.2 * 801
    whole = Image.fromarray(load_image(path))
    error = np.abs(view.of_image(small, (0, 0, 0)).astype(int) - view.of_image(whole, (0, 0, 0)))
    assert error.mean() < 1 and error.max() < 12


def test_missing_image_is_named(tmp_path):
    with pytest.raises(UserError, match="none.jpg"):
        load_image(tmp_path / "none.jpg")


@pytest.mark.parametrize("mode", ["L", "P"])
def test_mask_keeps_its_labels(tmp_path, mode):
    labels = np.array([[0, 3, 255]], np.uint8)
    image = Image.fromarray(labels)
    if mode == "P":
        image.putpalette(list(range(256)) * 3)
    assert load_mask(save(image, tmp_path / "m.png")).tolist() == labels.tolist()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "1"])
def test_mask_of_colours_is_refused(tmp_path, mode):
    with pytest.raises(UserError, match=f"m.png has mode {mode}"):
        load_mask(save(Image.new(mode, (3, 2)), tmp_path / "m.png"))


def png_of_bits(bits: int, colour: int) -> bytes:
    """A PNG of one row whose pixels are 0, 1 and, of more bits than one, 2 and 3; grey (colour 0)
    or with a palette (3).
    """
    values = range(min(4, 2**bits))
    row = "".join(f"{value:0{bits}b}" for value in values).ljust(32, "0")
    parts = {
        b"IHDR": struct.pack(">IIBBBBB", len(values), 1, bits, colour, 0, 0, 0),
        b"PLTE": bytes(3 * len(values)),
        b"IDAT": zlib.compress(b"\0" + int(row, 2).to_bytes(4, "big")),
        b"IEND": b"",
    }
    if colour == 0:
        del parts[b"PLTE"]
    chunks = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in parts.items()
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_labels_of_any_bits_are_themselves_or_refused(tmp_path: Path, bits: int) -> None:
    file = tmp_path / "m.png"
    file.write_bytes(png_of_bits(bits, colour=3))
    assert load_mask(file).tolist() == [[0, 1, 2, 3][: 2**bits]]

    file.write_bytes(png_of_bits(bits, colour=0))
    if bits == 8:
        assert load_mask(file).tolist() == [[0, 1, 2, 3]]
    else:
        with pytest.raises(UserError, match=r"m.png has (mode 1|fewer than 8 bits).*; save it as"):
            load_mask(file)


def test_a_mask_that_was_compressed_with_loss_is_refused(tmp_path: Path) -> None:
    labels = np.zeros((40, 40), np.uint8)
    labels[10:30, 10:30] = 15
    Image.fromarray(labels).save(tmp_path / "m.png", "JPEG")
    assert len(np.unique(load_image(tmp_path / "m.png"))) > 2
    with pytest.raises(UserError, match="m.png is a JPEG whatever its name"):
        load_mask(tmp_path / "m.png")


@settings(max_examples=60, deadline=None)
@given(
    st.binary(max_size=200),
    st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\x00", b"BM", b"GIF89a"]),
)
def test_any_bytes_are_a_picture_or_one_sentence(content, magic):
    try:
        open_image(io.BytesIO(magic + content), "some.bin").decoded()
    except UserError as error:
        assert "some.bin" in str(error)


def exif_block(*entries: tuple[int, int, int, bytes], order: str = "<") -> bytes:
    """A TIFF structure of one directory: entries (tag, type, count, value or values)."""
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    place = 8 + 2 + 12 * len(entries) + 4
    body, extra = struct.pack(order + "H", len(entries)), b""
    for tag, kind, count, raw in entries:
        value = raw.ljust(4, b"\0")
        if len(raw) > 4:
            value = struct.pack(order + "I", place + len(extra))
            extra += raw
        body += struct.pack(order + "HHI", tag, kind, count) + value
    return start + body + bytes(4) + extra


TURN = (0x0112, 3, 1, struct.pack("<H", 6))
ODD_EXIF = {
    "text for a fraction": [TURN, (282, 2, 20, b"seventy-two per inch")],
    "a fraction for text": [(271, 5, 1, struct.pack("<II", 1, 3)), TURN],
    "a fraction by zero": [TURN, (282, 5, 1, bytes(8)), (283, 5, 1, bytes(8))],
    "nothing for a number": [TURN, (0x0213, 3, 0, b"")],
    "a type that does not exist": [TURN, (0x9999, 99, 1, b"\1\2\3\4")],
    "millions of values": [TURN, (0x010E, 2, 1 << 30, b"ab\0\0\0")],
    "a directory that is text": [TURN, (0x8769, 2, 4, b"abc\0")],
    "a directory nowhere": [TURN, (0x8825, 4, 1, struct.pack("<I", 60000))],
    "a directory that is itself": [TURN, (0x8769, 4, 1, struct.pack("<I", 8))],
    "two directories": [TURN, (0x8825, 4, 2, struct.pack("<II", 8, 8))],
    "no text but bytes": [(0x010F, 7, 5, b"\xff\xfe\0\xd8!"), TURN],
    "text for a byte order mark": [(0x010E, 2, 3, b"II\0"), TURN],
    "entries out of order": [(0x8298, 2, 2, b"c\0"), TURN, (0x010E, 2, 2, b"d\0")],
}
ORIENTATIONS = {
    "a long": (4, 1, struct.pack("<I", 6)),
    "a byte": (1, 1, b"\6"),
    "two of them": (3, 2, struct.pack("<HH", 6, 3)),
    "a double": (12, 1, struct.pack("<d", 6.0)),
    "a fraction": (5, 1, struct.pack("<II", 12, 2)),
}
NO_ORIENTATIONS = {
    "text": (2, 2, b"6\0"),
    "zero": (3, 1, struct.pack("<H", 0)),
    "nine": (3, 1, struct.pack("<H", 9)),
    "nothing": (3, 0, b""),
    "no number": (12, 1, struct.pack("<d", float("nan"))),
    "a fraction by zero": (5, 1, struct.pack("<II", 6, 0)),
    "six and a half": (11, 1, struct.pack("<f", 6.5)),
    "beyond the end": (12, 9, struct.pack("<I", 1 << 31)),
}
SCENE = Image.new("RGB", (48, 32), (90, 150, 60))
SCENE.paste((220, 40, 40), (0, 0, 16, 16))  # red, at the top left as stored


def with_exif(kind: str, block: bytes) -> bytes:
    """SCENE as a file of this format with an EXIF block put in as it is, sound or not."""
    stream = io.BytesIO()
    SCENE.save(stream, kind, **({"quality": 95} if kind == "JPEG" else {"lossless": True}))
    content = stream.getvalue()
    if kind == "JPEG":
        body = b"Exif\0\0" + block
        return content[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + content[2:]
    if kind == "PNG":
        chunk = struct.pack(">I", len(block)) + b"eXIf" + block + b"crc?"
        return content[:33] + chunk + content[33:]
    chunk = b"EXIF" + struct.pack("<I", len(block)) + block + bytes(len(block) % 2)
    return content[:4] + struct.pack("<I", len(content) - 8 + len(chunk)) + content[8:] + chunk


def turned_quarter(content: bytes) -> bool:
    """Whether the picture in these bytes is shown turned clockwise; asserts that its size is."""
    picture = open_image(io.BytesIO(content), "some file")
    pixels = np.array(picture.decoded())
    assert picture.shape == pixels.shape[:2]
    corner = pixels[4, -5] if picture.shape == (48, 32) else pixels[4, 4]
    assert corner[0] > 180 > 100 > corner[1], "the red corner is elsewhere"
    return picture.shape == (48, 32)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("case", ODD_EXIF)
def test_metadata_that_lies_does_not_hide_the_orientation(case: str, kind: str) -> None:
    assert turned_quarter(with_exif(kind, exif_block(*ODD_EXIF[case])))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("case", [*ORIENTATIONS, *NO_ORIENTATIONS])
def test_an_orientation_is_any_number_from_1_to_8(case: str, kind: str) -> None:
    entry = {**ORIENTATIONS, **NO_ORIENTATIONS}[case]
    content = with_exif(kind, exif_block((0x0112, *entry)))
    assert turned_quarter(content) == (case in ORIENTATIONS)


@pytest.mark.parametrize("cut", [*range(0, 40, 3)])
def test_a_block_that_is_cut_short_counts_as_far_as_it_goes(cut: int) -> None:
    block = exif_block(TURN, (271, 2, 40, bytes(40)))
    assert turned_quarter(with_exif("JPEG", block[:cut])) == (cut >= 22)


def test_headers_doubled_and_of_the_other_byte_order_are_read() -> None:
    assert turned_quarter(with_exif("JPEG", b"Exif\0\0" + exif_block(TURN)))
    large = exif_block((0x0112, 3, 1, struct.pack(">H", 6)), order=">")
    assert turned_quarter(with_exif("PNG", large))


FORMATS = {
    "jpg": ("JPEG", {}),
    "mpo": ("MPO", {"save_all": True, "append_images": [SCENE.resize((24, 16))]}),
    "png": ("PNG", {}),
    "webp": ("WEBP", {"lossless": True}),
    "tif": ("TIFF", {}),
    "lzw.tif": ("TIFF", {"compression": "tiff_lzw"}),
    "jpeg.tif": ("TIFF", {"compression": "jpeg"}),
    "big.tif": ("TIFF", {"big_tiff": True}),
    "avif": ("AVIF", {"quality": 95}),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", FORMATS)
def test_the_size_as_shown_is_one_rule_for_every_format(
    suffix: str, orientation: int, tmp_path: Path
) -> None:
    kind, options = FORMATS[suffix]
    if not features.check("avif") and kind == "AVIF":
        pytest.skip("this Pillow has no AVIF")
    exif = Image.Exif()
    exif[0x0112] = orientation
    SCENE.save(tmp_path / f"a.{suffix}", kind, exif=exif, **options)
    picture = open_image(tmp_path / f"a.{suffix}")
    pixels = np.array(picture.decoded())
    assert picture.shape == pixels.shape[:2] == ((32, 48) if orientation < 5 else (48, 32))
    assert picture.turned == (orientation > 1)
    bottom, right = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    corner = pixels[-5 if bottom else 4, -5 if right else 4]
    assert corner[0] > 150 and corner[1] < 110
    small = open_image(tmp_path / f"a.{suffix}").decoded(0.5)
    assert small.size[0] / small.size[1] == pytest.approx(pixels.shape[1] / pixels.shape[0])
    own = as_shown(Image.open(tmp_path / f"a.{suffix}"))
    assert np.abs(own.astype(int) - pixels).mean() < 3


def png_with(kind: bytes, body: bytes) -> bytes:
    content = with_exif("PNG", b"")[:33]
    stream = io.BytesIO()
    SCENE.save(stream, "PNG")
    chunk = struct.pack(">I", len(body)) + kind + body
    return content + chunk + struct.pack(">I", zlib.crc32(kind + body)) + stream.getvalue()[33:]


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (b"zTXt", b"comment\0\0" + zlib.compress(b"x" * 3_000_000)),
        (b"tEXt", b"parameters\0" + b"y" * 2_000_000),
        (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b"z" * 3_000_000)),
        (b"iTXt", b"key\0\1\0\0\0no stream"),
        (b"iCCP", b"profile\0\0" + zlib.compress(bytes(3_000_000))),
        (b"iCCP", b"profile\0\0" + b"no stream"),
        (b"pHYs", b"\1"),
        (b"gAMA", b""),
        (b"cHRM", b"\0\1"),
        (b"sRGB", b""),
        (b"acTL", b"\0\0\0\2"),
        (b"tIME", b""),
        (b"eXIf", b""),
    ],
)
def test_chunks_that_nobody_asked_for_are_in_nobodys_way(kind: bytes, body: bytes) -> None:
    assert not turned_quarter(png_with(kind, body))


@pytest.mark.parametrize(
    "segment",
    [
        b"\xff\xe1" + struct.pack(">H", 40) + b"http://ns.adobe.com/xap/1.0/\0<x:xmp".ljust(38),
        b"\xff\xe2" + struct.pack(">H", 20) + b"ICC_PROFILE\0\x09\x01".ljust(18),
        b"\xff\xe2" + struct.pack(">H", 20) + b"MPF\0II*\0\xff\xff\xff\xff".ljust(18),
        b"\xff\xe2" + struct.pack(">H", 6) + b"FPXR",
        b"\xff\xed" + struct.pack(">H", 30) + b"Photoshop 3.0\x008BIM\x04\x04".ljust(28),
        b"\xff\xfe" + struct.pack(">H", 8) + b"\xff\xfe\0\0\0\0",
        b"\xff\xe1" + struct.pack(">H", 2),
        b"\xff\xff\xff\xe4" + struct.pack(">H", 3) + b"a",
        b"\xff\xec" + struct.pack(">H", 7) + b"Ducky",
        b"\xff\xe8" + struct.pack(">H", 8) + b"SPIFF\0",
    ],
)
def test_segments_that_nobody_asked_for_are_in_nobodys_way(segment: bytes) -> None:
    content = with_exif("JPEG", exif_block(TURN))
    assert turned_quarter(content[:2] + segment + content[2:])


def grey(values: np.ndarray) -> np.ndarray:
    shown, _, _ = eight_bits(values)
    return shown


@pytest.mark.parametrize(
    ("most", "kind", "white", "middle"),
    [
        (65535, np.uint16, 255, 127),
        (4095, np.uint16, 255, 127),
        (1023, np.uint16, 255, 127),
        (16000, np.uint16, 250, 125),
        (255, np.uint16, 255, 127),
        (3, np.uint16, 192, 64),
        (2**24 - 1, np.int32, 255, 127),
        (1.0, np.float32, 255, 127),
        (0.001, np.float32, 255, 127),
        (255.0, np.float32, 255, 127),
        (1.3, np.float32, 255, 127),
        (65535.0, np.float64, 255, 127),
        (1e30, np.float32, 255, 127),
    ],
)
def test_values_of_any_range_are_visible(most: float, kind: type, white: int, middle: int) -> None:
    values = np.array([[0, most / 2, most]]).astype(kind)
    assert grey(values)[0].tolist() == pytest.approx([0, middle, white], abs=1)


def test_values_that_are_no_numbers_or_below_zero_are_shown() -> None:
    odd = np.array([[np.nan, -np.inf, np.inf, 0.5]], np.float32)
    assert grey(odd)[0].tolist() == [0, 0, 255, 127]
    assert grey(np.array([[-1.0, 0, 1]]))[0].tolist() == pytest.approx([0, 127, 255], abs=1)
    assert not grey(np.zeros((2, 2), np.float32)).any()
    assert not grey(np.full((2, 2), np.nan, np.float32)).any()
    wide = np.arange(0, 65536, 256, dtype=np.uint16)[None]
    assert (grey(wide)[0] == wide[0] >> 8).all()


@pytest.mark.parametrize("kind", [np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 3])
def test_deep_pictures_are_read_with_all_their_bits(
    kind: type, channels: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begin_notices()
    ramp = np.linspace(0, 1 if kind is np.float32 else 4095, 64).astype(kind)
    values = np.ascontiguousarray(np.broadcast_to(ramp[None, :, None], (16, 64, channels)))
    name = tmp_path / ("a.tif" if kind is np.float32 else "a.png")
    cv2.imwrite(str(name), values.squeeze(), [cv2.IMWRITE_TIFF_COMPRESSION, 1])
    for _ in range(2):
        picture = open_image(name)
        shown = np.array(picture.decoded())
        assert shown.shape == (16, 64, 3) and shown[0, -1].tolist() == [255] * 3
        assert abs(int(shown[0, 32, 0]) - 129) < 3 and picture.deep
        assert picture.stretched == (kind is np.uint16)
    assert capsys.readouterr().err.count("is shown as white") == (kind is np.uint16)


def tiff(values: np.ndarray, *, extra: int | None = None, apart: bool = False) -> bytes:
    """Write (H, W, C) values as an uncompressed TIFF: extra is its ExtraSamples, apart plane by
    plane.
    """
    height, width, channels = values.shape
    planes = channels if apart else 1
    pixels = (values.transpose(2, 0, 1) if apart else values).tobytes()
    end = 8 + len(pixels)
    lists = {  # tag: its values, which stand behind the pixels
        258: [8 * values.itemsize] * channels,
        339: [3 if values.dtype.kind == "f" else 1] * channels,
        273: [8 + n * len(pixels) // planes for n in range(planes)],
        279: [len(pixels) // planes] * planes,
    }
    tags = {256: width, 257: height, 259: 1, 262: 2 if channels > 2 else 1, 277: channels}
    tags |= {278: height, 284: 2 if apart else 1}
    if extra is not None:
        tags[338] = extra

    entries = {tag: struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items()}
    behind = b""
    for tag, numbers in lists.items():
        if len(numbers) == 1:
            entries[tag] = struct.pack("<HHII", tag, 4, 1, numbers[0])
            continue
        entries[tag] = struct.pack("<HHII", tag, 4, len(numbers), end + len(behind))
        behind += struct.pack(f"<{len(numbers)}I", *numbers)

    directory = b"".join(entries[tag] for tag in sorted(entries))
    header = struct.pack("<2sHI", b"II", 42, end + len(behind))
    return header + pixels + behind + struct.pack("<H", len(entries)) + directory + bytes(4)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize(
    ("extra", "fourth", "middle"),
    [(0, 0.2, 128), (2, 1.0, 128), (2, 0.0, 255)],  # infrared; opaque; transparent
)
def test_a_fourth_channel_is_transparency_where_the_file_says_so(
    kind: type, extra: int, fourth: float, middle: int
) -> None:
    whole = 1 if kind is np.float32 else np.iinfo(kind).max
    values = np.full((8, 8, 4), whole / 2)
    values[0, 0, :3] = whole
    values[..., 3] = whole * fourth
    content = tiff(values.astype(kind), extra=extra)
    shown = np.array(open_image(io.BytesIO(content), "a.tif").decoded())
    assert shown.shape == (8, 8, 3) and abs(int(shown[4, 4, 0]) - middle) <= 1


def test_planes_that_pillow_does_not_know_keep_their_colours() -> None:
    values = np.broadcast_to(np.array([200, 100, 50, 20], np.uint8), (8, 8, 4))
    content = tiff(values, extra=0, apart=True)
    picture = open_image(io.BytesIO(content), "a.tif")
    assert np.array(picture.decoded())[3, 3].tolist() == [200, 100, 50] and not picture.deep


@pytest.mark.parametrize("kind", [np.uint16, np.float32])
def test_deep_planes_that_libraries_misread_are_refused(kind: type) -> None:
    content = tiff(np.zeros((8, 8, 3), kind), apart=True)
    with pytest.raises(UserError, match="lie apart .* save it with its channels interleaved"):
        open_image(io.BytesIO(content), "a.tif")
    open_image(io.BytesIO(tiff(np.zeros((8, 8, 1), kind), apart=True)), "grey.tif").decoded()


def test_a_tiff_that_no_library_reads_is_said_to_be_one() -> None:
    with pytest.raises(UserError, match="a TIFF of 9 channels of 16 bits"):
        open_image(io.BytesIO(tiff(np.zeros((8, 8, 9), np.uint16))), "a.tif")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (struct.pack(">I", 24) + b"ftypheic" + bytes(100), "is HEIC, whatever its name"),
        (struct.pack(">I", 24) + b"ftypmif1" + bytes(100), "pip install pillow-heif"),
        (b"\xff\x0a" + bytes(40), "is JPEG XL; replace it"),
        (b"8BPS" + bytes(40), "is Photoshop"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is PostScript"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        (b"<!DOCTYPE html><title>404</title>", "a web page"),
        (b"", "its content is no picture"),
        (b"\0" * 400, "its content is no picture"),
        (b"RIFF\xff\xff\xff\xffWEBPVP8L", "cannot be read"),
    ],
)
def test_what_is_no_picture_here_gets_a_true_sentence(
    content: bytes, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "a.jpg").write_bytes(content)
    for read in (load_image, load_mask):
        with pytest.raises(UserError, match="a.jpg") as caught:
            read(tmp_path / "a.jpg")
        assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_picture_that_is_not_there_is_told_as_such(tmp_path: Path) -> None:
    for read in (load_image, load_mask):
        with pytest.raises(UserError, match=r"a.jpg does not exist; check its path") as caught:
            read(tmp_path / "a.jpg")
        assert "Errno" not in str(caught.value)


def test_whatever_a_library_raises_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    SCENE.save(tmp_path / "a.png")
    for error in (TypeError, AttributeError, KeyError, IndexError, ZeroDivisionError, RuntimeError):

        def fail(*_: object, error: type[Exception] = error) -> None:
            raise error("of a library")

        with monkeypatch.context() as patch:
            patch.setattr(Image.Image, "convert", fail)
            patch.setattr(Image.Image, "load", fail)
            patch.setattr(PngImagePlugin.PngImageFile, "load", fail, raising=False)
            with pytest.raises(UserError, match=r"a.png cannot be read .*of a library"):
                load_image(tmp_path / "a.png")
            with pytest.raises(UserError, match=r"mask .*a.png cannot be read .*of a library"):
                load_mask(tmp_path / "a.png")


def test_a_mask_is_turned_as_it_is_shown(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    labels = Image.new("L", (4, 2))
    labels.putpixel((0, 0), 5)
    labels.save(tmp_path / "a.png", exif=exif)
    assert load_mask(tmp_path / "a.png")[-1, -1] == 5
