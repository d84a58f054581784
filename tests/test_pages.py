"""What pages and docstrings say of the code: the figure, the tables, and where pointers lead."""

import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
import tiny
from golden_parts import PARTS
from golden_toy import TOY
from golden_whole import WHOLE
from helpers import ROOT
from pages import PAGES, anchors, code, headings, section, table
from torch.profiler import record_function

from datasets import folders
from datasets.mask_signs import MOST
from datasets.picture_files import MAX_PIXELS
from datasets.pictures import WHITES
from model.criterion import criterion
from model.method import Method
from utils.config import Config, load_config
from utils.tools.benchmark.networks import STAGES

METHOD = ROOT / "model" / "README.md"
GOLDEN = ROOT / "tests" / "golden" / "README.md"
FOLDERS = ("clip", "configs", "datasets", "model", "tests", "utils")
DATA = ROOT / "datasets" / "README.md"
KINDS = (".md", ".py", ".sh", ".yaml")
ABSENT = {"clip": {"ViT"}, "vit": {"dense read-out", "Grad-CAM", "boxes"}, "fusion": set()}


def figure() -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Stages of the Mermaid diagram by their names in it, and its arrows between two stages."""
    text = section(METHOD, "The figure")
    stages = dict(re.findall(r'^ *(\w+)\["([^"<]+)', text, re.M))
    arrows = re.findall(r"^ *(\w+) -[.-]+>(?:\|[^|]+\|)? (\w+)$", text, re.M)
    assert len(arrows) == text.count("->"), "an arrow of the figure is not understood"
    return stages, [(a, b) for a, b in arrows if a in stages and b in stages]


def stages_run(branches: str, patch: pytest.MonkeyPatch) -> list[str]:
    """Profiler ranges that a training step of a tiny model enters, in their order."""
    entered, enter = [], record_function.__enter__

    def noted(self: record_function) -> record_function:
        entered.append(self.name)
        return enter(self)

    patch.setattr(record_function, "__enter__", noted)
    images, tags = tiny.batch()
    model = tiny.cvf(dino=True, text_match=True, branches=branches, cam="both")
    criterion(model(images, tags, tiny.LATE), tags)
    return entered


@pytest.mark.parametrize("branches", ABSENT)
def test_the_figure_shows_the_stages_that_run(
    branches: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = set(figure()[0].values())
    assert set(stages_run(branches, monkeypatch)) == shown - ABSENT[branches]
    assert set(STAGES) == shown


def test_arrows_of_the_figure_lead_to_later_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    stages, arrows = figure()
    order = stages_run("fusion", monkeypatch)
    for source, target in arrows:
        assert order.index(stages[source]) < order.index(stages[target]), f"{source} -> {target}"


def test_each_stage_has_a_row_that_names_the_file_that_runs_it() -> None:
    rows = {row[0]: code(row[-1]) for row in table(METHOD, "Stages")}
    assert list(rows) == list(figure()[0].values())
    for stage, files in rows.items():
        texts = [(ROOT / file).read_text(encoding="utf-8") for file in files]
        assert any(f'@record_function("{stage}")' in text for text in texts), stage


def test_each_setting_of_the_method_acts_where_the_page_says() -> None:
    acts_in = {
        name: code(file) for names, _, file in table(METHOD, "Settings") for name in code(names)
    }
    method, every = ({f.name for f in fields(kind)} for kind in (Method, Config))
    assert method <= set(acts_in) <= method | every
    for name, files in acts_in.items():
        for file in files:
            text = (ROOT / file).read_text(encoding="utf-8")
            assert re.search(rf"\b{name}\b", text), f"{name} in {file}"


@pytest.mark.parametrize("page", [METHOD, DATA])
def test_a_page_says_what_each_file_of_its_folder_is_for(page: Path) -> None:
    rows = table(page, "Where to look in this folder")
    named = [name for _, files in rows for name in code(files)]
    modules = [file.stem for file in page.parent.glob("*.py") if file.stem != "__init__"]
    packages = [f"{file.parent.name}/" for file in page.parent.glob("*/__init__.py")]
    assert sorted(named) == sorted([*modules, *packages])


@pytest.mark.parametrize("dataset", ["voc", "coco"])
def test_departures_with_a_switch_are_what_the_published_configurations_set(dataset: str) -> None:
    ours = load_config(ROOT / "configs" / f"{dataset}.yaml")
    published = load_config(f"published_step_{dataset}")
    changed = {
        f.name: (getattr(published, f.name), getattr(ours, f.name))
        for f in fields(Config)
        if getattr(published, f.name) != getattr(ours, f.name) and f.name != "work_dir"
    }
    rows = table(METHOD, "Departures with a switch")
    said = {code(name)[0]: code(theirs)[0] for name, theirs, *_ in rows}
    assert said == {name: str(value).lower() for name, (value, _) in changed.items()}


def test_the_golden_page_describes_every_file_and_every_case() -> None:
    named = {word for heading in headings(GOLDEN) for word in code(heading)}
    assert named == set(PARTS) | set(WHOLE) | set(TOY)
    files = {code(row[0])[0] for row in table(GOLDEN, "Files")}
    assert files == {path.name for path in GOLDEN.parent.glob("*.npz")}


def pointers() -> Iterator[tuple[Path, str, str]]:
    """File, page and heading ("" for the page as a whole) of every pointer to a page."""
    files = [*ROOT.glob("*.*")]
    for folder in FOLDERS:
        files += (ROOT / folder).rglob("*.*")
    for file in sorted(file for file in files if file.suffix in KINDS):
        text = re.sub(r"https?://\S+", "", file.read_text(encoding="utf-8"))
        text = re.sub(r"\s*\n\s*(# )?", " ", text)
        for page, heading in re.findall(r'([\w./]*\w\.md)(?:, "([^"]+)")?', text):
            yield file, page, heading


def test_pointers_lead_to_pages_and_headings_that_exist() -> None:
    found = list(pointers())
    assert sum(bool(heading) for *_, heading in found) > 20
    for file, page, heading in found:
        path = next((at / page for at in (ROOT, file.parent) if (at / page).is_file()), None)
        assert path, f"{file.relative_to(ROOT)} points to {page}"
        assert not heading or heading in headings(path), f"{file.relative_to(ROOT)}: {heading!r}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_and_sections_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for path in re.findall(
        rf"(?<![\w/.])(?:{'|'.join(FOLDERS)})/[\w/]+\.(?:npz|py|sh|yaml)\b", text
    ):
        assert (ROOT / path).exists(), path
    assert anchors(page).issuperset(re.findall(r"\]\(#([\w-]+)\)", text))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_a_page_lead_to_files_and_sections_that_exist(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s#]+)(?:#([\w-]+))?\)", page.read_text(encoding="utf-8"))
    for name, anchor in links:
        if "://" not in name:
            path = page.parent / name
            assert path.exists(), f"{page.relative_to(ROOT)} links to {name}"
            assert not anchor or anchor in anchors(path), f"{name}#{anchor}"


def test_the_page_of_data_names_every_suffix_and_every_white() -> None:
    rows = dict(table(DATA, "Which files are pictures"))
    assert tuple(code(rows["always"])) == folders._ALWAYS
    sometimes = [suffix for group in folders._SOMETIMES for suffix in group]
    named = code(rows["where the installed Pillow can"])
    named += code(rows["with the plugin `pip install pillow-heif`"])
    assert named == sometimes
    text = section(DATA, "Which files are pictures")
    assert ", ".join(f"{white:.0f}" for white in WHITES[1:6]) in text
    assert f"{MAX_PIXELS // 10**6} million pixels" in text
    assert f"Up to {MOST} masks" in section(DATA, "Masks")
    for mark in folders.MASK_MARKS:
        assert f"`{mark}`" in section(DATA, "How folders are walked") or mark in ("_mask", "-mask")
