"""Predict a list of pictures into a run folder, going on where an interrupted run stopped, and
count confusion.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch import Tensor
from tqdm import tqdm

from datasets.data import MaskedImages
from datasets.lists import Item, Items
from datasets.predictions import Entries, Entry, is_of_classes
from utils.common import distributed
from utils.common.claim import claimed
from utils.common.device import loading_processes
from utils.common.errors import UserError
from utils.common.files import make_folder
from utils.common.progress import Pace, progress
from utils.inference.outputs import clear, write_labels, write_logits, write_overlay
from utils.inference.predictor import Predictor
from utils.metrics import TEST_TITLES, ConfusionMatrix
from utils.run_folder.journal import Journal, begin, stamp, unfinished
from utils.run_folder.results import forget_results

GUESSED = "guessed"  # in an entry of the journal whose tags were not given: the threshold
WRITERS = 4  # threads that write files, and so the most images that wait in memory for theirs


@dataclass(frozen=True)
class Job:
    """What to predict, and where to. Names of `images` are unique.

    overlays: also draw the labels over each picture. tags: classes that may occur in an image, by
    its name; all may in an image that is not there, or those that are guessed by a threshold.
    """

    images: Items
    folder: Path
    overlays: bool = False
    tags: dict[str, list[str]] = field(default_factory=dict)
    threshold: float | None = None

    def still_tagged(self, entry: Entry) -> bool:
        """Return whether an image of the journal was predicted with the tags that it has here."""
        given = self.tags.get(entry["name"])
        if given is None:
            guessed = entry.get(GUESSED)
            return guessed == self.threshold and ("tags" in entry) == (guessed is not None)
        return entry.get("tags") == given


@contextmanager
def predict_split(
    predictor: Predictor, job: Job, ranks: tuple[int, int] = (0, 1)
) -> Iterator[Entries]:
    """Predict every image that is not finished yet; yields the journal's entries of all of them,
    and keeps the folder to this process until the caller is done with them.

    The folder gets `prediction/` (label PNGs with the VOC palette), `prediction_cmap/` (the same as
    RGB), and if asked for `overlay/` and `logits/` (multi-scale, float16 .npy, (K+1, h, w)); the
    scores of an earlier test are taken out of it. Of several processes, process r of w takes every
    w-th image.

    Raises:
        UserError: an image cannot be read and `on_bad_image` is "stop", or another process uses the
            folder. What was finished until then is kept.
    """
    folder = job.folder
    make_folder(folder)

    def holds(entry: Entry) -> bool:
        """Return whether what the journal tells of an image is what would be predicted here."""
        return job.still_tagged(entry) and is_of_classes(entry, len(predictor.classes))

    with claimed(folder):
        if distributed.is_main():
            forget_results(folder, TEST_TITLES)
            choices = {**predictor.choices(), "overlays": job.overlays}
            said = begin(folder, predictor.sha256, choices, job.images, holds, predictor.classes)
            if said:
                print(said)

        distributed.barrier()
        remaining = job.images.at(unfinished(folder, job.images))
        distributed.barrier()  # nobody appends before everybody has read

        with Journal(folder, ranks[0]) as journal:
            _predict_each(predictor, job, remaining[ranks[0] :: ranks[1]], journal)
        distributed.barrier()
        yield Entries(folder)


def total_scores(entries: Iterable[Entry], num_labels: int) -> dict[str, ConfusionMatrix]:
    """Sum the confusion of all entries by result, in the order of results; empty without masks."""
    totals: dict[str, ConfusionMatrix] = {}
    for entry in entries:
        for title, pairs in entry["results"].items():
            totals.setdefault(title, ConfusionMatrix(num_labels)).add_pairs(pairs)
    return totals


def _predict_each(predictor: Predictor, job: Job, images: Items, journal: Journal) -> None:
    """Predict images and note them in their order. While one is computed, threads write the files
    of those before, whose labels may still be on their way from a GPU; even if computing fails.
    """
    config = predictor.config
    pace = Pace(len(images), "image")
    written: deque[Future] = deque()  # entries, each there when its files are

    with (
        progress(None, config.quiet, total=len(images), desc="predicting") as bar,
        ThreadPoolExecutor(WRITERS) as writers,
    ):

        def note() -> None:
            """Wait for the first entry, and note it."""
            wait([written[0]])  # before it is taken, as an interrupt may end the wait
            journal.add(written.popleft().result())
            bar.update()
            if (told := pace.count()) and distributed.is_main():
                tqdm.write(told)

        try:
            for item, sample in _read_ahead(images, loading_processes(config.workers)):
                finish = _predicted(predictor, job, item, sample)
                written.append(writers.submit(finish))
                while written and (written[0].done() or len(written) > WRITERS):
                    note()
        finally:
            while written:
                note()


def _predicted(predictor: Predictor, job: Job, item: Item, sample: Future) -> Callable[[], Entry]:
    """Set off the prediction of one image; returns what is left to do for its entry. UserError as
    `predict_split`.
    """
    clear(item.name, job.folder)
    entry: Entry = {
        "name": item.name,
        "image": str(item.image),
        "mask": item.mask and str(item.mask),
        "size": [0, 0],
        "results": {},
        "pixels": {},
        "files": [],
        "changed": stamp(item),
    }
    try:
        image, mask = (sample.result().get(key) for key in ("image", "mask"))
    except UserError as error:
        if predictor.config.on_bad_image == "stop":
            raise
        tqdm.write(f"skipped: {error}")
        entry["error"] = str(error)
        return lambda: entry
    tags = job.tags.get(item.name)
    if tags is not None:
        entry["tags"] = tags
    found = predictor.set_off(item, image, tags)

    def finish() -> Entry:
        """Wait for what was found, write its files, and return the entry."""
        result = found()
        if not result.labels:
            return {**entry, **result.facts}

        final = list(result.labels.values())[-1]
        files = _write(item.name, job, image, final, result.logits)
        pixels = {
            str(label): count
            for label, count in enumerate(np.bincount(final.ravel()).tolist())
            if count
        }
        results = {
            title: _pairs(each, mask, len(predictor.classes))
            for title, each in result.labels.items()
            if mask is not None
        }

        return {
            **entry,
            **result.facts,
            "size": list(final.shape),
            "results": results,
            "pixels": pixels,
            "files": files,
        }

    return finish


def _write(
    name: str, job: Job, image: Tensor, labels: np.ndarray, logits: np.ndarray | None
) -> list[str]:
    """Write what belongs to an image (3, H, W) with labels (H, W) and perhaps logits (K+1, h, w);
    the files' paths.
    """
    files = write_labels(labels, name, job.folder)
    if job.overlays:
        files.append(write_overlay(image.permute(1, 2, 0).numpy(), labels, name, job.folder))
    if logits is not None:
        files.append(write_logits(logits, name, job.folder))
    return files


def _pairs(labels: np.ndarray, mask: Tensor, num_labels: int) -> list[list[int]]:
    """Count [truth, prediction, pixels] of label maps (H, W) uint8."""
    matrix = ConfusionMatrix(num_labels)
    matrix.update(labels, mask)
    return matrix.pairs()


def _read_ahead(items: Items, workers: int) -> Iterator[tuple[Item, Future]]:
    """Yield items in order, their samples read meanwhile by `workers` threads.

    Not by processes: those hand pictures over in shared memory, of which containers may have less
    than a picture needs.
    """
    data = MaskedImages(items)
    waiting: deque[tuple[Item, Future]] = deque()

    with ThreadPoolExecutor(max(1, workers)) as pool:
        for index, item in enumerate(items):
            waiting.append((item, pool.submit(data.__getitem__, index)))
            if len(waiting) > workers:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
