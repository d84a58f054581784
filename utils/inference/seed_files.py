"""Files of CAM seeds, in the layouts of this field's repositories."""

import io

import numpy as np
from torch import Tensor

from clip.resize import resize
from utils.common.files import npy_of

LAYOUTS = {"npz": ".npz", "irn": ".npy", "mctformer": ".npy"}


def packed(layout: str, keys: Tensor, scores: Tensor) -> bytes:
    """Return the content of a seed file: classes (n,) and scores (n, H, W) in one of LAYOUTS."""
    names = keys.numpy()
    values = scores.half().numpy()
    if layout == "npz":
        stream = io.BytesIO()
        np.savez_compressed(stream, keys=names, scores=values)
        return stream.getvalue()

    if layout == "irn":
        size = [-(-side // 4) for side in scores.shape[-2:]]
        small = scores.new_zeros(0, *size)
        if len(keys):
            small = resize(scores[None], size)[0]
        return npy_of({"keys": names, "cam": small, "high_res": values.astype(np.float32)})
    return npy_of(dict(zip(names.tolist(), values)))
