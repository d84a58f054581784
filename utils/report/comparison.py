"""One page with several runs side by side."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from datasets.predictions import PREDICTION
from utils.common.errors import UserError
from utils.metrics import LABEL_TITLES, TEST_TITLES
from utils.report import gallery, plots
from utils.report.folder import Result, RunFolder, Scored, read_run
from utils.report.page import costs, protocol, write_page

IMAGES = 8  # those on which the runs differ most


@dataclass(frozen=True)
class Row:
    """A line of a table: percent of each run, nan where a run has none.

    Values of other images in one run than in another stand beside each other, but none is best.
    """

    name: str
    values: tuple[float, ...]
    comparable: bool = True

    @property
    def best(self) -> float:
        """Return the highest of different values that can be compared, else nan."""
        known = {value for value in self.values if not math.isnan(value)}
        if len(known) < 2 or not self.comparable:
            return math.nan
        return max(known)


def write_comparison(folders: Sequence[Path], path: Path) -> Path:
    """Write the page and return its path. Raises UserError when a folder is no run or tested runs
    differ in classes.
    """
    runs = [read_run(folder) for folder in folders]
    scored = [run for run in runs if run.results] or runs[:1]
    for run in scored:
        if run.names != scored[0].names:
            raise UserError(
                f"{run.path} has other classes than {scored[0].path}; compare runs on one data set"
            )

    cards = _cards(runs)
    page = {
        "runs": runs,
        "titles": distinct(folders),
        "scores": scores(runs),
        "classes": _classes(runs),
        "names": gallery.names_of(scored[0].names),
        "protocol": protocol(scored[0]),
        "curves": _curves(runs, distinct(folders)),
        "costs": [costs(run) for run in runs],
        "differences": differences(runs),
        "cards": cards,
        "labels_shown": gallery.labels_of(cards),
        "colours": gallery.COLOURS,
    }
    return write_page("comparison.html.j2", page, path)


def distinct(folders: Sequence[Path]) -> list[str]:
    """Return the shortest ends of the paths, of equal length, that tell them apart; equal paths are
    numbered.
    """
    parts = [folder.resolve().parts for folder in folders]
    for length in range(1, max(map(len, parts)) + 1):
        titles = ["/".join(part[-length:]) for part in parts]
        if len(set(titles)) == len(titles):
            return titles
    return [f"{title} [{number}]" for number, title in enumerate(titles, 1)]


def scores(runs: Sequence[RunFolder]) -> list[Row]:
    """Return the mIoU of every result that some run has."""
    rows = []
    for title in (*TEST_TITLES, *LABEL_TITLES):
        found = [run.results.get(title) for run in runs]
        if any(found):
            values = tuple(_percent(result) for result in found)
            about = _images_of(found)
            rows.append(Row(f"{title} ({' | '.join(about)})", values, len(about) == 1))

    return rows


def _images_of(results: Sequence[Result | None]) -> list[str]:
    """Say of which images results are, in order of their runs, each of the answers once."""
    told = (f"{Path(result.split).name}, {result.images}" for result in results if result)
    return list(dict.fromkeys(told))


def _percent(result: Result | None) -> float:
    if result is None:
        return math.nan
    return 100 * result.matrix.miou()


def differences(runs: Sequence[RunFolder]) -> list[tuple[str, list[object]]]:
    """Return the settings that are not the same in all runs, their folders apart."""
    names = dict.fromkeys(name for run in runs for name in run.config if name != "work_dir")
    table = [(name, [run.config.get(name, "-") for run in runs]) for name in names]
    return [(name, values) for name, values in table if any(value != values[0] for value in values)]


def _classes(runs: Sequence[RunFolder]) -> tuple[str, list[Row]]:
    """Return the last result that all runs have, and its IoU by class, those first on which the
    runs differ most.
    """
    titles = (*LABEL_TITLES, *TEST_TITLES)
    common = [title for title in titles if all(title in run.results for run in runs)]
    if not common:
        return "", []

    results = [run.results[common[-1]] for run in runs]
    comparable = len(_images_of(results)) == 1
    matrices = [result.matrix for result in results]
    present = torch.stack([matrix.counts.sum(1) for matrix in matrices]).sum(0) > 0
    values = zip(*((100 * matrix.iou()).tolist() for matrix in matrices))
    rows = [
        Row(name, row, comparable)
        for name, row, seen in zip(runs[0].names, values, present.tolist())
        if seen
    ]

    return common[-1], sorted(rows, key=lambda row: -_spread(row.values))


def _spread(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return max(known, default=0) - min(known, default=0)


def _curves(runs: Sequence[RunFolder], titles: Sequence[str]) -> list[tuple[str, object]]:
    """Draw one plot per quantity, with a line per run: losses of both stages, validation scores."""
    wanted = [(stage, "loss") for stage in ("classifier", "segmenter")]
    wanted += [("evaluation", title) for title in (*TEST_TITLES, *LABEL_TITLES)]
    drawn: list[tuple[str, object]] = []
    for stage, name in wanted:
        found = {title: run.curves.get(stage, {}).get(name, []) for title, run in zip(titles, runs)}
        if all(len(points) < 2 for points in found.values()):
            continue

        kind = f"{stage}-{name}"
        if name == "loss":
            drawn.append((f"Loss, {stage}", plots.curves(kind, found, "loss", log=True)))
        else:
            plot = plots.curves(kind, found, "mIoU, %", marks=True)
            drawn.append((f"{name} over training", plot))

    return drawn


def _cards(runs: Sequence[RunFolder]) -> list[gallery.Card]:
    """Return images that all runs were tested on, those first whose mIoU differs most, with every
    run's prediction.
    """
    by_name = [
        {scored.name: scored for scored in run.images if not math.isnan(scored.miou)}
        for run in runs
    ]
    common = [name for name in by_name[0] if all(name in images for images in by_name)]
    common.sort(key=lambda name: -_spread([images[name].miou for images in by_name]))

    cards = []
    for name in common[:IMAGES]:
        cards_of = (_card(images[name], run) for images, run in zip(by_name, runs))
        made = [card for card in cards_of if card is not None]
        if len(made) == len(runs):
            cards.append(_joined(made, distinct([run.path for run in runs])))

    return cards


def _card(scored: Scored, run: RunFolder) -> gallery.Card | None:
    made, _ = gallery.cards({"differ": [scored]}, run.path / PREDICTION)
    if not made:
        return None
    return made[0]


def _joined(cards: Sequence[gallery.Card], titles: Sequence[str]) -> gallery.Card:
    """Show image and truth once, then the prediction of each run under its title and mIoU, with the
    classes that any of them predicts.
    """
    tiles = [tile for tile in cards[0].tiles if tile.title in ("image", "truth")]
    for card, title in zip(cards, titles):
        predicted = next(tile for tile in card.tiles if tile.title == "prediction")
        tiles.append(replace(predicted, title=f"{title}: {100 * card.scored.miou:.1f}"))
    shares = {label: share for card in cards for label, share in card.scored.shares.items()}
    scored = replace(cards[0].scored, shares=dict(sorted(shares.items())))
    return replace(cards[0], scored=scored, tiles=tuple(tiles))
