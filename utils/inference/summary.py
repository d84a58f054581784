"""What a test says at its end: its scores or class areas, where they are, and what was skipped."""

from collections.abc import Iterable
from typing import Any

from datasets.predictions import Entries, Entry
from datasets.scoring import mask_rule, scored_images
from utils.inference.outputs import write_areas
from utils.inference.predict import GUESSED, Job, total_scores
from utils.inference.protocol import protocol
from utils.inference.segmenter import Segmenter
from utils.metrics import ConfusionMatrix, format_table
from utils.report.line import report_line
from utils.run_folder.results import add_result, read_results


def report(segmenter: Segmenter, job: Job, entries: Entries, split: str) -> None:
    """Say what was predicted and where it is; split: "" for one's own pictures."""
    folder = job.folder
    if split:
        report_scores(segmenter, job, entries, split)
    else:
        report_areas(segmenter, job, entries)

    print(report_line(folder))
    print(f"label PNGs: {folder / 'prediction'}, in colour: {folder / 'prediction_cmap'}")
    report_skipped(entries)


def report_scores(segmenter: Segmenter, job: Job, entries: Entries, split: str) -> None:
    """Keep the results and print one table of the run: seeds and pseudo labels of training, then
    the test results.
    """
    scored = scored_images(split, job.images)
    for title, matrix in total_scores(entries, len(segmenter.classes)).items():
        add_result(job.folder, title, scored.label, matrix, segmenter.spec.classes)

    rows = []
    for title, result in read_results(job.folder).items():
        matrix = ConfusionMatrix.from_counts(result["counts"])
        rows.append((f"{title} ({result['split']}, {result['images']})", matrix))

    if rows:
        print(format_table(rows, segmenter.classes))
        print(
            "mIoU over the classes in the truth, 255 ignored, at original size; brackets: split, "
            "number of images"
        )
        print(
            "seeds and pseudo labels use image-level tags and are scored with training masks; "
            "segmentations use none"
        )
        if rule := mask_rule(segmenter.config.dataset, job.images):
            print(rule)

    print(protocol(segmenter.config, segmenter.options))


def report_areas(segmenter: Segmenter, job: Job, entries: Entries) -> None:
    """Write the class areas of one's own pictures and say where things are."""
    tags = "none"
    if job.tags:
        tags = f"classes restricted to tags in {len(job.tags)} images"

    facts: dict[str, Any] = {
        "checkpoint": segmenter.sha256,
        "protocol": protocol(segmenter.config, segmenter.options),
        "tags": tags,
    }
    areas = write_areas(entries, segmenter.classes, facts, job.folder)
    print(f"class areas: {areas}, pictures with labels over them: {job.folder / 'overlay'}")


def report_skipped(entries: Iterable[Entry]) -> None:
    """Name the images that could not be read, if any; of all entries only their errors are held."""
    total = 0
    errors = []
    for entry in entries:
        total += 1
        if was_skipped(entry):
            errors.append(entry["error"])

    if errors:
        print(f"{len(errors)} of {total} images were skipped, which no result counts:")
    for error in errors:
        print(f"  {error}")


def was_skipped(entry: Entry) -> bool:
    """Return whether an image could not be read; one in which CLIP guessed no class could."""
    return "error" in entry and GUESSED not in entry
