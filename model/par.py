"""Pixel-adaptive refinement: maps of scores are smoothed along what looks alike in the image (PAR
of AFA, Ru et al., 2022). The maps are called masks, as in that paper, but hold scores.
"""

import functools
import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import record_function

from model.threads import each_on_a_thread
from utils.common.kernels import kernel_or_operations
from utils.common.precision import to_device

DILATIONS = (1, 2, 4, 8, 12, 24)  # how far neighbours are, px
_DIRECTIONS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
_SHARPNESS = 0.3  # differences are divided by 0.3 times the neighbours' standard deviation (AFA)
_POSITION_WEIGHT = 0.01  # factor of weights by distance, added to those by colour (AFA)
_EPS = 1e-8
_CACHED = 2**16  # values per band: a CPU core's cache keeps them while 48 neighbours are added up
_GATHERED = 2**26  # values gathered at a time on a GPU: 0.27 GB

Offsets = Sequence[tuple[int, int]]  # steps to neighbours, (rows, columns)
# masks, weights, counts, offsets and iterations of `rounds_by_operations`, and its result
Rounds = Callable[[Tensor, Tensor, Sequence[int], Offsets, int], Tensor]


@record_function("PAR")
@torch.no_grad()
def refine(
    images: Tensor,
    masks: Sequence[Tensor],
    iterations: int = 20,
    dilations: tuple[int, ...] = DILATIONS,
) -> list[Tensor]:
    """Smooth the masks of each image along what looks alike in it (AFA, section 3.4).

    images (B, 3, H, W) normalised, first brought to the masks' size; masks: (r, h, w) >= 0 for each
    image, whose numbers r may differ. Returns the refined masks in the same form. In every round a
    pixel becomes the weighted sum of its neighbours, 8 directions at each dilation; the weights sum
    to 1.01 (as published), so values may rise above 1.
    """
    size = masks[0].shape[-2:]
    if images.shape[-2:] != size:
        images = F.interpolate(images, size=size, mode="bilinear", align_corners=True)

    if images.is_cuda:
        return at_once(images, masks, iterations, dilations)
    return one_by_one(images, masks, iterations, dilations)


def _offsets(dilations: Sequence[int]) -> Offsets:
    return [(dy * d, dx * d) for d in dilations for dy, dx in _DIRECTIONS]


def one_by_one(
    images: Tensor, masks: Sequence[Tensor], iterations: int, dilations: Sequence[int]
) -> list[Tensor]:
    """Refine as a CPU does it fastest: its caches hold one image, its threads take one each."""
    offsets = _offsets(dilations)

    def refined(image: Tensor, own: Tensor) -> Tensor:
        return _rounds(own, neighbour_weights(image[None], offsets), iterations, offsets)

    return each_on_a_thread(refined, images, masks)


def at_once(
    images: Tensor, masks: Sequence[Tensor], iterations: int, dilations: Sequence[int]
) -> list[Tensor]:
    """Refine as a GPU does it fastest, in few operations: those of all pixels and neighbours are
    one, for some images at a time.
    """
    offsets = _offsets(dilations)
    some = max(1, _GATHERED // (len(offsets) * images[0].numel()))
    rounds = rounds_at_once(images.device)

    refined: list[Tensor] = []
    for first in range(0, len(masks), some):
        own = masks[first : first + some]
        weights = _weights_at_once(images[first : first + some], offsets)
        counts = [len(each) for each in own]
        refined += rounds(torch.cat([*own]), weights, counts, offsets, iterations).split(counts)
    return refined


@functools.cache
def rounds_at_once(device: torch.device) -> Rounds:
    """Return what does rounds of all masks at once on a device: Triton's kernel where it can be
    compiled, otherwise operations of PyTorch, with a warning on a GPU.
    """
    operations: Rounds = rounds_by_operations
    return kernel_or_operations("PAR", device, _kernel, operations)


def _kernel(device: torch.device) -> Rounds:
    """Return Triton's kernel after a try on the device."""
    from model.par_kernel import rounds

    pixel = torch.ones(1, 1, 1, 1, dtype=torch.float32, device=device)
    rounds(pixel[0], pixel, [1], [(0, 1)], 1)
    return rounds


def rounds_by_operations(
    masks: Tensor, weights: Tensor, counts: Sequence[int], offsets: Offsets, iterations: int
) -> Tensor:
    """Smooth masks (r, H, W) of some images in so many rounds.

    weights (B, n, H, W) of the n neighbours at `offsets`; counts: masks of each image, in order.
    """
    reach = _reach(offsets)
    some = max(1, _GATHERED // weights[0].numel())
    listed = [image for image, count in enumerate(counts) for _ in range(count)]
    owners = to_device(torch.tensor(listed, dtype=torch.long), masks.device)

    refined: list[Tensor] = []
    for own, images in zip(masks.split(some), owners.split(some)):
        shares = weights[images]
        for _ in range(iterations):
            around = torch.stack(_neighbours(_pad(own, reach), offsets, reach), dim=1)
            own = around.mul_(shares).sum(dim=1)
        refined.append(own)
    return torch.cat(refined)


def _weights_at_once(images: Tensor, offsets: Offsets) -> Tensor:
    """Weigh neighbours as `neighbour_weights` does, (B, n, H, W), those of all pixels at once."""
    reach = _reach(offsets)
    padded = _pad(images.flatten(0, 1), reach)
    around = torch.stack(_neighbours(padded, offsets, reach), dim=1).unflatten(0, images.shape[:2])

    scale = (around.std(dim=2, keepdim=True) + _EPS) * _SHARPNESS
    unlike = around.sub_(images[:, :, None]).div_(scale).square_().mean(dim=1)
    closeness = to_device(_closeness(offsets, images.dtype), images.device)
    return torch.softmax(-unlike, dim=1).add_(_POSITION_WEIGHT * closeness[:, None, None])


def _rounds(masks: Tensor, weights: Tensor, iterations: int, offsets: Offsets) -> Tensor:
    """Smooth masks (r, H, W) of one image in so many rounds.

    weights (1, n, H, W) of the n neighbours at `offsets`.
    """
    reach = _reach(offsets)
    bands = _bands(masks)
    by_neighbour = _by_band(weights.unbind(1), bands)

    # Two padded copies are read and written in turns; all views of them are made once.
    copies = [_pad(masks, reach), _pad(masks, reach)]
    inner = [padded[..., reach:-reach, reach:-reach] for padded in copies]
    sums = [_by_band([own] * len(offsets), bands) for own in inner]
    neighbours = [_by_band(_neighbours(padded, offsets, reach), bands) for padded in copies]

    for turn in range(iterations):
        read = turn % 2
        written = 1 - read
        inner[written].zero_()
        # one call, which takes them in turn and leaves Python to the other threads
        torch._foreach_addcmul_(sums[written], by_neighbour, neighbours[read])
        _repeat_border(copies[written], reach)

    return inner[iterations % 2]


def _bands(maps: Tensor) -> int:
    """Tell in how many bands of rows maps are worked through."""
    return math.ceil(maps.numel() / _CACHED)


def _by_band(maps: Sequence[Tensor], bands: int) -> list[Tensor]:
    """Cut maps (..., H, W) into bands of rows: those of the first band, then those of the next."""
    return [
        part for band in zip(*(own.tensor_split(bands, dim=-2) for own in maps)) for part in band
    ]


def neighbour_weights(images: Tensor, offsets: Offsets) -> Tensor:
    """Weigh the neighbours at n offsets in images (B, 3, H, W), (B, n, H, W): softmax of likeness +
    0.01 softmax of closeness.
    """
    reach = _reach(offsets)
    padded = _pad(images, reach)
    added = _POSITION_WEIGHT * _closeness(offsets, images.dtype)[:, None, None]
    weights = images.new_empty(len(images), len(offsets), *images.shape[-2:])
    bands = _bands(images)
    top = 0

    for band, part in zip(images.tensor_split(bands, -2), weights.tensor_split(bands, -2)):
        bottom = top + band.shape[-2]
        around = padded[..., top : bottom + 2 * reach, :]
        unlike = _unlikeness(band, _neighbours(around, offsets, reach))
        alike = torch.sub(unlike.amin(dim=1, keepdim=True), unlike, out=unlike).exp_()
        torch.addcmul(added, alike, alike.sum(dim=1, keepdim=True).reciprocal_(), out=part)
        top = bottom

    return weights


def _unlikeness(images: Tensor, neighbours: Sequence[Tensor]) -> Tensor:
    """Measure how unlike images (B, 3, H, W) and n maps of neighbours are, (B, n, H, W) >= 0: the
    squared difference, in units of `_SHARPNESS` deviations, mean over channels.
    """
    count = len(neighbours)
    difference = torch.empty_like(images)
    total = torch.zeros_like(images)
    squares = torch.zeros_like(images)

    for neighbour in neighbours:
        total.add_(neighbour)
    # Rounding of the mean changes the deviation by its square alone, which is nothing.
    mean = total.div_(count)
    for neighbour in neighbours:
        torch.sub(neighbour, mean, out=difference)
        squares.addcmul_(difference, difference)
    scale = (
        ((squares / (count - 1)).sqrt() + _EPS) * _SHARPNESS * math.sqrt(images.shape[1])
    ).reciprocal()

    unlikeness = images.new_empty(len(images), count, *images.shape[-2:])
    for neighbour, unlike in zip(neighbours, unlikeness.unbind(1)):
        torch.sub(neighbour, images, out=difference).mul_(scale)
        first, *others = difference.unbind(1)
        torch.mul(first, first, out=unlike)
        for channel in others:
            unlike.addcmul_(channel, channel)
    return unlikeness


def _closeness(offsets: Offsets, dtype: torch.dtype) -> Tensor:
    """Weigh the neighbours at n offsets by their distance alone, (n,) on the CPU; the sum is 1."""
    distances = torch.tensor(offsets, dtype=dtype).norm(dim=1)
    return torch.softmax(-(distances / (distances.std() + _EPS) / _SHARPNESS).square(), dim=0)


def _reach(offsets: Offsets) -> int:
    """Return the longest step of any offset along one axis."""
    return max(abs(step) for offset in offsets for step in offset)


def _pad(maps: Tensor, reach: int) -> Tensor:
    """Pad (..., H, W) by its border, repeated `reach` pixels far on every side."""
    return F.pad(maps, [reach] * 4, mode="replicate")


def _repeat_border(padded: Tensor, reach: int) -> None:
    """Pad again, in place, what `_pad` has padded and whose inner part has changed."""
    rows = padded[..., reach:-reach, :]
    rows[..., :reach] = rows[..., reach, None]
    rows[..., -reach:] = rows[..., -reach - 1, None]
    padded[..., :reach, :] = rows[..., :1, :]
    padded[..., -reach:, :] = rows[..., -1:, :]


def _neighbours(padded: Tensor, offsets: Offsets, reach: int) -> list[Tensor]:
    """Return views (..., H, W) of maps padded by `reach`: at each pixel the value of its neighbour
    at each offset.
    """
    height = padded.shape[-2] - 2 * reach
    width = padded.shape[-1] - 2 * reach
    return [
        padded[..., reach + dy : reach + dy + height, reach + dx : reach + dx + width]
        for dy, dx in offsets
    ]
