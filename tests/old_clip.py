"""The CLIP that the runs in `old_runs/` were trained with, made again to the byte."""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from clip.model import CLIP, VisionTransformer
from clip.tokenizer import Tokenizer
from datasets.specs import VOC

WIDTH = 3


def write_old_clip(path: Path) -> None:
    """Write a CLIP of 2 blocks and 3 channels. Its weights are small whole numbers over 256, drawn
    by NumPy, so that they are the same on every machine.
    """
    token_ids = Tokenizer()(VOC.texts()).unique()
    visual = VisionTransformer(WIDTH, 2, 8, 16, 4)
    state = CLIP(visual, 8, WIDTH, 1, token_ids=token_ids).state_dict()

    rng = np.random.default_rng(0)
    for name in sorted(state):
        if state[name].is_floating_point() and name != "logit_scale":
            numbers = rng.integers(-128, 129, state[name].shape)
            state[name] = torch.from_numpy(numbers / 256).float().contiguous()
    state["logit_scale"] = torch.tensor(3.0)
    save_file(state, path)
