"""report.html of one run: a page that stands alone, a function of the run folder."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from PIL import Image

from datasets.predictions import PREDICTION
from utils.common.errors import UserError
from utils.common.files import encoded, write_whole
from utils.common.options import options
from utils.config import CONFIG_FILE, Config, completed, from_dict
from utils.metrics import CAMS, CRF, LABEL_TITLES, SINGLE, TEST_TITLES, TITLES, ConfusionMatrix
from utils.recipe import references_of
from utils.references import Reference
from utils.report import gallery, plots
from utils.report.folder import Curves, Result, RunFolder, read_run
from utils.settings.running import CRFSettings

RATES = ("lr", "seconds", "memory")  # what metrics.csv holds of a stage beside its loss terms
EACH = 6  # images of a group of the gallery
PANELS = 12  # at most so many pictures of training
PANEL_WIDTH = 1400  # px of one, at most


@dataclass(frozen=True)
class Cost:
    """What a stage took: iterations, mean seconds each, all in minutes, and peak memory in GB if
    recorded.
    """

    stage: str
    iterations: int
    seconds: float
    minutes: float
    memory: float | None


def write_report(folder: Path) -> Path:
    """Write FOLDER/report.html and return its path. Raises UserError when the folder holds no
    run.
    """
    run = read_run(folder)
    tested = run.titled(TEST_TITLES)
    labels = run.titled(LABEL_TITLES)
    scored = tested or labels
    shown = scored[-1] if scored else None
    cards, gone = gallery.cards(gallery.choose(run.images, EACH), folder / PREDICTION)
    page = {
        "run": run,
        "test": tested,
        "labels": labels,
        "others": others(run),
        "protocol": protocol(run),
        "shown": shown,
        "bars": shown and _bars(run, shown),
        "matrix": shown and plots.confusion(shown.matrix, run.names),
        "mistakes": shown and mistakes(shown.matrix, run.names),
        "curves": _curves(run),
        "costs": costs(run),
        "cards": cards,
        "gone": gone,
        "labels_shown": gallery.labels_of(cards),
        "names": gallery.names_of(run.names),
        "colours": gallery.COLOURS,
        "panels": _panels(run),
        "changed": changed(run.config),
    }

    return write_page("run.html.j2", page, folder / "report.html")


def write_page(template: str, values: Mapping[str, Any], path: Path) -> Path:
    """Fill a template of this folder, whatever comes from a run escaped, and write it whole or not
    at all.
    """
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    page = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    # folders of a machine say nothing elsewhere
    page.filters["base"] = lambda value: Path(str(value)).name
    write_whole(path, encoded(page.get_template(template).render(values)))
    return path


def protocol(run: RunFolder) -> str:
    """Say in words how the test's numbers are made."""
    used = {**asdict(Config()), **run.config, **run.options}
    scales = " and ".join(f"{scale:g}" for scale in used["scales"])
    seen = f"resized to a long side of {used['resize_long']} px"
    if used.get("sliding"):
        seen = f"seen at their own size, by overlapping windows of {used['resize_long']} px"

    words = [
        "mIoU is the mean over the classes that occur in the truth, background included, at "
        "original image size; "
        f"label 255 is ignored. Images are {seen}. Single scale is scale {used['scales'][0]:g}; "
        "multi-scale is the "
        f"mean over scales {scales}, each with its mirror image."
    ]
    if CRF in run.results:
        crf = CRFSettings(**{name: used[name] for name in options(CRFSettings)})
        words.append(f"Dense CRF: {crf.crf_words}.")

    return " ".join([*words, "No image-level tags are used in these results."])


def mistakes(
    matrix: ConfusionMatrix, names: Sequence[str], most: int = 8
) -> list[tuple[str, str, float]]:
    """Return truth, prediction and share of the truth's pixels, in percent, of the pairs of classes
    most often confused.
    """
    counts = matrix.counts.cpu().numpy()
    shares = 100 * counts / counts.sum(1, keepdims=True).clip(1)
    np.fill_diagonal(shares, 0)
    order = np.argsort(shares, axis=None)[::-1][:most]
    pairs = [np.unravel_index(place, shares.shape) for place in order]
    return [(names[t], names[p], float(shares[t, p])) for t, p in pairs if shares[t, p] >= 0.1]


def costs(run: RunFolder) -> list[Cost]:
    """Return time and memory of each stage, from its log."""
    found = []
    for stage, series in run.curves.items():
        if "seconds" in series:
            iterations, seconds = series["seconds"][-1]
            peak = max((value for _, value in series.get("memory", [])), default=None)
            found.append(Cost(stage, iterations, seconds, iterations * seconds / 60, peak))
    return found


def changed(config: Mapping[str, object]) -> dict[str, object]:
    """Return the settings that are not the defaults of `Config`."""
    defaults = asdict(Config())
    return {name: value for name, value in config.items() if value != defaults.get(name)}


def losses(series: Curves) -> Curves:
    """Return the loss terms among the values of a stage, their sum first."""
    terms = {name: points for name, points in series.items() if name not in RATES}
    return {name: terms[name] for name in sorted(terms, key=lambda name: name != "loss")}


def _bars(run: RunFolder, shown: Result) -> Any:
    first = run.results.get(SINGLE)
    other = [None] * len(run.names)
    if first not in (None, shown):
        other = (100 * first.matrix.iou()).tolist()

    present = (shown.matrix.counts.sum(1) > 0).tolist()
    values = zip(run.names, (100 * shown.matrix.iou()).tolist(), other, present)
    ranked = sorted((row[:3] for row in values if row[3]), key=lambda row: -row[1])
    if not ranked:
        return None
    return plots.class_bars(ranked, (shown.title, SINGLE))


def _settings(run: RunFolder) -> Config | None:
    """Return the run's settings; None where they are of an older version, or edited."""
    try:
        return from_dict(completed(run.config), CONFIG_FILE)
    except UserError:
        return None


def others(run: RunFolder) -> dict[str, str]:
    """Say what others had at the end of a run of the same recipe, by the titles of results that are
    of the same images.
    """
    config = _settings(run)
    if config is None:
        return {}

    # CAMs and seeds that a whole training scores on its way are those of no run that ended there
    titles = {
        "seeds": (*CAMS.values(), *LABEL_TITLES),
        "classifier": LABEL_TITLES,
        "all": (*TEST_TITLES, TITLES["pseudo"]),
    }[config.stages]
    results = {result.title: result for result in run.titled(titles)}

    found = {}
    # a number of the end stands before one of the last iteration in a log
    for each in sorted(references_of(config), key=lambda each: each.step is None):
        result = results.get(each.name)
        if result and result.split == each.split and _is_last(each, config):
            value = f"{each.value:g}"
            low, high = each.band
            if low < high:
                value += f" ({low:g} to {high:g})"
            found[each.name] = f"{value}, {each.source.short}"

    return found


def _is_last(reference: Reference, config: Config) -> bool:
    """Return whether a number is one of the end of a run of these settings."""
    at_end = reference.unit == "iterations" and reference.step == config.max_iters
    return reference.step is None or at_end


def bands(run: RunFolder, stage: str) -> plots.Bands:
    """Return what others had of the curves of stage 2 or of "evaluation", as these are drawn:
    losses times their weight, scores of the same images. Nothing where the settings are no
    recipe's.
    """
    config = _settings(run)
    if config is None:
        return {}
    weights = {"seg": 1.0, "affinity": config.w_attn}
    splits = dict.fromkeys(weights, config.train_split)
    if stage == "evaluation":
        splits = {result.title: result.split for result in run.titled(LABEL_TITLES)}
        if not config.eval_images:
            splits[SINGLE] = config.val_split
        weights = dict.fromkeys(splits, 1.0)

    found: plots.Bands = {}
    for each in references_of(config):
        if each.step and each.unit == "iterations" and splits.get(each.name) == each.split:
            low, high = (end * weights[each.name] for end in each.band)
            found.setdefault(each.name, []).append((each.step, low, high))
    return found


def _curves(run: RunFolder) -> list[tuple[str, Any]]:
    """Draw titled plots of training."""
    drawn = []
    for stage, series in run.curves.items():
        if "loss" in series:
            known = None
            if stage == "segmenter":
                known = bands(run, stage)
            plot = plots.curves(f"loss-{stage}", losses(series), "loss", log=True, others=known)
            drawn.append((f"Losses, {stage}", plot))

    rates = {stage: series["lr"] for stage, series in run.curves.items() if "lr" in series}
    if rates:
        drawn.append(("Learning rate", plots.curves("rates", rates, "learning rate")))

    quality = run.curves.get("evaluation", {})
    if any(len(points) > 1 for points in quality.values()):
        drawn.append(
            (
                "Labels and segmentation over training",
                plots.curves(
                    "quality", quality, "mIoU, %", marks=True, others=bands(run, "evaluation")
                ),
            )
        )

    return drawn


def _panels(run: RunFolder) -> list[tuple[str, str]]:
    chosen = []
    for path in run.panels[:PANELS]:
        with Image.open(path) as picture:
            name = path.relative_to(run.path / "panels").with_suffix("").as_posix()
            chosen.append((name, gallery.thumbnail(picture, PANEL_WIDTH)))
    return chosen
