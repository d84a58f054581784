"""Steps of a comparison: each has a folder, and is never done again once it is finished.

A step is known by the settings that its result depends on, which stand in its folder. So rows that
agree share it, whatever they are called, and a changed recipe begins anew beside the old one. A
setting that did not exist when a step was done had the value that runs had before.
"""

import itertools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from utils.common.device import choose_device
from utils.common.files import read_json, write_json
from utils.config import completed
from utils.report.methods import Score
from utils.tools.benchmark.timing import peak_memory

STEP = "step.json"
Work = Callable[[Path], dict[str, Score]]  # does a step in a folder; returns scores by title


@dataclass(frozen=True)
class Step:
    """What a step depends on, what it cost, and what it gave.

    cpu, seconds: of all threads and by the clock, over all sessions but those that were killed
    without notice. peak: bytes of memory, of a GPU's where it runs on one. scores: by title.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    cpu: float = 0.0
    seconds: float = 0.0
    peak: int = 0
    finished: bool = False
    scores: dict[str, Score] = field(default_factory=dict)


def done(
    parent: Path, name: str, settings: dict[str, Any], device: str, work: Work
) -> tuple[Step, Path]:
    """Do a step, go on with it, or read what it gave; returns it and its folder.

    Args:
        parent: folder of all steps.
        name: of the folder, if it is a new one.
        settings: all that the step depends on.
        device: where it runs, as in `--device`.
        work: called with the folder, unless the step is finished.
    """
    folder = _found(parent, name, settings)
    file = folder / STEP
    before = _read(file) if file.is_file() else Step(settings)
    if before.finished:
        return before, folder

    write_json(file, asdict(before))
    scores: dict[str, Score] = {}
    now = before
    cpu = cpu_seconds()
    clock = time.perf_counter()
    try:
        peak = peak_memory(lambda: scores.update(work(folder)), choose_device(device))
        now = replace(before, peak=max(peak, before.peak), finished=True, scores=scores)
    finally:
        now = replace(
            now,
            cpu=before.cpu + cpu_seconds() - cpu,
            seconds=before.seconds + time.perf_counter() - clock,
        )
        write_json(file, asdict(now))
    return now, folder


def total(steps: Sequence[Step]) -> Step:
    """Return the cost of several steps, one after the other."""
    return Step(
        cpu=sum(step.cpu for step in steps),
        seconds=sum(step.seconds for step in steps),
        peak=max(step.peak for step in steps),
    )


def cpu_seconds() -> float:
    """Return the processor time so far, of all threads and of child processes that have ended."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def _found(parent: Path, name: str, settings: Mapping[str, Any]) -> Path:
    """Return the folder of the step with these settings, else a free one."""
    for file in sorted(parent.glob(f"*/{STEP}")):
        theirs = completed(_read(file).settings)
        if all(theirs.get(key) == value for key, value in settings.items()):
            return file.parent

    names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    return next(parent / each for each in names if not (parent / each / STEP).is_file())


def _read(file: Path) -> Step:
    values = read_json(file)
    scores = {title: Score(**score) for title, score in values.pop("scores").items()}
    return Step(**values, scores=scores)
