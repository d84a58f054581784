"""Seeds and pseudo labels of a list of images, written into a folder for others: by any number of
processes, going on where it stopped.
"""

from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from datasets.data import Split
from datasets.pictures import mask_png
from datasets.predictions import FILE, PSEUDO_LABELS, Entry
from datasets.specs import DatasetSpec, palette
from model.cvf import CVF
from model.method import Phase
from utils.common import distributed
from utils.common.claim import claimed
from utils.common.device import uses_bf16
from utils.common.files import write_whole
from utils.common.identity import identity_of
from utils.common.options import Role, options
from utils.common.progress import Pace, progress
from utils.config import Config
from utils.inference.evaluation import masked_loader
from utils.inference.seed_files import LAYOUTS, SEEDS, packed
from utils.inference.seeds import image_seeds
from utils.inference.sweep import Sweep
from utils.metrics import ConfusionMatrix
from utils.run_folder.bad_images import note_bad_image, readable
from utils.run_folder.journal import Journal, begin, stamp, unfinished

ABOUT = "export.json"
MAKING = (Role.DATA, Role.METHOD, Role.TEST)  # of the settings that seeds may depend on


@dataclass(frozen=True)
class Export:
    """What is exported, and where to.

    images: of a split named `split`, with their tags. kind, layout: of the seeds. phase: what has
    begun in the training that they are of.
    """

    images: Split
    split: str
    kind: str
    layout: str
    folder: Path
    phase: Phase

    def files(self, name: str) -> list[str]:
        """Return the files of an image in the folder: its seeds and its pseudo label."""
        return [f"{SEEDS}/{name}{LAYOUTS[self.layout]}", f"{PSEUDO_LABELS}/{name}.png"]

    def tags(self, place: int) -> list[str]:
        """Return the labels, as text, of the classes of image `place`."""
        return [str(key + 1) for key in np.flatnonzero(self.images.tags[place]).tolist()]

    def choices(self, config: Config, device: torch.device) -> dict[str, Any]:
        """Return all that changes the files but network, images and tags, as plain values."""
        settings = {
            name: getattr(config, name)
            for name, meaning in options(Config).items()
            if meaning.role in MAKING
        }
        bf16 = uses_bf16(device, config.precision)
        own = {"kind": self.kind, "layout": self.layout, **asdict(self.phase)}
        return {**settings, **own, "device": device.type, "bf16": bf16}


def export(
    model: CVF,
    spec: DatasetSpec,
    job: Export,
    config: Config,
    sweep: Sweep | None,
    ranks: tuple[int, int] = (0, 1),
) -> ConfusionMatrix:
    """Write seeds and pseudo labels of every image that is not finished yet; with a sweep of every
    image, and count both against the masks.

    Of several processes, process r of w takes every w-th image. Returns the counts of the pseudo
    labels, all 0 without a sweep; these and the sweep's are of all processes.
    """
    refined = ConfusionMatrix(len(spec.label_names), model.text.device)
    main = distributed.is_main()
    with claimed(job.folder) if main else nullcontext():
        if main:
            begin_anew_or_go_on(model, spec, job, config, anew=sweep is not None)
        distributed.barrier()
        left = images_left(job)
        distributed.barrier()  # nobody appends before everybody has read

        with Journal(job.folder, ranks[0]) as journal:
            export_each(model, job, left, config, (sweep, refined), journal, ranks)

        refined.sum_over_processes()
        if sweep:
            sweep.counts = distributed.total(sweep.counts.to(model.text.device)).cpu()
        distributed.barrier()
    return refined


def begin_anew_or_go_on(
    model: CVF, spec: DatasetSpec, job: Export, config: Config, anew: bool
) -> None:
    """Begin the journal of the folder, or keep its entries of files that would be made as they are;
    none if `anew`. Says which.
    """
    # it tells of a whole export: until this one is whole, there is none
    (job.folder / ABOUT).unlink(missing_ok=True)
    if anew:
        (job.folder / FILE).unlink(missing_ok=True)

    items = job.images.items.without_masks()
    places = {name: place for place, name in enumerate(items.names)}

    def holds(entry: Entry) -> bool:
        """Return whether the files of an image were made with the tags that it has here."""
        return entry.get("tags") == job.tags(places[entry["name"]])

    network = identity_of({**model.state_dict(), "text": model.text})
    chosen = job.choices(config, model.text.device)
    if said := begin(job.folder, network, chosen, items, holds, spec.label_names):
        print(said)


def images_left(job: Export) -> Split:
    """Return the images that have no entry in the journal yet."""
    left = set(unfinished(job.folder, job.images.items).names)
    return job.images.at(
        [place for place, name in enumerate(job.images.items.names) if name in left]
    )


def export_each(
    model: CVF,
    job: Export,
    images: Split,
    config: Config,
    counts: tuple[Sweep | None, ConfusionMatrix],
    journal: Journal,
    ranks: tuple[int, int],
) -> None:
    """Write the files of this process's share of images, note each in the journal, and count where
    there is a sweep.
    """
    sweep, refined = counts
    items = images.items if sweep else images.items.without_masks()
    share = replace(job, images=Split(items, images.tags))
    loader = masked_loader(items, config, *ranks)
    bar = progress(loader, config.quiet, desc="export")
    pace = Pace(len(loader), "image")

    for sample in readable(bar, partial(note_bad_image, job.folder, "export")):
        place = sample["index"]
        tags = torch.from_numpy(images.tags[place])
        seeds = image_seeds(model, sample["image"], tags, config, job.phase)
        keys = seeds.keys.cpu()
        scores = seeds.scores[job.kind].float().cpu()
        labels = seeds.confident.cpu().numpy().astype(np.uint8)
        journal.add(write_image(share, place, keys, scores, labels))

        if sweep:
            sweep.update(keys, scores, sample["mask"].long())
            refined.update(seeds.pseudo, sample["mask"])
        if (told := pace.count()) and distributed.is_main():
            tqdm.write(told)


def write_image(job: Export, place: int, keys: Tensor, scores: Tensor, labels: np.ndarray) -> Entry:
    """Write the files of image `place`: classes (n,) with scores (n, H, W), and labels (H, W).
    Returns its entry of the journal.
    """
    item = job.images.items[place]
    files = job.files(item.name)
    for file, content in zip(
        files, (packed(job.layout, keys, scores), mask_png(labels, palette())), strict=True
    ):
        write_whole(job.folder / file, content)

    return {
        "name": item.name,
        "image": str(item.image),
        "mask": None,
        "size": list(labels.shape),
        "results": {},
        "pixels": {},
        "files": files,
        "changed": stamp(replace(item, mask=None)),
        "tags": job.tags(place),
    }


def left_before(job: Export) -> list[str]:
    """List the files beside those of an export: an earlier one, of another split or layout, or
    stopped half-way, left them.
    """
    written = {file for name in job.images.items.names for file in job.files(name)}
    files = (file for part in (SEEDS, PSEUDO_LABELS) for file in (job.folder / part).rglob("*"))
    found = {file.relative_to(job.folder).as_posix() for file in files if file.is_file()}
    return sorted(found - written)
