"""report.html against what a run folder holds, hostile names included, and in a real browser where
there is one.
"""

import errno
import json
import math
import os
import shutil
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.specs import IGNORE
from utils.common.errors import UserError
from utils.config import Config, save_config
from utils.inference.outputs import write_areas
from utils.metrics import CRF, SINGLE, TITLES, ConfusionMatrix
from utils.report import gallery
from utils.report.comparison import differences, distinct, scores, write_comparison
from utils.report.folder import Scored, read_run
from utils.report.line import report_line
from utils.report.page import costs, mistakes, protocol, write_report
from utils.run_folder.results import add_result

pytestmark = pytest.mark.drawn
CLASSES = ("cat", "<script>alert('x')</script>", "a \"$x_1$\" & 'b'", "\u732b")
SIZE = (24, 36)
BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))),
    None,
)


def label_maps(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Truth with the classes 0, 1 + number % 4 and IGNORE, and a prediction that is wrong in
    `number` columns.
    """
    truth = np.zeros(SIZE, np.uint8)
    truth[6:, 12:] = 1 + number % len(CLASSES)
    truth[5] = IGNORE
    predicted = np.where(truth == IGNORE, 0, truth).astype(np.uint8)
    predicted[:, :number] = 1
    return truth, predicted


def make_run(folder: Path, images: int = 24, **settings: object) -> Path:
    """A run folder as training and testing leave it."""
    for part in ("in", "prediction", "panels/of <b>"):
        (folder / part).mkdir(parents=True)
    save_config(Config(**settings), folder / "config.yaml")
    (folder / "environment.txt").write_text("python: 3\ndevice: <i>cpu</i>\n")
    curves = [
        ("segmenter", i, name, 1 / i)
        for i in (1, 2, 3)
        for name in ("loss", "seg", "lr", "seconds", "memory")
    ]
    curves += [
        ("evaluation", i, title, 10 * i) for i in (2, 3) for title in (SINGLE, TITLES["pseudo"])
    ]
    rows = ["stage,iteration,name,value", *(",".join(map(str, row)) for row in curves)]
    (folder / "metrics.csv").write_text("\n".join(rows) + "\n")
    Image.new("RGB", (70, 20), "red").save(folder / "panels" / "of <b>" / "x.png")
    total, lines = (
        ConfusionMatrix(len(CLASSES) + 1),
        [{"format": 1, "checkpoint": "0", "options": {"crf": True}}],
    )
    for number in range(images):
        name, (truth, predicted) = f"<img src=x>{number}", label_maps(number)
        matrix = ConfusionMatrix(len(CLASSES) + 1)
        matrix.update(predicted, truth)
        total.add_pairs(matrix.pairs())
        image, mask = folder / "in" / f"{number}.jpg", folder / "in" / f"{number}.png"
        Image.new("RGB", SIZE[::-1], (0, 10 * number, 99)).save(image)
        Image.fromarray(truth).save(mask)
        Image.fromarray(predicted).save(folder / "prediction" / f"{name}.png")
        pairs = torch.cat(
            [matrix.counts.nonzero(), matrix.counts[matrix.counts > 0][:, None]], 1
        ).tolist()
        entry = {
            "name": name,
            "image": str(image),
            "mask": str(mask),
            "size": SIZE,
            "results": {SINGLE: [], CRF: pairs},
            "pixels": {},
            "files": [f"prediction/{name}.png"],
            "changed": [0, 0],
        }
        lines.append(entry)
    (folder / "images.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for title in (SINGLE, CRF, TITLES["pseudo"]):
        add_result(folder, title, "val", total, CLASSES)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`make_run` with its defaults."""
    return make_run(tmp_path / "run & co")


class Page(HTMLParser):
    """Tags with their attributes, and the text outside scripts and styles."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self._raw = "", False
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._raw = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._raw = False

    def handle_data(self, data: str) -> None:
        self.text += "" if self._raw else f" {data}"


def alternatives(page: Page) -> list[tuple[str, str | None]]:
    return [pair for _, attrs in page.tags for pair in attrs.items() if pair[0] == "alt"]


def test_an_image_is_scored_as_by_the_confusion_matrix(folder: Path) -> None:
    run = read_run(folder)
    assert run.names == ("background", *CLASSES)
    for scored in run.images:
        truth, predicted = label_maps(int(scored.image.stem))
        matrix = ConfusionMatrix(len(CLASSES) + 1)
        matrix.update(predicted, truth)
        ious = matrix.iou().tolist()
        assert scored.miou == pytest.approx(matrix.miou())
        present = [label for label in range(len(ious)) if matrix.counts[label].sum()]
        assert scored.ious == pytest.approx({label: ious[label] for label in present})


def test_the_gallery_takes_the_extremes_the_middle_and_each_class_once() -> None:
    images = [
        Scored(str(i), Path(), None, i / 20, {0: 1.0, 1 + i % 3: (i * 7 % 20) / 20})
        for i in range(20)
    ]
    images.append(Scored("unscored", Path(), None, math.nan, {}))
    chosen = {
        group: [int(s.name) for s in part] for group, part in gallery.choose(images, 3).items()
    }
    assert (
        chosen["best"] == [19, 18, 17]
        and chosen["worst"] == [0, 1, 2]
        and chosen["median"] == [11, 10, 9]
    )
    taken = [number for part in chosen.values() for number in part]
    assert len(set(taken)) == len(taken)
    for label in (1, 2, 3):
        having = sorted(
            (image for image in images if label in image.ious), key=lambda image: image.ious[label]
        )
        assert {int(having[0].name), int(having[-1].name)} <= set(taken)


@pytest.mark.parametrize("count", range(8))
def test_few_images_are_shown_once_each(count: int) -> None:
    images = [Scored(str(i), Path(), None, i / 9, {0: 1.0}) for i in range(count)]
    assert sorted(s.name for part in gallery.choose(images, 3).values() for s in part) == [
        s.name for s in images
    ]


def test_what_comes_from_the_run_is_text_and_nothing_is_loaded(folder: Path) -> None:
    page = Page(write_report(folder))
    tags = [tag for tag, _ in page.tags]
    assert (
        all(name in page.text for name in CLASSES)
        and "<img src=x>" in page.text
        and "<i>cpu</i>" in page.text
    )
    assert (
        tags.count("script") == 1
        and "i" not in tags
        and ("alt", "Panels of of <b>/x") in alternatives(page)
    )
    for tag, attrs in page.tags:
        for name in ("src", "href", "xlink:href", "data", "action"):
            assert (attrs.get(name) or "data:").startswith(("data:", "#")), (tag, attrs)
    assert "default-src 'none'" in str(page.tags)


def test_the_scores_and_the_counts_are_those_of_the_results(folder: Path) -> None:
    result, text = read_run(folder).results[CRF], " ".join(Page(write_report(folder)).text.split())
    assert (
        f"{CRF} {100 * result.matrix.miou():.1f} mIoU %, val, 24 images 5 of 5 classes present"
        in text
    )
    truth, predicted, share = mistakes(result.matrix, ("background", *CLASSES))[0]
    assert f"{truth} {predicted} {share:.1f}" in text
    counts = result.matrix.counts.double()
    expected = 100 * (counts / counts.sum(1, keepdim=True)).fill_diagonal_(0).max()
    assert share == pytest.approx(float(expected))


def without_truth(folder: Path, **header: object) -> None:
    """Make a run one of pictures that have no masks: a third is cat, a half has no label."""
    (folder / "results.json").unlink()
    first, *entries = map(json.loads, (folder / "images.jsonl").read_text().splitlines())
    pixels = {"0": 144, "1": 288, str(IGNORE): 432}
    entries = [{**entry, "mask": None, "results": {}, "pixels": pixels} for entry in entries]
    lines = [json.dumps(line) + "\n" for line in ({**first, **header}, *entries)]
    (folder / "images.jsonl").write_text("".join(lines))


@pytest.mark.parametrize(
    ("header", "cat"),
    [({"classes": ["background", *CLASSES]}, "cat"), ({}, "label 1")],
    ids=["named", "of an older version"],
)
def test_a_prediction_without_truth_names_its_classes_and_colours(
    folder: Path, header: dict[str, object], cat: str
) -> None:
    without_truth(folder, **header)
    page = Page(write_report(folder))
    text = " ".join(page.text.split())
    assert f"{read_run(folder).names[:1]}" == ("('background',)" if header else "()")
    assert (
        text.count(f"{cat} 33 not labelled 50") == 6 and "numbers after class names are %" in text
    )
    assert f"Class any {cat} Labels over image" in text

    colours = [attrs["style"] for _, attrs in page.tags if attrs.get("class") == "swatch"]
    shown = [f"--colour: {gallery.COLOURS[label]}" for label in (0, 1, IGNORE)]
    assert colours == 6 * shown
    chosen = [attrs["data-labels"] for _, attrs in page.tags if attrs.get("class") == "card"]
    assert chosen == 6 * [f"0 1 {IGNORE}"]


def test_a_prediction_without_truth_says_how_it_was_made(folder: Path) -> None:
    without_truth(folder)
    assert read_run(folder).facts == {} and "were made" not in Page(write_report(folder)).text

    facts = {"protocol": "maps <dense>, CRF", "tags": 'given of 2, "guessed" of 0'}
    write_areas([], ("background", "cat"), facts, folder)
    assert read_run(folder).facts == facts
    areas = {"name": "a", "image": "a.jpg", "size": [1, 2], "pixels": {"1": 2}}
    write_areas([areas], ("background", "cat"), facts, folder)
    assert read_run(folder).facts == facts

    text = " ".join(Page(write_report(folder)).text.split())
    assert f"were made: {facts['protocol']}. Tags: {facts['tags']}." in text
    (folder / "areas.json").write_text('{"protocol": "ma')
    with pytest.raises(UserError, match="holds a broken file"):
        read_run(folder)


def test_what_a_run_has_not_got_has_no_heading(folder: Path) -> None:
    assert f"All {len(read_run(folder).config)} settings" in Page(write_report(folder)).text
    (folder / "config.yaml").unlink()
    assert "settings" not in Page(write_report(folder)).text


def predicted_as(folder: Path, pixels: dict[str, int]) -> None:
    """Make the journal of a run tell these pixels by label of every prediction."""
    first, *entries = map(json.loads, (folder / "images.jsonl").read_text().splitlines())
    lines = [first, *({**entry, "pixels": pixels} for entry in entries)]
    (folder / "images.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def swatches(page: Page, label: int) -> tuple[int, int]:
    """How many cards a page has, and how many times the colour of a label stands beside a name."""
    cards = sum(attrs.get("class") == "card" for _, attrs in page.tags)
    colour = f"--colour: {gallery.COLOURS[label]}"
    named = [attrs for _, attrs in page.tags if attrs.get("class") == "swatch"]
    return cards, sum(attrs["style"] == colour for attrs in named)


def test_a_class_that_is_predicted_but_not_in_the_truth_is_named_too(
    folder: Path, tmp_path: Path
) -> None:
    predicted_as(folder, {"0": 832, "4": 32})
    images = read_run(folder).images
    assert {image.wrongly_named for image in images if 4 in image.ious} == {()}
    assert {image.wrongly_named for image in images if 4 not in image.ious} == {(4,)}
    cards, named = swatches(Page(write_report(folder)), 4)
    assert cards == named > 15

    other = make_run(tmp_path / "other")
    page = Page(write_comparison([other, folder], tmp_path / "page.html"))
    cards, named = swatches(page, 4)
    assert cards == named > 5


def test_costs_and_protocol_are_those_of_the_run(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path, images=1, resize_long=333, scales=[1.25, 0.5]))
    assert [(cost.stage, cost.iterations, cost.memory) for cost in costs(run)] == [
        ("segmenter", 3, 1.0)
    ]
    assert costs(run)[0].minutes == pytest.approx(3 * (1 / 3) / 60)
    words, sliding = protocol(run), protocol(replace(run, options={"sliding": True}))
    assert (
        "at their own size, by overlapping windows of 333 px" in sliding
        and "long side" not in sliding
    )
    assert (
        "long side of 333 px" in words
        and "scale 1.25;" in words
        and "scales 1.25 and 0.5," in words
    )
    assert (
        "10 iterations; Gaussian kernel of 3 px, weight 3; bilateral kernel of 64 px and 5 grey "
        "levels" in words
    )
    other = protocol(replace(run, options={"crf_iterations": 4, "crf_bi_xy_std": 30.0}))
    assert "Dense CRF: 4 iterations;" in other and "bilateral kernel of 30 px" in other


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that are gone are not waited for."""
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("waited for what is gone"))


def test_a_picture_that_is_gone_is_named_and_the_rest_is_shown(folder: Path, hasty: None) -> None:
    (folder / "in" / "0.jpg").unlink()
    # of another size than its mask
    Image.new("L", (3, 3)).save(folder / "prediction" / "<img src=x>1.png")
    page = Page(write_report(folder))
    assert "is gone: <img src=x>0, <img src=x>1." in " ".join(page.text.split())
    assert sum(attrs.get("class") == "card" for _, attrs in page.tags) > 15


def test_a_picture_that_is_out_of_reach_costs_no_report(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat = Path.stat

    def refused(path: Path, **rest: bool) -> os.stat_result:
        if path.name == "0.jpg":
            raise PermissionError(errno.EACCES, "denied")
        return stat(path, **rest)

    monkeypatch.setattr(Path, "stat", refused)
    page = Page(write_report(folder))
    assert "is gone: <img src=x>0." in " ".join(page.text.split())


def test_a_line_that_was_cut_off_or_is_of_other_classes_is_left_out(folder: Path) -> None:
    with (folder / "images.jsonl").open("a") as file:
        file.write('{"name": "torn", "resu')
    whole = json.loads((folder / "images.jsonl").read_text().splitlines()[1])
    other = {**whole, "name": "other"}
    outside = {**whole, "name": "outside", "results": {SINGLE: [[0, len(CLASSES) + 1, 1]]}}
    lines = [json.dumps(other), json.dumps(outside), ""]
    (folder / "images-1.jsonl").write_text("\n".join(lines))
    assert len(read_run(folder).images) == 25


@pytest.mark.parametrize("part", ["prediction", "images.jsonl", "metrics.csv", "results.json"])
def test_a_run_that_lacks_a_part_is_still_drawn(folder: Path, part: str, hasty: None) -> None:
    path = folder / part
    shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    assert report_line(folder) == f"report: {folder / 'report.html'}"


@pytest.mark.skipif(sys.platform != "linux", reason="names are text there")
def test_a_run_folder_whose_name_is_no_text_has_a_report(folder: Path) -> None:
    moved = folder.rename(folder.with_name(os.fsdecode(b"l\xfc")))
    assert "\\udcfc" in write_report(moved).read_text(encoding="utf-8")


def test_a_failed_report_is_a_warning_that_names_the_reason(tmp_path: Path, folder: Path) -> None:
    assert report_line(tmp_path / "none").startswith("warning: no report.html (UserError: ")
    (folder / "results.json").write_text("{")
    with pytest.raises(UserError, match="holds a broken file"):
        read_run(folder)


def test_a_comparison_puts_runs_side_by_side(tmp_path: Path) -> None:
    one, other = (
        make_run(tmp_path / "a" / "run", lr=0.1),
        make_run(tmp_path / "b" / "run", images=6, lr=0.2),
    )
    runs = [read_run(one), read_run(other)]
    assert distinct([one, other]) == ["a/run", "b/run"]
    assert len(set(distinct([one, one]))) == 2
    assert differences(runs) == [("lr", [0.1, 0.2])]
    assert scores(runs)[0].values == tuple(100 * run.results[SINGLE].matrix.miou() for run in runs)
    page = Page(write_comparison([one, other], tmp_path / "page.html"))
    assert "a/run" in page.text and sum(attrs.get("class") == "card" for _, attrs in page.tags) == 6


def test_scores_of_other_images_are_shown_but_not_compared(tmp_path: Path) -> None:
    one, other = make_run(tmp_path / "one"), make_run(tmp_path / "other", images=6)
    told = scores([read_run(one), read_run(other)])[0]
    assert told.name == f"{SINGLE} (val, 24 | val, 6)" and math.isnan(told.best)
    assert scores([read_run(other), read_run(one)])[0].name == f"{SINGLE} (val, 6 | val, 24)"
    html = write_comparison([one, other], tmp_path / "page.html").read_text(encoding="utf-8")
    assert '<span class="small soft">+' not in html and '<span class="small soft">-' not in html

    same = replace(told, comparable=True)
    assert same.best == max(same.values)


def test_a_run_that_was_not_tested_yet_is_compared_by_its_curves(
    folder: Path, tmp_path: Path
) -> None:
    untested = make_run(tmp_path / "untested", images=1)
    for name in ("results.json", "images.jsonl"):
        (untested / name).unlink()
    for runs in ([folder, untested], [untested, folder], [untested, untested]):
        page = Page(write_comparison(runs, tmp_path / "page.html"))
        assert "untested" in page.text and "Loss, segmenter" in page.text


def test_runs_of_other_classes_are_not_compared(folder: Path, tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", images=1)
    results = (other / "results.json").read_text()
    assert f'"{CLASSES[0]}"' in results
    (other / "results.json").write_text(results.replace(f'"{CLASSES[0]}"', '"walrus"'))
    with pytest.raises(UserError, match="compare runs on one data set"):
        write_comparison([folder, other], tmp_path / "page.html")


@pytest.mark.skipif(BROWSER is None, reason="no Chromium")
@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1280, "light")])
def test_it_works_in_a_browser(folder: Path, width: int, scheme: str) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    said: list[str] = []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page(
            viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True
        )
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on(
            "request",
            lambda request: said.append(request.url) if request.url.startswith("http") else None,
        )
        page.goto(write_report(folder).as_uri())
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert (
            page.evaluate("getComputedStyle(document.body).backgroundColor")
            == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 27)"}[scheme]
        )
        assert page.locator(".card:visible").count() == 18
        page.select_option("#filter", "2")
        shown = page.locator(".card:visible")
        labels = [shown.nth(i).get_attribute("data-labels").split() for i in range(shown.count())]
        assert (
            labels
            and all("2" in part for part in labels)
            and page.inner_text("#count") == f"{len(labels)} images"
        )
        page.select_option("#filter", "")
        opacity = "getComputedStyle(document.querySelector('.view img')).opacity"
        assert page.evaluate(opacity) == "0.65"
        page.fill("#fade", "20")
        assert page.evaluate(opacity) == "0.2"
        page.locator(".card .tile").nth(1).click()
        assert page.locator("dialog .tile").is_visible()
        page.keyboard.press("Escape")
        assert not page.locator("dialog").is_visible()
        browser.close()
    assert not said
