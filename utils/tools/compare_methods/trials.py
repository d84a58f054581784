"""One trial of a comparison, a row with one seed: what it shares with others, and its scores.

Every step has a folder of its own, named after all settings that its result depends on. So a step
that is finished is never done again, steps that agree are done once, and a changed recipe begins
anew beside the old one.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from utils.build import split_items
from utils.common.device import choose_device
from utils.common.errors import UserError
from utils.common.files import read_json, write_whole
from utils.common.options import Role, options
from utils.config import Config, names_of
from utils.inference.predict import Job, matrices, predict_split
from utils.inference.segmenter import Outputs, Segmenter
from utils.metrics import TITLES, ConfusionMatrix
from utils.report.methods import Score
from utils.run_folder.checkpoint import checkpoint_of
from utils.run_folder.recorder import read_results
from utils.settings.data import DataSettings, WeightSettings
from utils.settings.training import Stage1Settings
from utils.tools.benchmark.timing import peak_memory
from utils.tools.compare_methods.ceiling import MaskedCrops, mask_losses
from utils.tools.compare_methods.rows import Row, decisive, root_name
from utils.training.stages import FINAL, train

STEP = "step.json"  # of a folder: what the step cost and gave
STAGES = ("stage 1", "stage 2", "scores")  # of a trial, in the order of its costs
# Weights of stage 1 depend on these groups of settings but for some; sharing it needs no list.
NOT_OF_STAGE_1 = ("crop_size", "mct_path")
STAGE_1 = [
    name
    for group in (DataSettings, WeightSettings, Stage1Settings)
    for name, meaning in options(group).items()
    if meaning.role is not Role.WATCH and name not in NOT_OF_STAGE_1
]
STAGE_1.append("precision")


@dataclass(frozen=True)
class Step:
    """What a step cost, and what it gave.

    cpu, seconds: of all threads and by the clock, over all sessions but those that were killed
    without notice. peak: bytes of memory, of a GPU's where it runs on one. scores: by title.
    """

    cpu: float = 0.0
    seconds: float = 0.0
    peak: int = 0
    finished: bool = False
    scores: dict[str, Score] = field(default_factory=dict)


@dataclass(frozen=True)
class Trial:
    """Steps of a trial by `STAGES`, and its scores by root and title."""

    costs: dict[str, Step]
    scores: dict[str, dict[str, Score]]


@dataclass(frozen=True)
class Bench:
    """What all trials of a comparison share.

    base: settings of the data. folder: of the comparison. roots: folders of data to score on, that
    of the data first. vits: trained ViT by seed; for seeds without one it is trained. labels_only:
    stop before stage 2. labels_split: images whose labels are scored then. crf: score with the
    dense CRF too.
    """

    base: Config
    folder: Path
    roots: tuple[str, ...]
    vits: dict[int, str]
    labels_only: bool
    labels_split: str
    crf: bool

    def run(self, row: Row, seed: int) -> Trial:
        """Run a row with a seed as far as it goes, from where it stopped.

        Raises UserError where it cannot run, and KeyboardInterrupt when it is asked to stop.
        """
        config = replace(row.config, seed=seed, visualise=0)
        if row.on_masks and self.labels_only:
            raise UserError("it is trained on true masks and makes no labels")
        costs: dict[str, Step] = {}
        if config.branches != "clip":
            costs["stage 1"], vit = self._stage_1(config)
            config = replace(config, mct_path=str(vit))

        if self.labels_only or config.stages != "all":
            steps = {root: self._labels(row, config, root) for root in self.roots}
            scores = {root: step.scores for root, step in steps.items()}
        else:
            trained, final = self._stage_2(row, config)
            costs["stage 2"] = trained
            steps = {root: self._segmentation(final, config, root) for root in self.roots}
            scores = {root: step.scores for root, step in steps.items()}
            scores[self.roots[0]] = trained.scores | scores[self.roots[0]]

        costs["scores"] = total(list(steps.values()))
        return Trial(costs, scores)

    def _stage_1(self, config: Config) -> tuple[Step, Path]:
        """Train the class-token ViT that a row needs, or take the one that is given or trained;
        returns its checkpoint too.
        """
        own = {name: getattr(config, name) for name in STAGE_1}
        given = self.vits.get(config.seed)
        if given and own == {name: getattr(self.base, name) for name in STAGE_1}:
            return Step(finished=True), Path(given)

        folder = self._folder("stage_1", config.seed, own)
        alone = replace(
            self.base,
            **own,
            seed=config.seed,
            branches="vit",
            stages="classifier",
            eval_seeds=False,
            visualise=0,
            work_dir=str(folder),
        )

        def work() -> dict[str, Score]:
            train(alone, resume=True)
            return {}

        return done(folder, config, work), checkpoint_of(folder, "classifier")

    def _stage_2(self, row: Row, config: Config) -> tuple[Step, Path]:
        """Train the segmentation, and score the labels that it learned from at its end; returns its
        checkpoint too.
        """
        settings = {**decisive(config), "vit": self._within(config.mct_path), "masks": row.on_masks}
        folder = self._folder(row.name, config.seed, settings)
        config = replace(config, eval_seeds=not row.on_masks, work_dir=str(folder))

        def work() -> dict[str, Score]:
            if row.on_masks:
                train(config, True, MaskedCrops, mask_losses)
            else:
                train(config, True)
            found = _results(folder)
            return {title: found[title] for title in TITLES.values() if title in found}

        return done(folder, config, work), folder / "checkpoints" / FINAL

    def _labels(self, row: Row, config: Config, root: str) -> Step:
        """Make seeds and pseudo labels of images without training, and score them."""
        settings = {
            **decisive(config),
            **_of_role(Role.TEST, config),
            "vit": self._within(config.mct_path),
            "root": root,
            "split": self.labels_split,
        }
        folder = self._folder(f"{row.name}-labels-{root_name(root)}", config.seed, settings)
        alone = replace(
            config,
            stages="seeds",
            data_root=root,
            train_split=self.labels_split,
            tags=config.tags if root == config.data_root else "",
            eval_seeds=False,
            work_dir=str(folder),
        )

        def work() -> dict[str, Score]:
            train(alone, resume=True)
            return _results(folder)

        return done(folder, config, work)

    def _segmentation(self, final: Path, config: Config, root: str) -> Step:
        """Predict validation images, and score them."""
        tested = _of_role(Role.TEST, config)
        settings = {**tested, "root": root, "split": config.val_split, "crf": self.crf}
        folder = final.parent.parent / f"{root_name(root)}-{_digest(settings)}"

        def work() -> dict[str, Score]:
            segmenter = Segmenter.from_checkpoint(
                final, Outputs(use_crf=self.crf), **tested, **_of_role(Role.MACHINE, config)
            )
            images = split_items(replace(config, data_root=root), config.val_split)
            entries = predict_split(segmenter, Job(images, folder))
            scores = {}
            for title, matrix in matrices(entries, len(segmenter.classes)).items():
                scored = sum(title in entry["results"] for entry in entries)
                scores[title] = Score(100 * matrix.miou(), config.val_split, scored)
            return scores

        return done(folder, config, work)

    def _folder(self, name: str, seed: int, settings: dict[str, Any]) -> Path:
        """Return the folder of a step with these settings: the one that there is, by whatever name
        of a row it was begun, else a new one.
        """
        end = f"-{seed}-{_digest(settings)}"
        known = sorted(self.folder.glob(f"*{end}"))
        return known[0] if known else self.folder / f"{name}{end}"

    def _within(self, path: str) -> str:
        """Return a path within the comparison's folder as it is named there, another as it is."""
        inside = path and Path(path).is_relative_to(self.folder)
        return str(Path(path).relative_to(self.folder)) if inside else path


def done(folder: Path, config: Config, work: Callable[[], dict[str, Score]]) -> Step:
    """Do a step, or read what it gave where it is done. What an interrupted one cost is kept."""
    file = folder / STEP
    before = _read(file) if file.is_file() else Step()
    if before.finished:
        return before

    scores: dict[str, Score] = {}
    peak = 0
    finished = False
    cpu = cpu_seconds()
    clock = time.perf_counter()
    try:
        peak = peak_memory(lambda: scores.update(work()), choose_device(config.device))
        finished = True
    finally:
        now = Step(
            cpu=before.cpu + cpu_seconds() - cpu,
            seconds=before.seconds + time.perf_counter() - clock,
            peak=max(peak, before.peak),
            finished=finished,
            scores=scores,
        )
        if folder.is_dir():  # else it was refused before it began
            write_whole(file, json.dumps(asdict(now), indent=1).encode())
    return now


def cpu_seconds() -> float:
    """Return the processor time so far, of all threads and of child processes that have ended."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def total(steps: Sequence[Step]) -> Step:
    """Return the cost of several steps, one after the other."""
    return Step(
        cpu=sum(each.cpu for each in steps),
        seconds=sum(each.seconds for each in steps),
        peak=max(each.peak for each in steps),
    )


def _read(file: Path) -> Step:
    values = read_json(file)
    scores = {title: Score(**score) for title, score in values.pop("scores").items()}
    return Step(**values, scores=scores)


def _results(folder: Path) -> dict[str, Score]:
    """Return the scores in a run folder."""
    return {
        title: Score(
            100 * ConfusionMatrix.from_counts(result["counts"]).miou(),
            result["split"],
            result["images"],
        )
        for title, result in read_results(folder).items()
    }


def _of_role(role: Role, config: Config) -> dict[str, Any]:
    return {name: getattr(config, name) for name in names_of(role)}


def _digest(settings: dict[str, Any]) -> str:
    text = json.dumps(settings, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
