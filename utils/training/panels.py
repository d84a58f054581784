"""What the method makes of an image, in a row: image, seeds of CLIP, of the ViT and of both fused,
pseudo label, prediction, truth.
"""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datasets.data import Split, fitting_mask
from datasets.lists import Item
from datasets.pictures import open_image
from model.cvf import CVF
from model.method import Phase
from utils.common.errors import UserError
from utils.config import Config
from utils.drawing import coloured, heat, legend, stacked, titled_row
from utils.inference.evaluation import evaluating
from utils.inference.protocol import Outputs, predict
from utils.inference.seeds import image_seeds
from utils.metrics import MULTI, TITLES
from utils.training.run import Run


def method_row(
    model: CVF,
    image: np.ndarray,
    tags: Tensor,
    labels: dict[str, np.ndarray],
    config: Config,
    phase: Phase,
) -> tuple[list[tuple[str, np.ndarray]], np.ndarray]:
    """Draw titled panels (H, W, 3) uint8 of an image of that form with tags (K,), and its pseudo
    label (H, W) uint8.

    labels: further label maps (H, W) uint8 by title, drawn behind the pseudo label. A seed's panel
    shows the highest score of any tagged class at each pixel. The model is in eval mode.
    """
    seeds = image_seeds(model, torch.from_numpy(image).permute(2, 0, 1), tags, config, phase)
    empty = torch.zeros(1, *image.shape[:2])  # an image without tags has no score
    panels = [("image", image)]
    for kind, scores in seeds.scores.items():
        highest = torch.cat([empty, scores.cpu()]).amax(0).numpy()
        panels.append((TITLES[kind], heat(image, highest)))

    pseudo = seeds.pseudo.cpu().numpy().astype(np.uint8)
    labels = {TITLES["pseudo"]: pseudo, **labels}
    panels += [(title, coloured(image, part)) for title, part in labels.items()]
    return panels, pseudo


def draw_panels(model: CVF, training: Split, run: Run, step: int) -> None:
    """Record panels of `config.visualise` training images, spread over the list.

    Truth is drawn where an image has a mask; the prediction is multi-scale + flip without CRF.
    """
    config = run.config
    names = ("background", *run.facts["classes"])
    spread = np.linspace(0, len(training) - 1, config.visualise).round().astype(int)

    with evaluating(model):
        for index in np.unique(spread):
            item = training.items[index]
            tags = torch.from_numpy(training.tags[index])
            try:
                picture = _panel(model, item, tags, names, config, step)
            except UserError as error:
                if config.on_bad_image == "stop":
                    raise
                run.note_bad_image("panels", str(error))
                continue

            run.recorder.picture(item.name, step, picture)


def _panel(
    model: CVF, item: Item, tags: Tensor, names: Sequence[str], config: Config, step: int
) -> Image.Image:
    opened = open_image(item.image)
    image = np.array(opened.decoded())
    pixels = torch.from_numpy(image).permute(2, 0, 1)
    predicted = predict(model, pixels, config, Outputs(use_crf=False)).labels[MULTI]
    labels = {"prediction": predicted.cpu().numpy()}
    if item.mask is not None:
        labels["truth"] = fitting_mask(item.mask, item.image, opened)

    row, pseudo = method_row(model, image, tags, labels, config, config.phase(step))
    picture = titled_row(row)
    return stacked([picture, legend([pseudo, *labels.values()], names, picture.width)])
