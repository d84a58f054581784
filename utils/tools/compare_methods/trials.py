"""One trial of a comparison, a row with one seed: its steps, which it shares, and its scores."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from datasets.mask_signs import refuse_suspicious
from utils.common.errors import UserError
from utils.common.options import Role, options
from utils.config import Config, names_of, values_of
from utils.inference.predict import Job, predict_split, total_scores
from utils.inference.protocol import Outputs
from utils.inference.segmenter import Segmenter
from utils.metrics import TITLES, ConfusionMatrix
from utils.report.methods import Score
from utils.run_folder.checkpoint import checkpoint_of
from utils.run_folder.results import read_results
from utils.settings.data import DataSettings, WeightSettings
from utils.settings.training import Stage1Settings
from utils.splits import dataset_spec, split_items
from utils.tools.compare_methods.given_labels import (
    MASKS,
    LabelledCrops,
    label_losses,
    with_labels,
)
from utils.tools.compare_methods.rows import Row
from utils.tools.compare_methods.steps import Step, done, total
from utils.training.stages import FINAL, train

# What the weights of stage 1 depend on: three groups of settings but for what is stage 2's alone.
NOT_OF_STAGE_1 = ("crop_size", "mct_path", "dino_path")
STAGE_1 = [
    "seed",
    "precision",
    *(
        name
        for group in (DataSettings, WeightSettings, Stage1Settings)
        for name, meaning in options(group).items()
        if meaning.role is not Role.WATCH and name not in NOT_OF_STAGE_1
    ),
]
# What those of stage 2 depend on: all that a resumed run must keep, and the files that it reads.
STAGE_2 = [
    "precision",
    *(
        name
        for name, meaning in options(Config).items()
        if meaning.role.fixed
        or (meaning.role is Role.PLACE and name not in ("work_dir", "mct_path"))
    ),
]


@dataclass(frozen=True)
class Trial:
    """Steps of a trial by stage, and its scores by root and title."""

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
        learns = not self.labels_only and row.config.stages == "all"
        if row.labels and not learns:
            raise UserError("it is trained on labels that are given and makes none")
        maps = _given_maps(row) if row.labels else ()
        config = replace(row.config, seed=seed, visualise=0)
        costs: dict[str, Step] = {}
        if config.branches != "clip":
            costs["stage 1"], vit = self._stage_1(config)
            config = replace(config, mct_path=str(vit))

        if learns:
            costs["stage 2"], run = self._stage_2(row, config, maps)
            steps = {root: self._segmentation(run, config, root) for root in self.roots}
        else:
            steps = {root: self._labels(row, config, root) for root in self.roots}

        scores = {root: step.scores for root, step in steps.items()}
        if learns:
            scores[self.roots[0]] = costs["stage 2"].scores | scores[self.roots[0]]
        costs["scores"] = total(list(steps.values()))
        return Trial(costs, scores)

    def _stage_1(self, config: Config) -> tuple[Step, Path]:
        """Train the class-token ViT that a row needs, or take the one that is given or trained;
        returns its checkpoint too.
        """
        own = values_of(config, STAGE_1)
        given = self.vits.get(config.seed)
        if given and own == values_of(replace(self.base, seed=config.seed), STAGE_1):
            return Step(), Path(given)

        def work(folder: Path) -> dict[str, Score]:
            """Train the ViT alone."""
            alone = replace(
                self.base,
                **own,
                branches="vit",
                stages="classifier",
                eval_seeds=False,
                visualise=0,
                work_dir=str(folder),
            )
            train(alone, resume=True)
            return {}

        name = f"stage_1-{config.seed}"
        step, folder = done(self.folder, name, {"step": "stage 1", **own}, config.device, work)
        return step, checkpoint_of(folder, "classifier")

    def _stage_2(self, row: Row, config: Config, maps: Sequence[str]) -> tuple[Step, Path]:
        """Train the segmentation, and score the labels that it learned from at its end; returns its
        run folder too. maps: files of label maps that are given, none where it makes its own.
        """
        settings = {
            "step": "stage 2",
            "vit": self._within(config.mct_path),
            "masks": {"": False, MASKS: True}.get(row.labels, row.labels),
            **values_of(config, STAGE_2),
        }

        def work(folder: Path) -> dict[str, Score]:
            """Train the segmentation; returns the scores of its labels."""
            own = replace(config, work_dir=str(folder))
            if maps:
                crops = partial(LabelledCrops, maps)
                train(replace(own, eval_seeds=False), True, crops, label_losses)
            else:
                train(replace(own, eval_seeds=True), True)
            found = _results(folder)
            return {title: found[title] for title in TITLES.values() if title in found}

        return done(self.folder, f"{row.name}-{config.seed}", settings, config.device, work)

    def _labels(self, row: Row, config: Config, root: str) -> Step:
        """Make seeds and pseudo labels of images without training, and score them."""
        settings = {
            "step": "labels",
            "vit": self._within(config.mct_path),
            "root": root,
            "split": self.labels_split,
            **values_of(config, [*STAGE_2, *names_of(Role.TEST)]),
        }

        def work(folder: Path) -> dict[str, Score]:
            """Make labels, and score them."""
            alone = replace(
                config,
                stages="seeds",
                data_root=root,
                train_split=self.labels_split,
                tags=config.tags if root == config.data_root else "",
                eval_seeds=False,
                work_dir=str(folder),
            )
            train(alone, resume=True)
            return _results(folder)

        name = f"{row.name}-{config.seed}-labels-{Path(root).name}"
        step, _ = done(self.folder, name, settings, config.device, work)
        return step

    def _segmentation(self, run: Path, config: Config, root: str) -> Step:
        """Predict validation images with what a run has learned, and score them."""
        tested = values_of(config, names_of(Role.TEST))
        settings = {"root": root, "split": config.val_split, "crf": self.crf, **tested}

        def work(folder: Path) -> dict[str, Score]:
            """Predict the validation images, and score them."""
            segmenter = Segmenter.from_checkpoint(
                run / "checkpoints" / FINAL,
                Outputs(use_crf=self.crf),
                **tested,
                **values_of(config, names_of(Role.MACHINE)),
            )
            images = split_items(replace(config, data_root=root), config.val_split)
            with predict_split(segmenter, Job(images, folder)) as entries:
                matrices = total_scores(entries, len(segmenter.classes))

            scores = {}
            for title, matrix in matrices.items():
                scores[title] = Score(100 * matrix.miou(), config.val_split, matrix.images)

            return scores

        step, _ = done(run, f"test-{Path(root).name}", settings, config.device, work)
        return step

    def _within(self, path: str) -> str:
        """Return a path within the comparison's folder as it is named there, another as it is."""
        inside = path and Path(path).is_relative_to(self.folder)
        return str(Path(path).relative_to(self.folder)) if inside else path


def _given_maps(row: Row) -> Sequence[str]:
    """Return the label map of each training image. Raises UserError where one is missing, or they
    do not look like label maps.
    """
    config = row.config
    spec = dataset_spec(config)
    images = with_labels(split_items(config, config.train_split), row.labels)
    refuse_suspicious(images, len(spec.classes))
    return images.masks


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
