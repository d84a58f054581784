"""Seeds and pseudo labels of a list of images, written into a folder for others: by any number of
processes, going on where it stopped.
"""

from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from datasets.data import Split
from datasets.lists import Item
from datasets.pictures import mask_png
from datasets.predictions import PSEUDO_LABELS, Entries, Entry, is_of_classes
from datasets.specs import DatasetSpec, palette
from model.cvf import CVF
from model.method import Phase
from utils.common import distributed
from utils.common.claim import claimed
from utils.common.device import uses_bf16
from utils.common.files import write_whole
from utils.common.identity import identity_of
from utils.common.options import Role
from utils.common.progress import Pace, progress
from utils.config import Config, names_of, values_of
from utils.inference.evaluation import masked_loader
from utils.inference.seed_files import LAYOUTS, SEEDS, packed
from utils.inference.seeds import ImageSeeds, image_seeds
from utils.inference.sweep import THRESHOLDS, Sweep
from utils.metrics import TITLES, ConfusionMatrix
from utils.run_folder.bad_images import note_bad_image, readable
from utils.run_folder.journal import Journal, begin, labelled_entry, stamp, unfinished

ABOUT = "export.json"
SWEEP = "sweep"  # in an entry of the journal: counts of its seeds, and of which mask
LEVELS = "levels"  # in these: the counts by threshold
MAKING = (Role.DATA, Role.METHOD, Role.TEST)  # of the settings that seeds may depend on


@dataclass(frozen=True)
class Scores:
    """What the masks say of seeds, at every background threshold, and of pseudo labels."""

    seeds: Sweep
    labels: ConfusionMatrix


@dataclass(frozen=True)
class Export:
    """What is exported, and where to.

    images: of a split named `split`, with their tags. kind, layout: of the seeds. phase: what has
    begun in the training that they are of. scored: whether both are counted against the masks.
    """

    images: Split
    split: str
    kind: str
    layout: str
    folder: Path
    phase: Phase
    scored: bool = False

    def files(self, name: str) -> list[str]:
        """Return the files of an image in the folder: its seeds and its pseudo label."""
        return [f"{SEEDS}/{name}{LAYOUTS[self.layout]}", f"{PSEUDO_LABELS}/{name}.png"]

    def tags(self, place: int) -> list[str]:
        """Return the labels, as text, of the classes of image `place`."""
        return tag_labels(self.images.tags[place])

    def choices(self, config: Config, device: torch.device) -> dict[str, Any]:
        """Return all that changes the files but network, images and tags, as plain values."""
        own = {"kind": self.kind, "layout": self.layout, **asdict(self.phase)}
        return {**choices_of(config, device), **own}


def choices_of(config: Config, device: torch.device) -> dict[str, Any]:
    """Return the settings that seeds and pseudo labels may depend on, as plain values."""
    settings = values_of(config, names_of(*MAKING))
    bf16 = uses_bf16(device, config.precision)
    return {**settings, "device": device.type, "bf16": bf16}


def tag_labels(tags: np.ndarray) -> list[str]:
    """Return the labels, as text, of the classes (K,) that an image has, for its journal."""
    return [str(key + 1) for key in np.flatnonzero(tags).tolist()]


def export(
    model: CVF, spec: DatasetSpec, job: Export, config: Config, ranks: tuple[int, int] = (0, 1)
) -> Scores:
    """Write seeds and pseudo labels of every image that is not finished yet.

    Of several processes, process r of w takes every w-th image. Returns the counts of all images in
    the main process, where the job is scored; else counts of 0.
    """
    scores = Scores(
        Sweep(len(spec.label_names), THRESHOLDS), ConfusionMatrix(len(spec.label_names))
    )
    with claimed(job.folder):
        if distributed.is_main():
            begin_anew_or_go_on(model, spec, job, config, scores.seeds)
        distributed.barrier()
        left = images_left(job)
        distributed.barrier()  # nobody appends before everybody has read

        with Journal(job.folder, ranks[0]) as journal:
            export_each(model, job, left, config, scores, journal, ranks)
        distributed.barrier()

        if distributed.is_main() and job.scored:
            for entry in Entries(job.folder):
                scores.seeds.add(entry[SWEEP][LEVELS])
                scores.labels.add_pairs(entry["results"][TITLES["pseudo"]])
    return scores


def begin_anew_or_go_on(
    model: CVF, spec: DatasetSpec, job: Export, config: Config, sweep: Sweep
) -> None:
    """Begin the journal of the folder, or keep its entries of files that would be made as they are,
    and where the job is scored, of counts that fit the sweep. Says which.
    """
    # it tells of a whole export: until this one is whole, there is none
    (job.folder / ABOUT).unlink(missing_ok=True)

    items = job.images.items.without_masks()
    places = {name: place for place, name in enumerate(items.names)}

    def holds(entry: Entry) -> bool:
        """Return whether the files of an image were made with the tags that it has here, and are
        counted, if they have to be, against the mask that it has here.
        """
        place = places[entry["name"]]
        return entry.get("tags") == job.tags(place) and (
            not job.scored or is_counted(entry, job.images.items[place], sweep)
        )

    network = identity_of({**model.state_dict(), "text": model.text})
    chosen = job.choices(config, model.text.device)
    if said := begin(job.folder, network, chosen, items, holds, spec.label_names):
        print(said)


def images_left(job: Export) -> Split:
    """Return the images that have no entry in the journal yet."""
    return job.images.at(unfinished(job.folder, job.images.items))


def is_counted(entry: Entry, item: Item, sweep: Sweep) -> bool:
    """Return whether an entry has whole counts against the mask of the item, as it is now."""
    counts = entry.get(SWEEP)
    if not isinstance(counts, dict) or TITLES["pseudo"] not in entry["results"]:
        return False
    height, width = entry["size"]
    same_mask = counts.get("mask") == str(item.mask) and counts.get("changed") == stamp(item)
    whole = is_of_classes(entry, sweep.size) and sweep.is_of_image(
        counts.get(LEVELS), height * width
    )
    return same_mask and whole


def export_each(
    model: CVF,
    job: Export,
    images: Split,
    config: Config,
    scores: Scores,
    journal: Journal,
    ranks: tuple[int, int],
) -> None:
    """Write the files of this process's share of images, and note each in the journal, with its
    counts where the job is scored.
    """
    items = images.items if job.scored else images.items.without_masks()
    share = replace(job, images=Split(items, images.tags))
    loader = masked_loader(items, config, *ranks)
    bar = progress(loader, config.quiet, desc="export")
    pace = Pace(len(loader), "image")

    for sample in readable(bar, partial(note_bad_image, job.folder, "export")):
        place = sample["index"]
        tags = torch.from_numpy(images.tags[place])
        seeds = image_seeds(model, sample["image"], tags, config, job.phase)
        maps = seeds.scores[job.kind].float().cpu()
        entry = write_image(share, place, seeds, maps)

        if job.scored:
            entry |= counted(items[place], seeds, maps, sample["mask"], scores)
        journal.add(entry)
        if (told := pace.count()) and distributed.is_main():
            tqdm.write(told)


def counted(
    item: Item, seeds: ImageSeeds, maps: Tensor, mask: Tensor, scores: Scores
) -> dict[str, Any]:
    """Return what the journal keeps of an image's seeds, of which `maps` (n, H, W) are scored, held
    against its mask (H, W).
    """
    matrix = ConfusionMatrix(scores.labels.num_classes)
    matrix.update(seeds.pseudo.cpu(), mask)
    levels = scores.seeds.counts_of(seeds.keys.cpu(), maps, mask.long())
    return {
        "results": {TITLES["pseudo"]: matrix.pairs()},
        SWEEP: {"mask": str(item.mask), "changed": stamp(item), LEVELS: levels},
    }


def write_image(job: Export, place: int, seeds: ImageSeeds, maps: Tensor) -> Entry:
    """Write the files of image `place`: its seeds, of which `maps` (n, H, W) are kept, and its
    pseudo label. Returns its entry of the journal.
    """
    item = job.images.items[place]
    files = job.files(item.name)
    labels = seeds.confident.cpu().numpy().astype(np.uint8)
    contents = (packed(job.layout, seeds.keys.cpu(), maps), mask_png(labels, palette()))
    for file, content in zip(files, contents, strict=True):
        write_whole(job.folder / file, content)

    return labelled_entry(replace(item, mask=None), labels.shape, files, job.tags(place))


def left_before(job: Export) -> list[str]:
    """List the files beside those of an export: an earlier one, of another split or layout, or
    stopped half-way, left them.
    """
    written = {file for name in job.images.items.names for file in job.files(name)}
    files = (file for part in (SEEDS, PSEUDO_LABELS) for file in (job.folder / part).rglob("*"))
    found = {file.relative_to(job.folder).as_posix() for file in files if file.is_file()}
    return sorted(found - written)
