"""Pictures of any size in bounded memory: parts of resized maps, overlapping windows, labels strip
by strip.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from clip.loader import PATCH
from clip.resize import resize
from model.losses import IGNORE
from utils.inference.crf import crf
from utils.inference.multi_scale import SMALLEST, Segment, shrunk
from utils.settings.running import CRFSettings

STRIP = 2**22  # values of a score map that are held at a time
CRF_LONGEST = 1024  # px; pictures larger than this and resize_long are shrunk for the CRF
CRF_SIDE = 768  # px of a window of the CRF
CRF_OVERLAP = 192  # px that such windows share
OVERLAP_SHARE = 4  # windows of the network overlap by a quarter of their side


def windows(length: int, side: int, overlap: int, step: int = 1) -> list[slice]:
    """Return spans of `side` (or `length` if that is less) that cover 0..length, each sharing
    `overlap` or more with the next.

    They start at multiples of `step`, which divides length, side and overlap.
    """
    side = min(side, length)
    count = 1
    if side < length:
        count += -(-(length - side) // (side - overlap))
    starts = [i * (length - side) // max(1, count - 1) // step * step for i in range(count)]
    return [slice(start, start + side) for start in starts]


def resize_part(
    maps: Tensor, size: Sequence[int], rows: slice, columns: slice | None = None
) -> Tensor:
    """Return `resize(maps, size)[..., rows, columns]` of maps (B, C, h, w), without the rest; uint8
    maps give float32.
    """
    maps = _interpolated(maps, 2, size[0], rows)
    if columns is None:
        return resize(maps, (maps.shape[2], size[1]))
    return _interpolated(maps, 3, size[1], columns)


def label_map(
    logits: Tensor, size: Sequence[int], allowed: Tensor | None = None, least: float = 0.0
) -> Tensor:
    """Return the argmax of logits (1, C, h, w) at `size`, (H, W) uint8; labels not `allowed` (C,)
    are left out.

    least: of scores that are not negative, the share of a pixel's sum that the highest needs; below
    it the pixel is IGNORE.
    """
    height, width = size
    strip = max(1, STRIP // (logits.shape[1] * width))
    labels = torch.empty(height, width, dtype=torch.uint8, device=logits.device)

    for top in range(0, height, strip):
        rows = slice(top, min(top + strip, height))
        scores = _allowed(resize_part(logits, size, rows)[0], allowed)
        highest = scores.max(0)  # on the CPU a third of argmax's time
        labels[rows] = highest.indices
        if least:
            labels[rows][highest.values < least * scores.sum(0)] = IGNORE

    return labels


def crf_labels(
    image: Tensor,
    logits: Tensor,
    allowed: Tensor | None,
    backend: str,
    longest: int,
    settings: CRFSettings = CRFSettings(),
) -> Tensor:
    """Return labels (H, W) uint8 of the dense CRF on a picture (3, H, W) uint8 seen as a whole,
    with logits (1, C, h, w).

    A side over `longest` px is brought to that for the CRF, whose kernels would else be small
    beside a patch.
    """
    size = image.shape[-2:]
    image = shrunk(image, longest)
    probs = _allowed(resize(logits, image.shape[-2:])[0], allowed).softmax(0)

    plausible, marginals = crf(image.permute(1, 2, 0), probs, backend=backend, settings=settings)
    return plausible.to(torch.uint8)[label_map(marginals[None], size).long()]


def crf_labels_by_windows(
    image: Tensor,
    logits: Tensor,
    allowed: Tensor | None,
    backend: str,
    settings: CRFSettings = CRFSettings(),
) -> Tensor:
    """Do as `crf_labels`, at the picture's own size.

    Each window keeps its part up to the middle of what it shares with the next, further from its
    border than the CRF's kernels reach.
    """
    size = image.shape[-2:]
    labels = torch.empty(size, dtype=torch.uint8, device=image.device)

    for rows, own_rows in _cores(windows(size[0], CRF_SIDE, CRF_OVERLAP)):
        for columns, own_columns in _cores(windows(size[1], CRF_SIDE, CRF_OVERLAP)):
            scores = resize_part(logits, size, rows, columns)[0]
            probs = _allowed(scores, allowed).softmax(0)
            part = image[:, rows, columns].permute(1, 2, 0)
            plausible, marginals = crf(part, probs, backend=backend, settings=settings)

            inner = _within(own_rows, rows), _within(own_columns, columns)
            winner = marginals.max(0).indices[inner]
            labels[own_rows, own_columns] = plausible[winner].to(torch.uint8)
    return labels


def sliding(
    segment: Segment,
    image: Tensor,
    prepare: Callable[[Tensor], Tensor],
    side: int,
    scales: Sequence[float],
) -> tuple[Tensor, Tensor]:
    """Do as `inference.multi_scale` with mirror images, for a picture at its own size, by windows
    of about `side` px.

    image (1, 3, H, W) uint8; `prepare` normalises a window. Each scale brings the sides to the
    nearest multiples of a patch. Windows are weighted by a bell and added up on the patch grid, so
    that no seam remains and memory grows with the grid alone.
    """
    window = max(SMALLEST, side // PATCH * PATCH)

    def at(scale: float) -> tuple[Tensor, Tensor]:
        """Return logits at one scale, plain and averaged with those of the mirror image."""
        size = [max(SMALLEST, round(length * scale / PATCH) * PATCH) for length in image.shape[-2:]]
        return _one_scale(segment, image, prepare, window, size)

    single, total = at(scales[0])
    for scale in scales[1:]:
        _, mean = at(scale)
        total = total + resize(mean, total.shape[-2:])
    return single, total / len(scales)


def _one_scale(
    segment: Segment,
    image: Tensor,
    prepare: Callable[[Tensor], Tensor],
    side: int,
    size: Sequence[int],
) -> tuple[Tensor, Tensor]:
    """Return logits (1, K+1, h, w) of the picture at `size`, plain and averaged with its mirror
    image.
    """
    overlap = max(PATCH, side // OVERLAP_SHARE // PATCH * PATCH)
    grid = [length // PATCH for length in size]
    weights = torch.zeros(1, 1, *grid, dtype=torch.float32, device=image.device)
    totals: list[Tensor] = []

    for rows in windows(size[0], side, overlap, PATCH):
        for columns in windows(size[1], side, overlap, PATCH):
            part = prepare(resize_part(image, size, rows, columns))
            plain, mirrored = segment(torch.cat([part, part.flip(3)])).float().split(1)
            if not totals:
                totals = [plain.new_zeros(1, plain.shape[1], *weights.shape[2:]) for _ in range(2)]
            bell = _bell(plain.shape[-2:]).to(plain)
            across, down = (
                slice(span.start // PATCH, span.stop // PATCH) for span in (columns, rows)
            )
            place = (..., down, across)
            weights[place] += bell
            totals[0][place] += bell * plain
            totals[1][place] += bell * (plain + mirrored.flip(3)) / 2

    return totals[0] / weights, totals[1] / weights


def _bell(grid: Sequence[int]) -> Tensor:
    """Return (h, w) weights that fall smoothly from the middle towards 0 at the border."""
    places = (torch.arange(n, dtype=torch.float32) for n in grid)
    rows, columns = (torch.sin(torch.pi * (at + 0.5) / len(at)) ** 2 for at in places)
    return rows[:, None] * columns


def _cores(spans: list[slice]) -> Iterator[tuple[slice, slice]]:
    """Return each span with the part of it that ends in the middle of what it shares with its
    neighbours.
    """
    cuts = [(here.stop + after.start) // 2 for here, after in itertools.pairwise(spans)]
    for span, start, stop in zip(spans, [spans[0].start, *cuts], [*cuts, spans[-1].stop]):
        yield span, slice(start, stop)


def _within(inner: slice, outer: slice) -> slice:
    return slice(inner.start - outer.start, inner.stop - outer.start)


def _interpolated(maps: Tensor, axis: int, length: int, part: slice) -> Tensor:
    """Return positions `part` of one axis of maps (B, C, h, w) when it is brought to `length`."""
    source = maps.shape[axis]
    place = torch.arange(part.start, part.stop, dtype=torch.float32, device=maps.device)
    place = ((place + 0.5) * (source / length) - 0.5).clamp(0, source - 1)
    low = place.long()
    share = (place - low).view(-1, *(1,) * (3 - axis))
    near, far = (
        maps.index_select(axis, at).float() for at in (low, (low + 1).clamp_max(source - 1))
    )
    return torch.lerp(near, far, share)


def _allowed(scores: Tensor, allowed: Tensor | None) -> Tensor:
    """Return scores (C, H, W) with those of labels that are not allowed (C,) at minus infinity."""
    if allowed is None:
        return scores
    return scores.masked_fill(~allowed[:, None, None], -torch.inf)
