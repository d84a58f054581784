"""Label Studio's code of brushes: RGBA pictures as bits."""

from collections.abc import Sequence

import numpy as np

from datasets.forms.shapes import MOST_PIXELS


def brush_pixels(rle: Sequence[int], height: int, width: int) -> np.ndarray:
    """Return (height, width) bool of a brush: the opaque pixels of an RGBA picture in Label
    Studio's code.

    The code is of bits: 32 for how many values follow, 5 for the bits of a value less 1, four times
    4 for the bits of a length less 1. Then of each run: 1 for a repeated value or 0 for single
    values, 2 for which kind of length follows, the length less 1, and the value or values.

    Raises ValueError where it ends early, or is of another size or larger than MOST_PIXELS.
    """
    bits = "".join(format(byte, "08b") for byte in bytes(list(rle)))
    place = 0

    def number(length: int) -> int:
        """Read the next bits as a number."""
        nonlocal place
        place += length
        return int(bits[place - length : place], 2)

    total = number(32)
    word = number(5) + 1
    lengths = [number(4) + 1 for _ in range(4)]
    if total != height * width * 4 or total > 4 * MOST_PIXELS:
        raise ValueError(f"{total} values for {width} x {height} pixels")

    values = np.zeros(total, np.uint8)
    at = 0
    while at < total:
        repeated = number(1)
        end = at + 1 + number(lengths[number(2)])
        if repeated:
            values[at:end] = number(word)
        else:
            values[at:end] = [number(word) for _ in range(end - at)]
        at = end

    return values.reshape(height, width, 4)[..., 3] > 0
