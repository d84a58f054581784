"""The journal of a prediction: read line by line, and continued where it still holds."""

import contextlib
import json
import os
import tracemalloc
from pathlib import Path

import pytest

from datasets.lists import Items
from datasets.predictions import ENTRY, FILE, Entry, is_of_classes, read_journal
from utils.run_folder.journal import Journal, begin, stamp, unfinished

COUNT = 1000


def images(folder: Path, names: str = "abc") -> Items:
    for name in names:
        (folder / f"{name}.jpg").touch()
    return Items((name, str(folder / f"{name}.jpg"), "") for name in names)


def entry_of(found: Items, place: int, **more: object) -> Entry:
    item = found[place]
    entry = {"name": item.name, "image": str(item.image), "mask": None, "size": [1, 1]}
    return {**entry, "changed": stamp(item), "results": {}, "pixels": {}, "files": [], **more}


def test_an_image_counts_once_and_what_is_left_is_told(tmp_path: Path) -> None:
    found = images(tmp_path)
    assert begin(tmp_path, "sum", {}, found) == ""
    for rank in (0, 1):  # as where a process was killed between writing and removing
        with Journal(tmp_path, rank) as journal:
            journal.add(entry_of(found, 1))
    header, entries = read_journal(tmp_path)
    assert header["checkpoint"] == "sum" and [entry["name"] for entry in entries] == ["b"]
    assert unfinished(tmp_path, found) == [0, 2]
    assert begin(tmp_path, "sum", {}, found).startswith("1 of 3 images are finished already")
    assert len((tmp_path / FILE).read_text().splitlines()) == 2


def test_an_image_that_failed_at_first_counts_once_it_has_not(tmp_path: Path) -> None:
    found = images(tmp_path)
    begin(tmp_path, "sum", {}, found)
    with Journal(tmp_path) as journal:
        journal.add(entry_of(found, 0, error="cut short"))
        journal.add(entry_of(found, 0))
    begin(tmp_path, "sum", {}, found)
    assert [entry.get("error") for entry in read_journal(tmp_path)[1]] == [None]


def test_entries_of_other_settings_never_count_wherever_it_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = images(tmp_path)
    begin(tmp_path, "sum", {"scale": 1}, found)
    with Journal(tmp_path, 1) as journal:
        journal.add(entry_of(found, 0))

    def killed(path: Path) -> None:
        if (tmp_path / FILE).read_text().find('"scale":2') > 0:
            raise KeyboardInterrupt
        os.unlink(path)

    monkeypatch.setattr(Path, "unlink", killed)
    with contextlib.suppress(KeyboardInterrupt):
        begin(tmp_path, "sum", {"scale": 2}, found)
    monkeypatch.undo()
    begin(tmp_path, "sum", {"scale": 2}, found)
    assert unfinished(tmp_path, found) == [0, 1, 2]


EDITED: list[dict[str, object]] = [
    {"image": 7},
    {"image": None},
    {"results": {"x": [[0, 1]]}},
    {"results": {"x": 3}},
    {"pixels": {"0": "many"}},
    {"size": []},
    {"size": [-1, -1]},
    {"pixels": {"0": 2}},
    {"results": {"x": [[0, 1, 1], [1, 1, -1]]}},
    {"results": {"x": [[0, 1, 10**30]]}},
    {"files": [None]},
    {"tags": "cat"},
]


@pytest.mark.parametrize("change", EDITED)
def test_an_entry_that_was_edited_into_none_counts_as_not_written(
    change: dict[str, object], tmp_path: Path
) -> None:
    found = images(tmp_path)
    begin(tmp_path, "sum", {}, found)
    with Journal(tmp_path) as journal:
        journal.add(entry_of(found, 0))
        journal.add(entry_of(found, 1, **change))
        journal.add(entry_of(found, 2))
    assert [entry["name"] for entry in read_journal(tmp_path)[1]] == ["a", "c"]
    begin(tmp_path, "sum", {}, found)
    assert unfinished(tmp_path, found) == [1]


@pytest.mark.parametrize(
    ("change", "fits"),
    [
        ({"pixels": {"2": 1}, "results": {"x": [[0, 2, 1]]}}, True),
        ({"pixels": {"255": 1}}, True),
        ({"pixels": {"3": 1}}, False),
        ({"pixels": {"02": 1}}, False),
        ({"pixels": {"cat": 1}}, False),
        ({"results": {"x": [[0, 3, 1]]}}, False),
        ({"results": {"x": [[-1, 0, 1]]}}, False),
        ({"results": {"x": [[255, 0, 1]]}}, False),
    ],
)
def test_labels_outside_the_classes_are_seen(
    change: dict[str, object], fits: bool, tmp_path: Path
) -> None:
    assert is_of_classes(entry_of(images(tmp_path), 0, **change), labels=3) == fits


@pytest.mark.parametrize("key", sorted(ENTRY))
def test_an_entry_without_one_of_its_keys_counts_as_not_written(key: str, tmp_path: Path) -> None:
    found = images(tmp_path)
    begin(tmp_path, "sum", {}, found)
    entry = entry_of(found, 0)
    del entry[key]
    with Journal(tmp_path) as journal:
        journal.add(entry)
    assert not read_journal(tmp_path)[1]


@pytest.mark.parametrize("line", ['{"format": 1}', '{"format": 1, "checkpoint": "sum", "opt', "7"])
def test_a_journal_with_a_spoilt_header_begins_anew(line: str, tmp_path: Path) -> None:
    found = images(tmp_path)
    begin(tmp_path, "sum", {}, found)
    with Journal(tmp_path) as journal:
        journal.add(entry_of(found, 0))
    _, *entries = (tmp_path / FILE).read_text().splitlines(keepends=True)
    (tmp_path / FILE).write_text("".join([f"{line}\n", *entries]))
    assert read_journal(tmp_path)[0] == {}
    assert "made with settings that cannot be read" in begin(tmp_path, "sum", {}, found)
    assert len(unfinished(tmp_path, found)) == 3


def test_a_setting_that_is_gone_or_new_makes_a_journal_one_of_other_settings(
    tmp_path: Path,
) -> None:
    found = images(tmp_path)
    begin(tmp_path, "sum", {"scale": 1, "gone": 2}, found)
    said = begin(tmp_path, "sum", {"scale": 1, "new": 3}, found)
    assert "was made with other settings (new, gone): every image is predicted anew" in said


def test_entries_come_in_the_order_of_names_from_all_files(tmp_path: Path) -> None:
    found = images(tmp_path, "abcd")
    begin(tmp_path, "sum", {}, found)
    for rank, places in ((1, (3, 0)), (0, (2, 1, 0))):
        with Journal(tmp_path, rank) as journal:
            for place in places:
                journal.add(entry_of(found, place, rank=rank, note="ö" * place))
    ordered = [(entry["name"], entry["rank"]) for entry in read_journal(tmp_path)[1].by_name()]
    assert ordered == [("a", 0), ("b", 0), ("c", 0), ("d", 1)]


def test_a_folder_without_a_journal_has_no_entry(tmp_path: Path) -> None:
    header, entries = read_journal(tmp_path)
    assert header == {} and list(entries) == []


def test_a_long_journal_is_never_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jpg").touch()
    found = Items((str(k), str(tmp_path / "a.jpg"), "") for k in range(COUNT))
    begin(tmp_path, "sum", {}, found)
    line = json.dumps(
        entry_of(
            found, 0, size=[19, 10], results={"x": [[k, k, k] for k in range(20)]}, note=" " * 1000
        )
    )
    with (tmp_path / FILE).open("a") as file:
        file.writelines(line.replace('"0"', f'"{k}"', 1) + "\n" for k in range(COUNT))
    size = (tmp_path / FILE).stat().st_size

    tracemalloc.start()
    assert begin(tmp_path, "sum", {}, found).startswith(f"{COUNT} of {COUNT} ")
    assert len(unfinished(tmp_path, found)) == 0
    entries = read_journal(tmp_path)[1]
    assert sum(1 for entry in entries.by_name() if entry["results"]) == COUNT
    assert sum(1 for _ in entries) == COUNT
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 400 * COUNT < size / 2
