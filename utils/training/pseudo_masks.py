"""Pseudo labels that need no training (`--stages seeds`): made, written as masks, and scored, going
on where it stopped.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datasets.data import Split
from datasets.pictures import mask_png
from datasets.predictions import LABELLED, PSEUDO_LABELS, Entries, Entry, is_of_classes
from datasets.specs import palette
from model.cvf import CVF
from model.pseudo_labels import background_powers
from utils.common import distributed
from utils.common.files import make_folder, write_whole
from utils.common.identity import identity_of
from utils.common.progress import Pace
from utils.inference.evaluation import evaluating
from utils.inference.predict import total_scores
from utils.inference.seed_export import choices_of, tag_labels
from utils.inference.seeds import ImageSeeds, image_seeds
from utils.metrics import CAMS, TITLES, ConfusionMatrix, kinds_of
from utils.recipe import beside_end, references_of
from utils.run_folder.journal import Journal, begin, labelled_entry, unfinished
from utils.run_folder.results import add_result
from utils.training.run import Run


def make_pseudo_masks(model: CVF, images: Split, run: Run) -> Path:
    """Write a pseudo label of each image that has none yet, and score it, its seeds and its CAMs
    where the image has a mask; returns the folder of the labels.

    The masks are opened for scoring alone. Of several processes, each makes its share.
    """
    run.recorder.rewind("evaluation", -1)
    journals = run.folder / LABELLED
    make_folder(journals)
    main = distributed.is_main()
    if main and (said := _begin(model, images, run)):
        run.recorder.say(said)

    distributed.barrier()
    todo = images.at(unfinished(journals, images.items))
    distributed.barrier()  # nobody appends before everybody has read

    with evaluating(model), Journal(journals, run.rank) as journal:
        _label_each(model, todo, run, journal)
    distributed.barrier()

    if main:
        totals = total_scores(Entries(journals), images.tags.classes + 1)
        in_order = {title: totals[title] for title in _titles(model) if title in totals}
        _record(in_order, len(images), run)
        _tell_others(images, run)
    return run.folder / PSEUDO_LABELS


def _tell_others(images: Split, run: Run) -> None:
    """Say which labels in the folder are of images that this run does not have."""
    folder = run.folder / PSEUDO_LABELS
    written = {f"{name}.png" for name in images.items.names}
    found = {file.relative_to(folder).as_posix() for file in folder.rglob("*.png")}
    if others := sorted(found - written):
        run.recorder.say(
            f"note: {len(others)} of {len(found)} label maps in {folder} are of images not "
            f"in --train_split, the first is {others[0]}: an earlier list had them"
        )


def _begin(model: CVF, images: Split, run: Run) -> str:
    """Begin the journal of the labels, or keep what it tells of those that would be made as they
    are; returns what is said of it.
    """
    places = {name: place for place, name in enumerate(images.items.names)}
    titles = set(_titles(model))
    classes = ["background", *run.facts["classes"]]

    def holds(entry: Entry) -> bool:
        """Return whether a label was made with the tags that its image has here, and is scored."""
        same_tags = entry.get("tags") == tag_labels(images.tags[places[entry["name"]]])
        scored = set(entry["results"])
        if entry["mask"] is None:
            return same_tags and not scored
        return same_tags and scored == titles and is_of_classes(entry, len(classes))

    network = identity_of({**model.state_dict(), "text": model.text})
    chosen = choices_of(run.config, run.device)
    return begin(run.folder / LABELLED, network, chosen, images.items, holds, classes)


def _label_each(model: CVF, images: Split, run: Run, journal: Journal) -> None:
    """Make this process's share of labels, and note each with its scores."""
    samples = run.samples(images.items, "seeds", leave=True)
    pace = Pace(len(range(run.rank, len(images), run.world)), "image")

    for sample in samples:
        place = sample["index"]
        item = images.items[place]
        tags = images.tags[place]
        seeds = image_seeds(model, sample["image"], torch.from_numpy(tags), run.config)

        file = f"{item.name}.png"
        labels = seeds.confident.cpu().numpy().astype(np.uint8)
        write_whole(run.folder / PSEUDO_LABELS / file, mask_png(labels, palette()))

        files = [f"../{PSEUDO_LABELS}/{file}"]
        entry = labelled_entry(item, labels.shape, files, tag_labels(tags))
        if "mask" in sample:
            entry["results"] = _scored(
                seeds, sample["mask"].to(run.device), model, images.tags.classes
            )
        journal.add(entry)
        if told := pace.count():
            run.recorder.say(told)


def _scored(
    seeds: ImageSeeds, truth: Tensor, model: CVF, classes: int
) -> dict[str, list[list[int]]]:
    """Count all label maps of one image against its mask (H, W), by their names."""
    results = {}
    for title, found in _label_maps(seeds, model).items():
        matrix = ConfusionMatrix(classes + 1, truth.device)
        matrix.update(found, truth)
        results[title] = matrix.pairs()
    return results


def _titles(model: CVF) -> list[str]:
    """Name what is scored: CAMs before the transition matrix, seeds after it, pseudo labels."""
    kinds = kinds_of(model.method.branches)
    return [
        *(CAMS[kind] for kind in kinds),
        *(TITLES[kind] for kind in kinds),
        TITLES["pseudo"],
    ]


def _label_maps(seeds: ImageSeeds, model: CVF) -> dict[str, Tensor]:
    """Return the label maps (H, W) of one image by their names."""
    powers = background_powers(model.method)
    found = {TITLES["pseudo"]: seeds.pseudo}
    for titles, maps in ((CAMS, seeds.cams), (TITLES, seeds.scores)):
        for kind, scores in maps.items():
            found[titles[kind]] = seeds.labels(scores, powers[kind])
    return found


def _record(scores: dict[str, ConfusionMatrix], images: int, run: Run) -> None:
    """Say and keep the results, if any of so many images has a mask."""
    if not scores:
        return

    run.recorder.scalars(
        "evaluation", 0, {title: 100 * matrix.miou() for title, matrix in scores.items()}
    )

    references = references_of(run.config)
    if scores[TITLES["pseudo"]].images != images:  # as of the others
        references = ()  # the numbers of others are of all images
    for title, matrix in scores.items():
        split = run.config.train_split
        others = beside_end(title, split, references)
        run.recorder.say(
            f"{title} mIoU {100 * matrix.miou():.2f} ({split}, {matrix.images} images){others}"
        )
        add_result(run.folder, title, split, matrix, run.facts["classes"])
