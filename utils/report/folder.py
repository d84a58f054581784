"""A run folder as the report reads it: results, curves, settings, costs, and how good each image
is.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from datasets.classes import spec_of
from datasets.predictions import FILE, is_of_classes, read_journal
from utils.common.errors import UserError
from utils.config import CONFIG_FILE, read_yaml
from utils.inference.outputs import read_facts
from utils.metrics import LABELS, ConfusionMatrix, final_title
from utils.run_folder.results import RESULTS, read_results

MARKS = (CONFIG_FILE, RESULTS, FILE)  # a run folder has one of these
Curves = dict[str, list[tuple[int, float]]]  # name -> (iteration, value), ascending


@dataclass(frozen=True)
class Result:
    """One labelled row of a table: pixel counts of `images` images of a split."""

    title: str
    split: str
    images: int
    matrix: ConfusionMatrix


@dataclass(frozen=True)
class Scored:
    """An image of the test: its files, its mIoU, 0..1 over the classes in its truth, the IoU of
    each by label, and the share of the picture, 0..1, that is predicted as each label.

    Without truth `miou` is nan and `ious` is empty.
    """

    name: str
    image: Path
    mask: Path | None
    miou: float
    ious: dict[int, float]
    shares: Mapping[int, float] = field(default_factory=dict)

    @property
    def labels(self) -> tuple[int, ...]:
        """Return the labels that are told of it: those of its truth, else those predicted."""
        return tuple(self.ious or self.shares)

    @property
    def wrongly_named(self) -> tuple[int, ...]:
        """Return the labels that are predicted and not in the truth; none without truth."""
        if not self.ious:
            return ()
        return tuple(label for label in self.shares if label not in self.ious)


@dataclass(frozen=True)
class RunFolder:
    """What a run left behind; parts that are not there are empty. `curves` by stage; `options`:
    those of the test.
    """

    path: Path
    names: tuple[str, ...]
    results: dict[str, Result]
    curves: dict[str, Curves]
    config: dict[str, object]
    environment: dict[str, str]
    options: dict[str, object]
    images: list[Scored]
    facts: Mapping[str, object] = field(default_factory=dict)  # of pictures that were predicted

    @property
    def title(self) -> str:
        """Return the name of the folder."""
        return self.path.resolve().name

    @property
    def panels(self) -> list[Path]:
        """List the pictures of what training saw."""
        return sorted((self.path / "panels").rglob("*.png"))

    def titled(self, titles: Sequence[str]) -> list[Result]:
        """Return those of the titled results that there are, in that order."""
        return [self.results[title] for title in titles if title in self.results]


def read_run(path: Path) -> RunFolder:
    """Read a run folder. Raises UserError when it is none, or a file in it is broken."""
    if not any((path / name).is_file() for name in MARKS):
        raise UserError(
            f"{path} is no run folder (none of {', '.join(MARKS)} in it); name one that training "
            "wrote"
        )

    try:
        config: dict[str, Any] = {}
        if (path / CONFIG_FILE).is_file():
            config = read_yaml(path / CONFIG_FILE)

        entries = read_results(path)
        results = {
            title: Result(
                title, entry["split"], entry["images"], ConfusionMatrix.from_counts(entry["counts"])
            )
            for title, entry in entries.items()
        }

        names = _label_names(config, entries)
        options, told, images = _read_images(path, len(names) or LABELS)
        curves = _read_curves(path / "metrics.csv")
        environment = _read_environment(path / "environment.txt")
        facts = read_facts(path)
    except (KeyError, TypeError, ValueError) as error:  # ValueError includes broken JSON and text
        raise UserError(
            f"{path} holds a broken file ({error}); test the checkpoint again to write it anew"
        ) from error

    return RunFolder(
        path, names or told, results, curves, config, environment, options, images, facts
    )


def _label_names(config: dict[str, object], entries: dict[str, dict]) -> tuple[str, ...]:
    """Return those of the last result, else of the data set; none where nothing was scored."""
    if not entries:
        return ()

    classes = [entry["classes"] for entry in entries.values() if "classes" in entry]
    if classes:
        names = ("background", *classes[-1])
    else:
        told = (
            str(config.get(key, default))
            for key, default in (("dataset", "voc"), ("data_root", ""), ("classes", ""))
        )
        names = spec_of(*told).label_names

    if any(len(entry["counts"]) != len(names) for entry in entries.values()):
        raise ValueError(
            f"results.json has counts of other classes than these {len(names)}: {', '.join(names)}"
        )
    return names


def _read_curves(path: Path) -> dict[str, Curves]:
    """Read metrics.csv by stage and name; where a resumed run did an iteration twice, the later
    value counts.
    """
    table: dict[str, dict[str, dict[int, float]]] = {}
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                series = table.setdefault(row["stage"], {}).setdefault(row["name"], {})
                series[int(row["iteration"])] = float(row["value"])
    return {
        stage: {name: sorted(series.items()) for name, series in part.items()}
        for stage, part in table.items()
    }


def _read_environment(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    return {name: value for name, _, value in (line.partition(": ") for line in lines)}


def _read_images(
    path: Path, labels: int
) -> tuple[dict[str, object], tuple[str, ...], list[Scored]]:
    """Read options of the test, names of labels where they are told, and the images that were read,
    in order of name; `labels`: K + 1.
    """
    header, entries = read_journal(path)
    options = header.get("options", {})
    images = {
        entry["name"]: _scored(entry)
        for entry in entries
        if "error" not in entry and is_of_classes(entry, labels)
    }

    # no tags of every image
    short = {name: value for name, value in options.items() if not isinstance(value, dict)}
    classes = tuple(map(str, header.get("classes", ())))
    return short, classes, [images[name] for name in sorted(images)]


def _scored(record: dict) -> Scored:
    results = record["results"]
    counts: list[list[int]] = []
    if results:
        counts = results[final_title(results)]

    labels = sorted({label for truth, predicted, _ in counts for label in (truth, predicted)})
    dense = np.zeros((len(labels), len(labels)), np.int64)
    for truth, predicted, count in counts:
        dense[labels.index(truth), labels.index(predicted)] = count

    matrix = ConfusionMatrix(1)
    if labels:
        matrix = ConfusionMatrix.from_counts(dense.tolist())
    ious = {
        label: iou for label, iou, seen in zip(labels, matrix.iou().tolist(), dense.sum(1)) if seen
    }

    mask = None
    if record.get("mask"):
        mask = Path(record["mask"])

    pixels = {int(label): count for label, count in record["pixels"].items()}
    total = max(1, sum(pixels.values()))
    shares = {label: pixels[label] / total for label in sorted(pixels)}
    return Scored(record["name"], Path(record["image"]), mask, matrix.miou(), ious, shares)
