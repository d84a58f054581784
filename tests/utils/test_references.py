"""Numbers of other people's runs: what the file says of each, and what is refused."""

from pathlib import Path

import pytest

from utils.common.errors import UserError
from utils.references import Reference, nearest, of_recipe, read_references

GOOD = """
sources:
  log: {address: "https://example.org/log.txt", opened: 2026-11-25, what: a log}
numbers:
  - recipe: weclip_voc
    name: seg
    split: train
    source: log
    rows:
      - {step: 200, value: 2, line: 7}
      - {step: 400, value: 1.5, others: [1.25, 1.75], tolerance: 0.125}
      - {value: 1}
"""


def read(text: str, folder: Path) -> tuple[Reference, ...]:
    """Numbers of a file that holds this text."""
    path = folder / "references.yaml"
    path.write_text(text)
    read_references.cache_clear()
    return read_references(path)


def test_a_number_says_where_it_stands_and_how_far_others_were(tmp_path: Path) -> None:
    first, second, last = read(GOOD, tmp_path)
    assert first.address == "https://example.org/log.txt#L7"
    assert (first.value, first.band) == (2.0, (2.0, 2.0))
    assert (second.address, second.band) == ("https://example.org/log.txt", (1.25, 1.75))
    assert last.step is None


def test_the_nearest_step_is_found_within_a_split_alone(tmp_path: Path) -> None:
    numbers = read(GOOD, tmp_path)
    steps = {step: nearest("seg", "train", step, numbers).step for step in (0, 300, 301, 9000)}
    assert steps == {0: 200, 300: 200, 301: 400, 9000: 400}
    assert nearest("seg", "val", 200, numbers) is None
    assert nearest("affinity", "train", 200, numbers) is None


@pytest.mark.parametrize(
    ("good", "bad", "said"),
    [
        ("value: 1}", "value: high}", "value is 'high'"),
        ("value: 1}", "valeu: 1}", "lacks the key value"),
        ("line: 7", "lines: 7", "unknown key lines"),
        ("source: log", "source: other", "source other, which is not described"),
        ("opened: 2026-11-25, ", "", "source log lacks the key opened"),
        ("value: 1}", "value: true}", "value is True"),
    ],
)
def test_what_is_not_as_described_is_refused(
    good: str, bad: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=said):
        read(GOOD.replace(good, bad), tmp_path)


def test_every_shipped_number_has_a_public_page_and_rows_of_logs_have_lines() -> None:
    read_references.cache_clear()
    shipped = read_references()
    assert {"clip_es_voc", "weclip_voc", "weclip_coco", "mctformer_plus_voc"} < {
        each.recipe for each in shipped
    }
    for each in shipped:
        assert each.source.address.startswith("https://") or each.recipe.startswith("toy_")
        assert each.line or not each.source.address.endswith((".log", "/log.txt")), each


def test_curves_go_the_way_of_their_steps_and_lines() -> None:
    read_references.cache_clear()
    curves: dict[tuple[str, str], list[Reference]] = {}
    for each in read_references():
        if each.line:
            curves.setdefault((each.recipe, each.name), []).append(each)
    assert len(curves) == 20
    for curve in curves.values():
        assert [each.step for each in curve] == sorted({each.step for each in curve})
        assert [each.line for each in curve] == sorted({each.line for each in curve})
    assert len(of_recipe("weclip_voc", read_references())) > 60
