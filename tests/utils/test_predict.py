"""Prediction of a list: files are written beside it, in bounded memory, and none is lost."""

import _thread
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from datasets.lists import Item, Items
from datasets.predictions import read_journal
from utils.common import claim
from utils.common.errors import UserError
from utils.config import Config
from utils.inference import predict
from utils.inference.predict import WRITERS, Job, predict_split
from utils.inference.predictor import Found
from utils.metrics import TEST_TITLES, TITLES, ConfusionMatrix
from utils.run_folder.results import add_result, read_results

COUNT = 3 * WRITERS
PATIENCE = 20  # seconds until something must have come


class Fake:
    """Gives every pixel label 1. `begin` is called with an image's name when it is begun, `end`
    when it is waited for.
    """

    config = Config(quiet=True)
    sha256 = "none"
    classes = ("background", "cat")

    def __init__(
        self,
        begin: Callable[[str], Any] = lambda _: None,
        end: Callable[[str], Any] = lambda _: None,
    ) -> None:
        self.begin = begin
        self.end = end

    def choices(self) -> dict[str, Any]:
        return {}

    def set_off(self, item: Item, image: Tensor, tags: list[str] | None) -> Callable[[], Found]:
        self.begin(item.name)

        def found() -> Found:
            self.end(item.name)
            return Found({"labels": np.ones(tuple(image.shape[1:]), np.uint8)})

        return found


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """Predict COUNT pictures that are called "00", "01", ..., each its own mask."""
    rows = []
    for name in map("{:02}".format, range(COUNT)):
        file = tmp_path / f"{name}.png"
        Image.new("L", (8, 6), 1).save(file)
        rows.append((name, str(file), str(file)))
    return Job(Items(rows), tmp_path / "out")


def noted(job: Job) -> list[str]:
    """Names in the journal, in its order."""
    return [entry["name"] for entry in read_journal(job.folder)[1]]


def label_file(job: Job, name: str) -> Path:
    return job.folder / "prediction_cmap" / f"{name}.png"  # the last that is written of an image


def waited_for(come: Callable[[], bool]) -> bool:
    """Wait until something has come; False where it did not."""
    end = time.monotonic() + PATIENCE
    while not come() and time.monotonic() < end:
        time.sleep(0.001)
    return come()


def predicted(predictor: Fake, job: Job) -> None:
    """Predict to the end; nobody looks at the entries."""
    with predict_split(predictor, job):
        pass


def test_files_are_written_while_the_next_image_is_computed(job: Job) -> None:
    def compute(name: str) -> None:
        if name != "00":
            before = label_file(job, f"{int(name) - 1:02}")
            assert waited_for(before.is_file)

    predicted(Fake(begin=compute), job)
    assert noted(job) == list(job.images.names)


def test_few_images_wait_for_their_files_and_are_noted_in_their_order(job: Job) -> None:
    begun: list[str] = []
    ended: list[str] = []
    waiting: list[int] = []

    def begin(name: str) -> None:
        waiting.append(len(begun) - len(ended))
        begun.append(name)

    def end(name: str) -> None:
        if name == "00":  # its labels come last of all that can be begun before
            assert waited_for(lambda: len(begun) == WRITERS + 1)
            assert not waited_for_longer(lambda: len(begun) > WRITERS + 1)
        ended.append(name)

    predicted(Fake(begin, end), job)
    assert ended[0] != "00" and noted(job) == list(job.images.names)
    assert max(waiting) <= WRITERS


def waited_for_longer(come: Callable[[], bool]) -> bool:
    """Give something the time to come that must not."""
    time.sleep(0.2)
    return come()


def test_an_interrupt_keeps_all_that_was_computed(job: Job) -> None:
    interrupted = threading.Event()

    def begin(name: str) -> None:
        if name == "03":
            interrupted.set()
            raise KeyboardInterrupt

    fake = Fake(begin, end=lambda _: interrupted.wait(PATIENCE))
    with pytest.raises(KeyboardInterrupt):
        predicted(fake, job)
    assert noted(job) == ["00", "01", "02"]
    assert all(label_file(job, name).is_file() for name in noted(job))

    again: list[str] = []
    predicted(Fake(begin=again.append), job)
    assert again == list(job.images.names[3:])
    assert sorted(noted(job)) == list(job.images.names)


def test_an_interrupt_while_files_are_waited_for_loses_none(job: Job) -> None:
    begun: list[str] = []

    def end(name: str) -> None:
        if name == "00":
            assert waited_for(lambda: len(begun) == WRITERS + 1)
            time.sleep(0.1)  # until the main thread waits for this image
            _thread.interrupt_main()
            time.sleep(0.1)

    with pytest.raises(KeyboardInterrupt):
        predicted(Fake(begin=begun.append, end=end), job)
    assert noted(job) == begun


def test_a_fault_while_files_are_written_ends_the_run_and_loses_no_other_image(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []
    write = predict.write_labels

    def full(labels: np.ndarray, name: str, folder: Path) -> list[str]:
        if name == "02":
            raise OSError(28, "No space left on device")
        return write(labels, name, folder)

    monkeypatch.setattr(predict, "write_labels", full)
    with pytest.raises(OSError, match="No space left on device"):
        predicted(Fake(begin=begun.append), job)
    assert len(begun) <= 3 + WRITERS
    assert noted(job) == [name for name in begun if name != "02"]

    monkeypatch.undo()
    predicted(Fake(), job)
    assert sorted(noted(job)) == list(job.images.names)


def test_a_test_has_no_score_of_an_earlier_one(job: Job) -> None:
    job.folder.mkdir(parents=True, exist_ok=True)
    for title in (*TEST_TITLES, TITLES["pseudo"]):
        add_result(job.folder, title, "val", ConfusionMatrix(2), ["thing"])
    predicted(Fake(), job)
    assert list(read_results(job.folder)) == [TITLES["pseudo"]]


def test_a_folder_is_held_until_its_entries_are_read(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claim, "PATIENCE", 0.0)
    refused = pytest.raises(UserError, match="is in use by another")
    with predict_split(Fake(), job), refused, claim.claimed(job.folder):
        pass
    with claim.claimed(job.folder):
        pass
