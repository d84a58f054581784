"""Captioned toy pictures, of which the toy CLIP learns: mosaics of scenes with known contents, and
sentences about what they show.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from datasets.specs import COCO, VOC
from datasets.toy.scene import random_classes, render
from datasets.toy.words import SYNONYMS, UNDRAWN, wordings
from utils.common.progress import progress

TEMPLATES = (
    "a clean origami {}.",
    "a photo of a {}.",
    "a photo of a {}",
    "a picture of {}",
    "{}",
    "an image with a {}",
    "there is a {}",
)
LINKS = (" and a ", " with a ", " on ", " in front of ")
CANVAS = 192  # px, 12 x 12 patches: divides into mosaics of 1, 2 x 2 and 3 x 3 pictures
CONCEPTS = tuple(SYNONYMS)  # every drawn class and background word
DRAWN = {word for concept in CONCEPTS for word in wordings(concept)}
NEVER = tuple(
    dict.fromkeys(
        [*UNDRAWN, *(word for word in (*VOC.prompts, *COCO.prompts) if word not in DRAWN)]
    )
)


class PictureBank:
    """Captioned pictures held in memory: images (n, size, size, 3) uint8 and concept indicators (n,
    concepts).
    """

    def __init__(self, count: int, size: int, single: float, seed: tuple[int, ...]):
        self.images = np.empty((count, size, size, 3), np.uint8)
        self.concepts = np.zeros((count, len(CONCEPTS)), np.float32)
        for i in progress(range(count), desc=f"rendering {size} px", leave=False):
            rng = np.random.default_rng((*seed, size, i))
            if rng.random() < single:
                classes: tuple[int, ...] = (int(rng.integers(len(VOC.classes))),)
            else:
                classes = random_classes(rng)

            scene = render(rng, size, size, classes)
            self.images[i] = scene.image
            for word in (*(VOC.classes[c] for c in scene.classes), *scene.stuff):
                self.concepts[i, CONCEPTS.index(word)] = 1

    def mosaic(self, rng: np.random.Generator, batch: int, side: int) -> tuple[Tensor, Tensor]:
        """Draw canvases (B, 3, CANVAS, CANVAS) uint8 of side x side pictures and their concepts
        (B*side*side, concepts).
        """
        cell = CANVAS // side
        chosen = rng.integers(len(self.images), size=batch * side * side)
        pictures = torch.from_numpy(self.images[chosen]).permute(0, 3, 1, 2).float()
        mirrored = torch.from_numpy(rng.random(len(chosen)) < 0.5)
        pictures = torch.where(mirrored[:, None, None, None], pictures.flip(3), pictures)
        gain = torch.from_numpy(rng.uniform(0.75, 1.25, (len(chosen), 3, 1, 1)).astype(np.float32))
        pictures = F.interpolate(
            pictures * gain, (cell, cell), mode="bilinear", antialias=True
        ).clamp(0, 255)

        canvas = pictures.view(batch, side, side, 3, cell, cell).permute(0, 3, 1, 4, 2, 5)
        canvas = canvas.reshape(batch, 3, CANVAS, CANVAS).to(torch.uint8)
        return canvas, torch.from_numpy(self.concepts[chosen])


def wording(rng: np.random.Generator, word: str) -> str:
    """Choose one of the ways to say a concept, its plain name most often."""
    if rng.random() < 0.4:
        return word
    return str(rng.choice(wordings(word)))


def write_captions(
    rng: np.random.Generator, concepts: Tensor, extra: int = 64
) -> tuple[list[str], Tensor]:
    """Write captions for a batch and the concepts each one needs (texts, concepts).

    One prompt for each concept, some words that are never drawn, and `extra` captions composed for
    the batch.
    """

    def say(text: str) -> str:
        return str(rng.choice(TEMPLATES)).format(text)

    texts = [say(wording(rng, word)) for word in CONCEPTS]
    needs = [torch.eye(len(CONCEPTS))]
    texts += [say(word) for word in rng.choice(NEVER, 12, replace=False)]
    needs.append(torch.full((12, len(CONCEPTS)), 2.0))  # a need of 2 is never met
    for row in concepts[rng.integers(len(concepts), size=extra)]:
        present = row.nonzero()[:, 0].numpy()
        if len(present) == 0:
            continue
        some = rng.permutation(present)[: rng.integers(1, 4)]
        words = [wording(rng, CONCEPTS[i]) for i in some]
        texts.append(say(words[0] + "".join(str(rng.choice(LINKS)) + word for word in words[1:])))
        needs.append(F.one_hot(torch.from_numpy(some), len(CONCEPTS)).sum(0, keepdim=True).float())
    return texts, torch.cat(needs)
