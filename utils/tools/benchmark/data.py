"""What lists of images cost before and while a run goes: start-up, memory and the journal, for
lists of COCO's size and of millions of images, in a process of its own.
"""

import math
import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from datasets.data import IterationSampler, Split
from datasets.predictions import read_journal
from utils.common.device import peak_gigabytes
from utils.config import Config
from utils.inference.outputs import write_areas
from utils.inference.predict import total_scores
from utils.run_folder.journal import begin, unfinished
from utils.splits import dataset_spec, split_items, training_data
from utils.tools.benchmark.rows import Row, Setting
from utils.tools.benchmark.simulated import write_coco, write_entries, write_many
from utils.tools.benchmark.timing import Timing
from utils.training.plan import read_data

BATCH = 8
ITERATIONS = 400  # of which the second half is in another epoch than the first
WORKERS = 2
CROP = 32  # px; the work of decoding is measured by utils.tools.throughput
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Phase:
    """What one part of a run took: seconds by the clock and of the CPU; GB in the process at its
    end, `resident`, and at most so far, `peak`; and what else there is to say.
    """

    name: str
    seconds: float
    cpu: float
    resident: float
    peak: float
    note: str = ""


def resident_gigabytes(pid: int | str = "self") -> float:
    """Return the memory of a process that is in use now, in units of 10^9 bytes; nan where the
    system does not tell it.
    """
    status = Path(f"/proc/{pid}/status")
    if not status.is_file():
        return math.nan
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024 / 1e9


def measure_data(settings: list[Setting]) -> Iterator[Row]:
    """Measure start-up, training's lists and a prediction's journal, of COCO 2014 and of many
    names.
    """
    count = settings[0].names
    with tempfile.TemporaryDirectory() as folder:
        write_coco(Path(folder) / "coco")
        write_many(Path(folder) / "custom", count)

        for dataset, title in (("coco", "COCO 2014"), ("custom", f"{count:,} images")):
            config = Config(
                dataset=dataset,
                data_root=str(Path(folder) / dataset),
                train_split="train",
                work_dir=str(Path(folder) / f"run of {dataset}"),
                workers=WORKERS,
            )
            yield from (_row(title, phase) for phase in _in_new_process(config))


def _in_new_process(config: Config) -> list[Phase]:
    """Measure in a process that has nothing in memory yet."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(phases, config).result()


def _row(title: str, phase: Phase) -> Row:
    note = f"{phase.resident:.2f} GB at the end{phase.note}"
    timing = Timing(phase.seconds, phase.cpu, 0.0)
    return Row(f"{title}: {phase.name}", "A", timing, note, round(1e9 * phase.peak))


def phases(config: Config) -> list[Phase]:
    """Do what a training does with its lists before and during its steps, and what a prediction of
    the same images does with its journal.
    """
    watch = Watch()
    watch.phase("imports")
    training = started(config)
    watch.phase("start-up")
    watch.phase("training's lists", _flatness(training, config))
    if config.dataset == "coco":
        training = Split(split_items(config, config.val_split), training.tags)
    watch.phase("journal", _journal(training, Path(config.work_dir)))
    return watch.found


class Watch:
    """Notes what the time since the last note was spent on."""

    def __init__(self) -> None:
        self.found: list[Phase] = []
        self._clock = time.perf_counter()
        self._cpu = time.process_time()

    def phase(self, name: str, note: str = "") -> None:
        """End a phase of this name."""
        clock = time.perf_counter()
        cpu = time.process_time()
        resident = resident_gigabytes()
        peak = peak_gigabytes(_CPU)
        self.found.append(Phase(name, clock - self._clock, cpu - self._cpu, resident, peak, note))
        self._clock = clock
        self._cpu = cpu


def started(config: Config) -> Split:
    """Read lists and tags, plan the scores and look at masks, as a training does."""
    spec = dataset_spec(config)
    training = read_data(config, spec).training
    assert training.fingerprint
    return training


def _flatness(training: Split, config: Config) -> str:
    """Load batches across the end of an epoch; say how memory grew on the way, in all processes."""
    data = training_data(training, config, CROP)
    last = len(data) // BATCH
    first = max(0, last - ITERATIONS // 2)
    sampler = IterationSampler(len(data), BATCH, config.seed, first, first + ITERATIONS)
    loader = DataLoader(data, batch_sampler=sampler, num_workers=WORKERS)
    early = [math.nan]
    late = early
    for done, _ in enumerate(loader, 1):
        if done in (ITERATIONS // 4, ITERATIONS):
            early = late
            late = _memory_of_all()

    grown = 1000 * (sum(late) - sum(early))
    return f", {max(late[1:], default=math.nan):.2f} in a loading process, grown by {grown:.0f} MB"


def _memory_of_all() -> list[float]:
    """Return the resident GB of this process and of those that it started."""
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    pids = []
    if children.is_file():
        pids = children.read_text().split()
    return [resident_gigabytes(), *map(resident_gigabytes, pids)]


def _journal(images: Split, folder: Path) -> str:
    """Begin a prediction, find it finished when it is begun again, and make its results."""
    folder.mkdir()
    begin(folder, "checkpoint", {}, images.items)
    write_entries(folder, images.items)
    begin(folder, "checkpoint", {}, images.items)
    assert not unfinished(folder, images.items)
    entries = read_journal(folder)[1]
    (score,) = total_scores(entries, 2).values()
    write_areas(entries, ("background", "thing"), {"checkpoint": "checkpoint"}, folder)
    return f", {score.images:,} lines written and gone through four times"
