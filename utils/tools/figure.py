"""Draw the method as it sees toy pictures: `python -m utils.tools.figure --model_path CKPT --out model.jpg`.

One row a picture: image, CLIP CAM, ViT CAM, both fused, pseudo label, prediction, truth; all are real outputs.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from datasets.specs import IGNORE, DatasetSpec
from datasets.toy.scene import Scene, random_classes, render
from datasets.transforms import normalise
from model.cvf import CVF
from model.pseudo_labels import score_maps
from utils.build import STATISTICS, restore
from utils.checkpoint import load_checkpoint
from utils.cli import checkpoint_config
from utils.config import Config
from utils.runtime import choose_device, command
from utils.testing import CRF, Outputs, predict
from utils.visualisation import coloured, heat, stacked, titled_row


@torch.no_grad()
def method_row(model: CVF, spec: DatasetSpec, scene: Scene, config: Config) -> list[tuple[str, np.ndarray]]:
    """Titled panels (H, W, 3) uint8 of one square toy scene with sides that are multiples of 16."""
    pixels = torch.from_numpy(scene.image).permute(2, 0, 1).to(model.text.device)
    tags = torch.zeros(1, len(spec.classes), device=pixels.device)
    tags[0, list(scene.classes)] = 1
    select = config.max_iters >= config.switch_iters  # as at the end of training
    labels = model(normalise(pixels[None], *STATISTICS[config.statistics]), tags, select).labels
    maps = {
        name: scores[0].amax(0).cpu().numpy() for name, scores in score_maps(labels.seeds, pixels.shape[1:]).items()
    }
    pseudo = labels.combined[0].cpu().numpy().astype(np.uint8)
    prediction = predict(model, pixels, config, Outputs()).labels[CRF].cpu().numpy()
    titles = {"clip": "CLIP CAM", "vit": "ViT CAM", "fused": "fused"}
    return [
        ("image", scene.image),
        *((title, heat(scene.image, maps[name])) for name, title in titles.items() if name in maps),
        ("pseudo label", coloured(scene.image, pseudo)),
        ("prediction", coloured(scene.image, prediction)),
        ("truth", coloured(scene.image, np.where(scene.labels == IGNORE, 0, scene.labels))),
    ]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_path", required=True, help="checkpoint trained on the toy VOC")
    parser.add_argument("--out", default="model.jpg", help="picture to write (default: %(default)s)")
    parser.add_argument("--pictures", type=int, nargs="+", default=[3, 12, 25], help="numbers of validation pictures")
    parser.add_argument("--size", type=int, default=192, help="side of the pictures, px (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="default: %(default)s")
    args = parser.parse_args()
    checkpoint = load_checkpoint(Path(args.model_path), "--model_path")
    config = checkpoint_config(checkpoint["config"], Path(args.model_path), {})
    model, spec = restore(checkpoint, config)
    model.to(choose_device(args.device))
    rows = []
    for number in args.pictures:
        rng = np.random.default_rng((4242, number))
        scene = render(rng, args.size, args.size, random_classes(rng))
        rows.append(titled_row(method_row(model, spec, scene, config)))
    stacked(rows).save(args.out, quality=92)
    print(args.out)


if __name__ == "__main__":
    command(main)()
