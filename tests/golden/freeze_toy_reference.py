"""Make toy_forward_s1.npz anew: `python tests/golden/freeze_toy_reference.py`.

Run it only when the arithmetic was meant to change and parity with the published code has been
seen after the change: whatever the code gives then becomes the reference
(tests/golden/README.md, "Freezing the toy reference anew").
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

FOLDER = Path(__file__).resolve().parent
sys.path[:0] = [str(FOLDER.parents[1]), str(FOLDER.parent)]  # as pyproject.toml does for pytest

import golden_weights
from golden_file import GoldenFile
from golden_toy import measured

from datasets.specs import VOC
from datasets.toy.scene import Scene, render
from datasets.transforms import IMAGENET_MEAN

TARGET = FOLDER / "toy_forward_s1.npz"
# instruction sets that round differently; the reference must not hang on that
CAPABILITIES = (
    "default",
    "avx2",
)
CONFIG: dict[str, Any] = {
    "seed": 1,
    "case": "toy_forward",
    "clip": {
        "vision_width": 128,
        "vision_layers": 12,
        "patch": 16,
        "grid": 14,
        "embed_dim": 64,
        "text_width": 64,
        "text_layers": 2,
        "context": 77,
        "vocab": 49408,
    },
    "mct": {
        "embed_dim": 96,
        "depth": 4,
        "heads": 3,
        "mlp_ratio": 4,
        "num_classes": len(VOC.classes),
        "patch": 16,
        "input_size": 112,
    },
    "head": {
        "clip_width": 128,
        "features": 11,
        "embed_dim": 64,
        "layers": 3,
        "num_classes": len(VOC.label_names),
        "mct_dim": 96,
    },
    "picture_seed": 16,  # of 28, the one whose outputs differed least between instruction sets
    "pictures": {"size": [144, 160], "classes": [[6, 11, 14], [7]], "padded_columns": [0, 22]},
    "test_picture": {"size": [101, 151], "classes": [2, 16]},
}


def digests() -> dict[str, str]:
    """SHA-256 of each state dict of random weights."""
    seed = CONFIG["seed"]
    states = {
        "clip": golden_weights.clip_weights(CONFIG["clip"], seed),
        "mct": golden_weights.mct_weights(CONFIG["mct"], seed),
        "head": golden_weights.head_weights(CONFIG["head"], seed)[0],
    }
    return {name: golden_weights.digest(state) for name, state in states.items()}


def inputs() -> dict[str, np.ndarray]:
    """Training pictures (B, H, W, 3) uint8, their tags (B, K) and where they are no padding; a test
    picture.
    """
    rng, training, test = (
        np.random.default_rng(CONFIG["picture_seed"]),
        CONFIG["pictures"],
        CONFIG["test_picture"],
    )
    scenes = [drawn(rng, training["size"], classes) for classes in training["classes"]]
    pictures, valid = (
        np.stack([scene.image for scene in scenes]),
        np.ones((len(scenes), *training["size"]), bool),
    )
    tags = np.zeros((len(scenes), len(VOC.classes)), np.uint8)
    for number, (scene, columns) in enumerate(zip(scenes, training["padded_columns"])):
        tags[number, list(scene.classes)] = 1
        valid[number, :, training["size"][1] - columns :] = False
    pictures[~valid] = np.round(IMAGENET_MEAN)
    picture = drawn(rng, test["size"], test["classes"]).image
    return {"pictures": pictures, "tags": tags, "valid": valid, "test_picture": picture}


def drawn(rng: np.random.Generator, size: list[int], classes: list[int]) -> Scene:
    """A toy picture (H, W) in which all of `classes` show."""
    while set((scene := render(rng, *size, classes)).classes) != set(classes):
        pass
    return scene


def stored(value: Tensor) -> np.ndarray:
    """float32 and bool as they are, labels as uint8."""
    array = value.detach().numpy()
    return array.astype(np.uint8) if array.dtype.kind == "i" else array


def main() -> None:
    """Write the file, once its check has passed on each instruction set."""
    config, arrays = json.dumps(CONFIG | {"sha256": digests()}), inputs()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / TARGET.name
        np.savez_compressed(path, config=config, **arrays)
        outputs = {name: stored(value) for name, value in measured(GoldenFile(path))}
        np.savez_compressed(path, config=config, **arrays, **outputs)
        for capability in CAPABILITIES:
            environment = os.environ | {"CVF_GOLDEN": folder, "ATEN_CPU_CAPABILITY": capability}
            subprocess.run(
                [sys.executable, "-m", "pytest", "-q", FOLDER / "test_golden.py", "-k", "given"],
                env=environment,
                check=True,
            )
        shutil.copyfile(path, TARGET)
    print(f"{TARGET.name}: {len(outputs)} outputs, {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
