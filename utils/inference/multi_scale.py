"""From an image to logits and labels: resizing, padding, scales, mirror images."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from clip.loader import PATCH
from clip.resize import resize

SMALLEST = 32  # px; smaller sides are padded
# shrinking by more than this needs a filter; the published protocol, which has none, stays below
ALIASED = 2
Segment = Callable[[Tensor], Tensor]  # normalised images (B, 3, H, W) -> logits (B, K+1, h, w)


def resize_long(image: Tensor, long: int) -> Tensor:
    """Bring the longer side of (B, 3, H, W) to `long` px; the other side is rounded down, at least
    1.

    A picture more than ALIASED times too large is averaged over the pixels that fall together, as
    most would be unread.
    """
    longest = max(image.shape[-2:])  # in integers, as 98 * (512 / 98) falls short of 512
    size = [max(1, side * long // longest) for side in image.shape[-2:]]
    if longest > ALIASED * long:
        return F.interpolate(image, size, mode="bilinear", align_corners=False, antialias=True)
    return resize(image, size)


def shrunk(image: Tensor, longest: int) -> Tensor:
    """Bring an image (3, H, W) uint8 whose longer side is above `longest` px to that; others stay
    as they are.
    """
    if max(image.shape[-2:]) <= longest:
        return image
    return resize_long(image[None].float(), longest)[0].round().to(torch.uint8)


def stretched(image: Tensor, height: int, width: int) -> Tensor:
    """Stretch an image (3, H, W) uint8 bicubically to (1, 3, height, width) uint8, as CLIP-ES does;
    where it shrinks it is filtered.
    """
    picture = Image.fromarray(image.permute(1, 2, 0).cpu().numpy())
    resized = np.array(picture.resize((width, height), Image.Resampling.BICUBIC))
    return torch.from_numpy(resized).permute(2, 0, 1)[None].to(image.device)


def padding_of(height: int, width: int, padded: bool = True) -> tuple[int, int]:
    """Return the rows and columns to add so that both sides are at least SMALLEST and, if `padded`,
    multiples of a patch.
    """
    step = 1
    if padded:
        step = PATCH
    rows, columns = (max(SMALLEST, -(-side // step) * step) - side for side in (height, width))
    return rows, columns


def pad(image: Tensor, rows: int, columns: int) -> Tensor:
    """Append rows and columns by reflection; where an image is too small to reflect, its border is
    repeated.
    """
    for axis, count, sides in ((2, rows, (0, 0, 0, rows)), (3, columns, (0, columns, 0, 0))):
        mode = "reflect" if count < image.shape[axis] else "replicate"
        if count:
            image = F.pad(image, sides, mode=mode)
    return image


def logits_of(segment: Segment, image: Tensor, padded: bool = True) -> Tensor:
    """Return logits of an image of any size: on its patch grid, or at its pixels where padding had
    to be cut off again.

    Not `padded`: pixels beyond the last whole patch are left unseen, as the published code does.
    """
    height, width = image.shape[-2:]
    rows, columns = padding_of(height, width, padded)
    if not rows and not columns:
        return segment(image)
    logits = segment(pad(image, rows, columns))
    return resize(logits, (height + rows, width + columns))[..., :height, :width]


def multi_scale(
    segment: Segment,
    image: Tensor,
    scales: Sequence[float] = (1.0, 0.75),
    flip: bool = True,
    padded: bool = True,
) -> tuple[Tensor, Tensor]:
    """Return single-scale logits and the mean over scales, each with its mirror image if `flip`,
    both (B, K+1, h, w).

    image (B, 3, H, W) normalised; `padded` as in `logits_of`. The single scale is the first one
    without its mirror image; its logits' size is that of both results (model/README.md,
    "Inference").
    """

    def at(scale: float) -> tuple[Tensor, Tensor]:
        """Return logits at one scale, plain and averaged with those of the mirror image."""
        size = [max(1, int(side * scale)) for side in image.shape[-2:]]
        scaled = image
        if size != list(image.shape[-2:]):
            scaled = resize(image, size)

        if not flip:
            plain = logits_of(segment, scaled, padded).float()
            return plain, plain

        views = torch.cat([scaled, scaled.flip(3)])
        plain, mirrored = logits_of(segment, views, padded).float().split(len(image))
        return plain, (plain + mirrored.flip(3)) / 2

    single, total = at(scales[0])
    for scale in scales[1:]:
        _, mean = at(scale)
        if mean.shape != total.shape:
            mean = resize(mean, total.shape[-2:])
        total = total + mean
    return single, total / len(scales)
