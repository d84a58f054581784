"""Compare the branches on equal terms: `python -m utils.tools.ablation --config
configs/toy_voc.yaml --seeds 0 1 2`.

Trains CLIP only, ViT only and both, each for the configuration's budget, and as a ceiling the same
network on true masks. Scores are mIoU of multi-scale + flip on the validation split, and on that of
each --other_root (data of another seed). Finished runs are kept in the work folder and not trained
again.
"""

import argparse
import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from datasets.data import Batch, TaggedImages
from datasets.layouts import Item
from datasets.pictures import load_mask
from datasets.specs import IGNORE
from model.cvf import CVF
from model.losses import seg_loss
from model.resize import resize
from utils.build import split_items
from utils.common import distributed
from utils.common.entry import Parser, command
from utils.config import CONFIGS, Config, load_config
from utils.inference.predict import Job, matrices, predict_split
from utils.inference.segmenter import Outputs, Segmenter
from utils.metrics import MULTI, TITLES, ConfusionMatrix
from utils.run_folder.checkpoint import checkpoint_of
from utils.run_folder.recorder import read_results
from utils.training.stages import FINAL, train

CEILING = "true masks (ceiling)"
# name -> branches
ROWS = {
    "ViT only": "vit",
    "CLIP only": "clip",
    "fusion": "fusion",
    CEILING: "fusion",
}


class MaskedBatch(Batch):
    """A batch of `MaskedCrops`."""

    labels: Tensor  # (B, c, c) uint8, 255 on padding


class MaskedCrops(TaggedImages):
    """The crops of `TaggedImages` with the masks cropped alike, for the ceiling alone."""

    def __init__(self, items: list[Item], *arguments: Any):
        super().__init__(items, *arguments)
        self.masks = [str(item.mask) for item in items]

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor | int | str]:
        """As in `TaggedImages`, and "labels" (c, c) uint8, 255 on padding."""
        sample = super().__getitem__(key)
        index = int(sample["index"])  # of the image shown, which need not be the one asked for
        mask = load_mask(self.masks[index])
        labels = self.view((key[0], index), *mask.shape).of_labels(mask, IGNORE)
        return {**sample, "labels": torch.from_numpy(labels)}


def mask_losses(
    model: CVF, images: Tensor, batch: Batch, step: int, config: Config
) -> dict[str, Tensor]:
    """Supervised segmentation loss: what the network could reach if pseudo labels were perfect."""
    labels = cast(MaskedBatch, batch)["labels"].long()
    return {
        "seg": seg_loss(
            resize(model.segment(images).float(), labels.shape[-2:]), labels, distributed.total
        )
    }


def train_row(row: str, config: Config, folder: Path) -> Path:
    """Train one row, or find it trained; stage 1 of a seed is shared by all rows that need it."""
    final = folder / "checkpoints" / FINAL
    if final.is_file():
        return final
    shared = folder.with_name(f"ViT only-{config.seed}")
    # else its stage 1 may be half done
    trained = shared != folder and (shared / "checkpoints" / FINAL).is_file()
    stage_1 = str(checkpoint_of(shared, "classifier")) if trained else ""
    config = replace(config, branches=ROWS[row], work_dir=str(folder), mct_path=stage_1)
    if row == CEILING:
        return train(replace(config, eval_seeds=False), True, MaskedCrops, mask_losses)
    return train(config, True)


def score_row(final: Path, config: Config, roots: list[str]) -> dict[str, float]:
    """mIoU (0..100) of multi-scale + flip on the validation split of each root, and of the pseudo
    labels.
    """
    segmenter = Segmenter.from_checkpoint(final, Outputs(use_crf=False), device=config.device)
    folder = final.parent.parent
    scores = {}
    for root in roots:
        images = split_items(replace(config, data_root=root), config.val_split)
        entries = predict_split(segmenter, Job(images, folder / Path(root).name))
        scores[root] = 100 * matrices(entries, len(segmenter.classes))[MULTI].miou()
    pseudo = read_results(folder).get(TITLES["pseudo"])
    if pseudo is not None:
        scores[TITLES["pseudo"]] = 100 * ConfusionMatrix.from_counts(pseudo["counts"]).miou()
    return scores


def main() -> None:
    """Command line."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--config", default=str(CONFIGS / "toy_voc.yaml"), help="default: %(default)s"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument(
        "--rows", nargs="+", choices=tuple(ROWS), default=list(ROWS), help="default: all"
    )
    parser.add_argument(
        "--other_root", nargs="*", default=[], metavar="DIR", help="further data to score on"
    )
    parser.add_argument("--work_dir", default="runs/ablation", help="default: %(default)s")
    parser.add_argument("--device", default="auto", help="default: %(default)s")
    args = parser.parse_args()
    config = load_config(args.config, {"device": args.device})
    table: dict[str, list[dict[str, float]]] = {}

    for seed in args.seeds:
        for row in args.rows:
            folder = Path(args.work_dir) / f"{row}-{seed}"
            scored = folder / "scores.json"
            if not scored.is_file():
                seeded = replace(config, seed=seed)
                scores = score_row(
                    train_row(row, seeded, folder),
                    replace(seeded, branches=ROWS[row]),
                    [config.data_root, *args.other_root],
                )
                scored.write_text(json.dumps(scores))
            table.setdefault(row, []).append(json.loads(scored.read_text()))

    print_table(table, [TITLES["pseudo"], config.data_root, *args.other_root])


def print_table(table: dict[str, list[dict[str, float]]], columns: list[str]) -> None:
    """Mean and standard deviation over seeds, and the fusion's lead over the better branch in
    standard errors.
    """
    print(
        f"{'mIoU %, mean (standard deviation)':36}"
        + "".join(f"{Path(column).name:>20}" for column in columns)
    )
    for row, runs in table.items():
        cells = []
        for column in columns:
            values = [run[column] for run in runs if column in run]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            cells.append(f"{statistics.mean(values):.1f} ({spread:.1f})" if values else "-")
        print(f"{row + f', {len(runs)} seeds':36}" + "".join(f"{cell:>20}" for cell in cells))

    for column in columns[1:]:
        for branch in ("CLIP only", "ViT only"):
            gaps = [
                a[column] - b[column]
                for a, b in zip(table.get("fusion", []), table.get(branch, []))
            ]
            if len(gaps) > 1:
                error = statistics.stdev(gaps) / len(gaps) ** 0.5
                print(
                    f"{Path(column).name}: fusion - {branch} {statistics.mean(gaps):+.1f}, "
                    f"standard error {error:.1f}"
                )


if __name__ == "__main__":
    command(main)()
