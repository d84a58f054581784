"""Draw the method as it sees toy pictures: `python -m utils.tools.figure --model_path CKPT --out
first.jpg`.

One row per picture: image, seeds of CLIP, of the ViT and of both fused, pseudo label, prediction,
truth; all are real outputs.
"""

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from datasets.specs import IGNORE, VOC, DatasetSpec
from datasets.toy.scene import LEAST_SIDE, Scene, random_classes, render
from model.cvf import CVF
from utils.build import restore
from utils.common.device import choose_device
from utils.common.entry import command
from utils.common.errors import UserError
from utils.common.files import require_place, write_whole
from utils.common.parser import Parser
from utils.config import Config
from utils.drawing import stacked, titled_row
from utils.inference.protocol import Outputs, predict
from utils.metrics import CRF
from utils.run_folder.checkpoint import checkpoint_config, load_checkpoint
from utils.training.panels import method_row


def toy_row(
    model: CVF, spec: DatasetSpec, scene: Scene, config: Config
) -> list[tuple[str, np.ndarray]]:
    """Draw titled panels (H, W, 3) uint8 of a toy scene, as at the end of training."""
    tags = torch.zeros(len(spec.classes))
    tags[list(scene.classes)] = 1
    pixels = torch.from_numpy(scene.image).permute(2, 0, 1)
    predicted = predict(model, pixels, config, Outputs()).labels[CRF].cpu().numpy()
    truth = np.where(scene.labels == IGNORE, 0, scene.labels)
    labels = {"prediction": predicted, "truth": truth}
    return method_row(model, scene.image, tags, labels, config, config.phase(config.max_iters))[0]


def written_form(out: str) -> str:
    """Return Pillow's name of the form in which a file of this name is saved. Raises UserError for
    a suffix of no picture, or of one that Pillow only reads.
    """
    form = Image.registered_extensions().get(Path(out).suffix.lower(), "")
    try:
        Image.new("RGB", (1, 1)).save(io.BytesIO(), form)
    except (KeyError, OSError, ValueError):
        raise UserError(f"--out {out} has no suffix of a picture; use e.g. first.jpg") from None
    return form


def main() -> None:
    """Read the command line and do what it asks."""
    parser = Parser(description=__doc__)
    parser.add_argument("--model_path", required=True, help="checkpoint trained on the toy VOC")
    parser.add_argument(
        "--out",
        required=True,
        metavar="FILE",
        help="picture to write, in place of one that is there; model.jpg is that of the front page",
    )
    parser.add_argument(
        "--pictures",
        type=int,
        nargs="+",
        default=[3, 12, 25],
        help="numbers of toy pictures (default: 3 12 25)",
    )
    parser.add_argument(
        "--size", type=int, default=192, help="side of the pictures, px (default: %(default)s)"
    )
    parser.add_argument("--device", default="auto", help="default: %(default)s")
    args = parser.parse_args()
    if min(args.pictures) < 0:
        raise UserError(
            f"--pictures {min(args.pictures)} is negative; pictures are numbered from 0"
        )
    form = written_form(args.out)
    if args.size < LEAST_SIDE:
        raise UserError(
            f"--size {args.size} is too small for a toy picture; use {LEAST_SIDE} or more"
        )
    require_place(args.out, "--out")

    checkpoint = load_checkpoint(Path(args.model_path), "--model_path")
    config = checkpoint_config(checkpoint["config"], Path(args.model_path), {})
    model, spec = restore(checkpoint, config)
    if spec != VOC:
        raise UserError(
            f"--model_path {args.model_path} knows the classes of {spec.name}; give one trained "
            "on VOC's"
        )

    model.to(choose_device(args.device))
    rows = []
    for number in args.pictures:
        rng = np.random.default_rng((4242, number))
        scene = render(rng, args.size, args.size, random_classes(rng))
        rows.append(titled_row(toy_row(model, spec, scene, config)))

    stream = io.BytesIO()
    stacked(rows).save(stream, form, quality=92)
    write_whole(args.out, stream.getvalue())
    print(args.out)


if __name__ == "__main__":
    command(main)()
