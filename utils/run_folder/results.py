"""The scores in a run folder, results.json: those of training, and of a test in the same folder."""

import json
from collections.abc import Sequence
from pathlib import Path

from utils.common.files import write_json
from utils.metrics import ConfusionMatrix, result_of

RESULTS = "results.json"


def add_result(
    folder: Path,
    label: str,
    split: str,
    matrix: ConfusionMatrix,
    classes: Sequence[str],
) -> None:
    """Put one labelled result into results.json, keeping the others in their order of first
    appearance.

    matrix: counts over images of `split`; classes: names of labels 1..K.
    """
    result = result_of(split, matrix, classes)
    write_json(folder / RESULTS, {**read_results(folder), label: result})


def forget_results(folder: Path, labels: Sequence[str]) -> None:
    """Take results out of results.json, if they are there."""
    results = read_results(folder)
    kept = {label: result for label, result in results.items() if label not in labels}
    if kept != results:
        write_json(folder / RESULTS, kept)


def read_results(folder: Path) -> dict[str, dict]:
    """Read the results of a run folder so far, by label."""
    file = folder / RESULTS
    if not file.is_file():
        return {}
    return json.loads(file.read_text(encoding="utf-8"))
