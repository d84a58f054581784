"""The page to try the method on a photo: what it reads, computes and draws, and in a browser, where
one and the page's library are installed.
"""

import base64
import importlib.util
import io
import re
import shutil
import socket
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from html import unescape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from helpers import run
from PIL import Image

from datasets.classes import given_classes
from datasets.specs import COCO, IGNORE, VOC, DatasetSpec, palette
from utils.common.entry import command
from utils.common.errors import UserError
from utils.inference import Labeller, Segmenter
from utils.inference.labeller import CAM, SEED
from utils.inference.protocol import Outputs
from utils.inference.refinement import CRF, PAR, Refinement
from utils.metrics import CAMS, TITLES
from utils.tools.demo import __main__ as demo
from utils.tools.demo.panels import as_html, download_html, labels_of, panels, said_html
from utils.tools.demo.photos import Photo, examples, read_photo
from utils.tools.demo.stages import PREDICTION, ByCheckpoint, ByClip, Stages, chosen_tags

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))),
    None,
)
SECLUDED = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]


@pytest.fixture(scope="module")
def labeller() -> Labeller:
    """The toy CLIP with the classes of VOC, quick."""
    quick = {"device": "cpu", "precision": "fp32", "resize_long": 128, "par_iterations": 3}
    return Labeller.from_clip("voc", "toy", **quick)


@pytest.fixture(scope="module")
def shown(labeller: Labeller) -> tuple[Photo, Stages]:
    """An example of two classes and its stages."""
    photo = next(one for one in examples(VOC) if len(one.tags) == 2)
    return photo, ByClip(labeller).stages(photo.image, photo.tags)


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    check = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + check


def announcing(width: int, height: int) -> bytes:
    """A PNG whose header announces a size, and whose pixels cannot be decoded."""
    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", b"nothing")


def mask_in(html: str) -> Image.Image:
    """The mask that a link saves."""
    (content,) = re.findall(r'href="data:image/png;base64,([^"]+)"', html)
    return Image.open(io.BytesIO(base64.b64decode(content)))


def test_tags_are_typed_or_ticked_and_come_in_the_order_of_the_classes() -> None:
    assert chosen_tags("Dog, tv monitor, ", ["cat"], given_classes("tv monitor, cat, dog")) == [
        "tv monitor",
        "cat",
        "dog",
    ]
    assert chosen_tags("dog cat", [], VOC) == ["cat", "dog"]
    with pytest.raises(UserError, match="tag 'caat', which is no class, did you mean 'cat'"):
        chosen_tags("dog, caat", [], VOC)
    for nothing in ("", " , ", "background"):
        with pytest.raises(UserError, match="no tags; tick or type"):
            chosen_tags(nothing, [], VOC)


def test_a_photo_is_read_as_it_is_shown(tmp_path: Path) -> None:
    picture = Image.fromarray(np.zeros((20, 30, 3), np.uint8))
    exif = picture.getexif()
    exif[0x0112] = 6  # a quarter turn
    picture.save(tmp_path / "turned.jpg", exif=exif)
    photo = read_photo(tmp_path / "turned.jpg")
    assert (photo.name, photo.size, photo.drawn) == ("turned.jpg", "20 x 30 px", False)


def test_what_is_no_photo_is_said(tmp_path: Path) -> None:
    (tmp_path / "notes.jpg").write_text("not a picture")
    with pytest.raises(UserError, match=r"notes.jpg cannot be read .* replace the file$"):
        read_photo(tmp_path / "notes.jpg")


def test_a_photo_of_100_megapixels_is_refused_by_its_header(tmp_path: Path) -> None:
    (tmp_path / "huge.png").write_bytes(announcing(12500, 8000))  # it could not be decoded
    with pytest.raises(UserError, match="huge.png has 100 million pixels .* takes 40 million"):
        read_photo(tmp_path / "huge.png")


@pytest.mark.parametrize("spec", [VOC, COCO, given_classes("couch, tv, kitten")])
def test_examples_show_classes_of_the_list_alone(spec: DatasetSpec) -> None:
    drawn = examples(spec)
    assert drawn and len({one.name for one in drawn}) == len(drawn) <= 6
    assert all(one.drawn and set(one.tags) <= set(spec.classes) for one in drawn)


def test_there_are_no_examples_of_classes_that_are_never_drawn() -> None:
    assert examples(given_classes("axolotl, xylophone")) == []


def test_stages_of_clip_are_what_the_labeller_makes(
    labeller: Labeller, shown: tuple[Photo, Stages]
) -> None:
    photo, stages = shown
    assert list(stages.maps) == [CAM, SEED] and list(stages.channels) == [PAR, CRF]
    assert [VOC.classes[key] for key in stages.keys] == sorted(photo.tags, key=VOC.classes.index)
    given = (labeller.model, labeller.spec, labeller.config)
    for title, kind in ((PAR, "par"), (CRF, "crf")):
        expected = Labeller(*given, Refinement(kind))(photo.image, photo.tags)
        assert np.array_equal(labels_of(stages, title, 0), expected)


def test_stages_of_a_checkpoint_have_both_branches_and_the_prediction(trained: Path) -> None:
    file = trained / "checkpoints" / "final.pt"
    segmenter = Segmenter.from_checkpoint(file, Outputs(use_crf=False), device="cpu")
    photo = examples(VOC)[0]
    stages = ByCheckpoint(segmenter).stages(photo.image, photo.tags)
    assert list(stages.maps) == [*CAMS.values(), TITLES["fused"]]
    assert list(stages.channels) == [PAR, CRF, PREDICTION]
    both = (stages.maps[CAMS["clip"]] + stages.maps[CAMS["vit"]]) / 2
    assert torch.allclose(stages.maps[CAMS["fused"]], both, atol=1e-3)

    small = Segmenter(segmenter.model, VOC, segmenter.config, segmenter.options, "")
    predicted = small(photo.image, photo.tags)
    agreeing = predicted == labels_of(stages, PREDICTION, 0)
    assert agreeing.mean() > 0.98  # the page's picture was shrunk before
    for labels in (labels_of(stages, title, 0) for title in stages.channels):
        assert {VOC.label_names[label] for label in np.unique(labels)} <= {
            "background",
            *photo.tags,
        }


def test_sliders_draw_what_they_say(shown: tuple[Photo, Stages]) -> None:
    photo, stages = shown
    plain, *maps, par, _ = panels(stages, VOC.label_names, opacity=0)
    assert np.array_equal(plain.picture, photo.image)
    for panel in (*maps, par):
        assert np.array_equal(panel.picture, photo.image)

    kept = []
    for threshold in (0.0, 0.5, 0.9):
        _, cam, *_ = panels(stages, VOC.label_names, threshold=threshold)
        coloured = (cam.picture != photo.image).any(axis=-1).mean()
        share = re.search(r"(\d+)% of the photo reach", cam.said).group(1)
        assert abs(int(share) / 100 - coloured) < 0.02
        kept.append(coloured)
    assert kept[0] > kept[1] > kept[2] > 0


def test_maps_show_one_tag_or_the_highest_of_all(shown: tuple[Photo, Stages]) -> None:
    _, stages = shown
    each = []
    for row, key in enumerate(stages.keys.tolist()):
        alone = replace(
            stages,
            keys=stages.keys[[row]],
            maps={title: maps[[row]] for title, maps in stages.maps.items()},
            channels={},
        )
        of_one = panels(stages, VOC.label_names, VOC.classes[key])[1]
        assert np.array_equal(of_one.picture, panels(alone, VOC.label_names)[1].picture)
        each.append(of_one.picture)
    both = panels(stages, VOC.label_names)[1].picture
    assert not np.array_equal(each[0], each[1])
    assert ((both == each[0]) | (both == each[1])).all(axis=-1).mean() > 0.99


def test_the_mask_is_a_palette_png_of_the_photos_size(shown: tuple[Photo, Stages]) -> None:
    photo, stages = shown
    html = download_html(photo, stages, CRF, VOC.label_names, 0.6)
    mask = mask_in(html)
    labels = np.array(mask)
    assert mask.mode == "P" and labels.shape == photo.image.shape[:2]
    assert mask.getpalette() == palette().ravel().tolist()
    sure = labels != IGNORE
    assert 0 < sure.mean() < 1
    assert np.array_equal(labels[sure], labels_of(stages, CRF, 0)[sure])
    assert f"not labelled {1 - sure.mean():.1%}" in html
    assert f'download="{photo.name}_mask.png"' in html


def test_a_large_photo_is_drawn_small_and_its_mask_is_not(labeller: Labeller) -> None:
    image = np.random.default_rng(0).integers(0, 256, (500, 120, 3), np.uint8)
    stages = ByClip(labeller).stages(image, ["cat"])
    assert {max(panel.picture.shape) for panel in panels(stages, VOC.label_names)} == {448}
    photo = Photo("a.jpg", image)
    assert mask_in(download_html(photo, stages, PAR, VOC.label_names, 0)).size == (120, 500)


def test_names_of_files_and_classes_are_text(shown: tuple[Photo, Stages]) -> None:
    photo, stages = shown
    odd = '<img src=x onerror="alert(1)">'
    names = [odd] * len(VOC.label_names)
    pages = [
        as_html(panels(stages, names)),
        download_html(replace(photo, name=odd), stages, CRF, names, 0),
        said_html(odd),
    ]
    for page in pages:
        assert odd not in page and odd in unescape(page)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's library, as far as the command looks for it."""
    monkeypatch.setattr(demo, "LIBRARY", "json")


def refused(capsys: pytest.CaptureFixture[str], *flags: object) -> str:
    """The one sentence with which the command refuses."""
    assert run(command(demo.main), *flags) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_missing_library_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "LIBRARY", "not_installed_anywhere")
    said = refused(capsys)
    assert "`pip install -r utils/tools/demo/requirements.txt`" in said


@pytest.mark.usefixtures("installed")
def test_a_port_that_cannot_be_had_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--port 70000 must lie between 1 and 65535" in refused(capsys, "--port", 70000)
    with socket.socket() as other:
        other.bind((demo.HOST, 0))
        other.listen()
        port = other.getsockname()[1]
        assert f"--port {port} is in use; give another" in refused(capsys, "--port", port)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--model_path", "none.pt"], "--model_path none.pt does not exist"),
        (["--model_path", "none.pt", "--classes", "cat"], "--classes cat cannot be joined"),
        (["--clip_path", "none.pt"], "none.pt"),
        (["--clip_path", "toy", "--classes", "cat, axolotl"], "axolotl"),
        (["--prot", 1], "unknown flag --prot, did you mean '--port'"),
    ],
)
def test_what_cannot_be_loaded_is_said(
    flags: Sequence[object], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refused(capsys, "--port", free_port(), *flags)


def free_port() -> int:
    """A port of this machine that nothing uses."""
    with socket.socket() as probe:
        probe.bind((demo.HOST, 0))
        return probe.getsockname()[1]


needs_library = pytest.mark.skipif(
    importlib.util.find_spec("gradio") is None,
    reason="the page's library is not installed (utils/tools/demo/requirements.txt)",
)


class Counted:
    """An explorer that counts how often the networks run."""

    def __init__(self, inner: ByClip) -> None:
        self.inner = inner
        self.spec = inner.spec
        self.toy = inner.toy
        self.count = 0

    def stages(self, image: np.ndarray, tags: Sequence[str]) -> Stages:
        """As the other explorer."""
        self.count += 1
        return self.inner.stages(image, tags)


@pytest.fixture
def upload_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the library keeps what is handed in."""
    with TemporaryDirectory() as folder:
        monkeypatch.setenv("GRADIO_TEMP_DIR", folder)
        monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        yield Path(folder)


@needs_library
def test_ctrl_c_closes_the_page_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], upload_folder: Path
) -> None:
    port = free_port()
    left: list[Path] = []

    def interrupted() -> None:
        with socket.create_connection((demo.HOST, port), timeout=10):
            left.append(Path(demo.os.environ["GRADIO_TEMP_DIR"]))
        assert left[0].is_dir()
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "wait", interrupted)
    assert run(demo.main, "--port", port, "--clip_path", "toy", "--device", "cpu") == 0
    assert not left[0].exists()
    said = capsys.readouterr().out
    assert f"open http://127.0.0.1:{port}/" in said and "nothing of it is kept" in said


@needs_library
@pytest.mark.skipif(BROWSER is None, reason="no Chromium")
@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1280, "light")])
def test_the_page_in_a_browser_by_keyboard(
    labeller: Labeller, upload_folder: Path, tmp_path: Path, width: int, scheme: str
) -> None:
    explorer = Counted(ByClip(labeller))
    with opened(explorer, upload_folder, width, scheme) as page:
        an_example_shows_all_stages(page, explorer, scheme)
        sliders_draw_anew_without_a_network(page, explorer)
        the_mask_is_saved(page, tmp_path)
        bad_input_is_said_and_what_was_found_stays(page, tmp_path)
        a_photo_under_an_odd_name_is_handed_in(page, tmp_path)
        tags_are_typed_and_their_mistakes_said(page, explorer)
        nothing_is_kept(page, upload_folder)


@contextmanager
def opened(explorer: Counted, folder: Path, width: int, scheme: str) -> Iterator[Any]:
    """The page in a browser of a width, px, and colour scheme. In the end there was no error, and
    no request to elsewhere.
    """
    playwright = pytest.importorskip("playwright.sync_api")
    from utils.tools.demo.page import served

    place = (demo.HOST, free_port())
    view = {"viewport": {"width": width, "height": 800}, "color_scheme": scheme}
    wrong: list[str] = []
    with (
        served(explorer, examples(VOC), "the toy CLIP", place, folder) as address,
        playwright.sync_playwright() as driver,
    ):

        def note_error(message: Any) -> None:
            if message.type == "error":
                wrong.append(message.text)

        def note_elsewhere(request: Any) -> None:
            if not request.url.startswith((address, "data:", "blob:")):
                wrong.append(request.url)

        browser = driver.chromium.launch(executable_path=BROWSER, args=SECLUDED)
        page = browser.new_page(**view, accept_downloads=True)
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", note_error)
        page.on("request", note_elsewhere)
        page.goto(address)
        yield page
        browser.close()

    assert not wrong


def press(page: Any, place: Any, *keys: str) -> None:
    """Go to a place of the page and press keys there, by default Enter."""
    place.focus()
    for key in keys or ("Enter",):
        page.keyboard.press(key)


def drawn(page: Any) -> list[str]:
    """What the five figures of an example show."""
    images = page.locator("figure img")
    return [images.nth(i).get_attribute("src") for i in range(5)]


def an_example_shows_all_stages(page: Any, explorer: Counted, scheme: str) -> None:
    """All stages, described and within the width."""
    press(page, page.locator("#example-0"))
    page.locator(".save").wait_for()
    titles = page.locator("figcaption strong").all_inner_texts()
    assert titles == ["photo", CAM, SEED, PAR, CRF] and explorer.count == 1
    assert all(page.locator("figure img").nth(i).get_attribute("alt") for i in range(5))
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") == (scheme == "light")


def sliders_draw_anew_without_a_network(page: Any, explorer: Counted) -> None:
    """Threshold and opacity, of what the networks said already."""
    before = drawn(page)
    threshold = page.get_by_label("range slider for Threshold")
    press(page, threshold, "End", *["ArrowLeft"] * 10)
    page.get_by_text("not labelled", exact=False).wait_for()
    press(page, page.get_by_label("range slider for Opacity"), "End")
    page.wait_for_function(
        "src => document.querySelectorAll('figure img')[1].src != src", arg=before[1]
    )
    after = drawn(page)
    assert after[0] == before[0] and after[1] != before[1] and explorer.count == 1


def the_mask_is_saved(page: Any, folder: Path) -> None:
    """As a palette PNG of the example's size, with pixels that are not labelled."""
    with page.expect_download() as saving:
        press(page, page.locator(".save"))
    saving.value.save_as(folder / "mask.png")
    with Image.open(folder / "mask.png") as mask:
        assert mask.mode == "P" and mask.size == examples(VOC)[0].image.shape[1::-1]
        assert IGNORE in np.array(mask)


def bad_input_is_said_and_what_was_found_stays(page: Any, folder: Path) -> None:
    """One sentence for each file that is no photo, or too large."""
    (folder / "notes.jpg").write_text("not a picture")
    (folder / "huge.png").write_bytes(announcing(12500, 8000))
    said = page.locator(".said")
    for name, sentence in (("notes.jpg", "cannot be read"), ("huge.png", "100 million")):
        page.locator("input[type=file]").set_input_files(folder / name)
        page.get_by_text(sentence).wait_for()
        assert said.get_attribute("role") == "alert" and page.locator("figure").count() == 5


def a_photo_under_an_odd_name_is_handed_in(page: Any, folder: Path) -> None:
    """Its name is text, whatever signs it holds."""
    photo = folder / "${1+1} <b>.png"
    Image.fromarray(examples(VOC)[0].image).save(photo)
    with page.expect_file_chooser() as choosing:
        press(page, page.get_by_label("Click to upload"))
    choosing.value.set_files(photo)
    page.get_by_text("then press Find").wait_for()
    assert page.locator("figure").count() == 1 and page.locator("b").count() == 0


def tags_are_typed_and_their_mistakes_said(page: Any, explorer: Counted) -> None:
    """None, a mistyped one, then a class: the toy CLIP says that it knows no photos."""
    from utils.tools.demo.page import ASIDE

    press(page, page.get_by_role("button", name="Find"))
    page.get_by_text("no tags; tick or type").wait_for()
    field = page.get_by_label("Tags, apart by commas")
    field.fill("caat")
    page.keyboard.press("Enter")
    page.get_by_text("did you mean 'cat'").wait_for()
    field.fill("cat")
    page.keyboard.press("Enter")
    page.locator(".save").wait_for()
    assert ASIDE in page.locator(".said").inner_text() and explorer.count == 2


def nothing_is_kept(page: Any, upload_folder: Path) -> None:
    """No bytes in the library's folder, nothing in the browser."""
    files = [file for file in upload_folder.rglob("*") if file.is_file()]
    assert not [file for file in files if file.stat().st_size]
    assert page.evaluate("localStorage.length + sessionStorage.length") == 0
    assert page.evaluate("indexedDB.databases().then(all => all.length)") == 0
