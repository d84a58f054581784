"""From pixels to outlines: the connected regions of a label map, and the polygon around each.

An outline runs along the edges of pixels, in the coordinates of `datasets.polygons`, which finds
the same pixels again. A hole is joined to what surrounds it by a slit of no width (a keyhole), as a
polygon is one ring.
"""

from itertools import pairwise

import numpy as np
from scipy import ndimage

from datasets.specs import IGNORE

# The sides of a pixel, clockwise, each gone along towards the neighbour across the next one.
TOP, RIGHT, BOTTOM, LEFT = range(4)
ACROSS = np.array([(0, -1), (1, 0), (0, 1), (-1, 0)])  # x and y from a pixel to its neighbour
END = np.array([(1, 0), (1, 1), (0, 1), (0, 0)])  # x and y from a pixel to the end of a side
OUTSIDE = -1  # the picture's surroundings, which are no background either


def regions(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number the regions of equal labels that hang together by sides of pixels, not by corners.

    Args:
        labels: (H, W) uint8; background (0) and ignored pixels (255) are of no region.

    Returns:
        (H, W) int32 numbers from 1, 0 for no region; (n,) uint8 label of each number, ascending.
    """
    numbers = np.zeros(labels.shape, np.int32)
    found: list[int] = []

    for label, box in enumerate(ndimage.find_objects(labels), 1):
        if box is None or label == IGNORE:
            continue
        # OpenCV 4.5.5 crashes where it is asked for this
        parts, count = ndimage.label(labels[box] == label)
        numbers[box] += np.where(parts > 0, parts + len(found), 0)
        found += [label] * count

    return numbers, np.array(found, np.uint8)


def run_lengths(numbers: np.ndarray) -> list[list[int]]:
    """Count the pixels outside and inside of each numbered object in turn, down the columns, as
    COCO's run lengths do.

    numbers: (H, W) int32, from 1; 0 is outside of all.
    """
    flat = numbers.ravel(order="F")
    begin = np.flatnonzero(np.diff(flat, prepend=-1))
    end = np.append(begin[1:], flat.size)

    order = np.argsort(flat[begin], kind="stable")
    bounds = np.stack([begin, end], 1)[order]
    first = np.searchsorted(flat[begin][order], np.arange(1, numbers.max() + 2))
    found = []
    for one, other in pairwise(first.tolist()):
        edges = [0, *bounds[one:other].ravel().tolist(), flat.size]
        counts = np.diff(edges).tolist()
        if counts[-1] == 0:
            counts.pop()
        found.append(counts)
    return found


def rings(numbers: np.ndarray, tolerance: float = 0, inset: float = 0) -> list[np.ndarray]:
    """Trace one polygon around each region, with its holes joined to it by keyholes.

    Args:
        numbers: (H, W) int32 from `regions`.
        tolerance: how far an outline may leave the edges of pixels, px; 0 keeps every corner. What
            two regions share is simplified in the same way for both, so that no gap opens. It is
            halved for a region whose area would change by more than a quarter.
        inset: how far vertices are moved into their region, px, below 1/2. With a little of it,
            each lies in a pixel of the region, also for tools that round coordinates down and draw
            the outline too.

    Returns:
        (m, 2) float64 x and y, px, of each region, clockwise on the screen; the last vertex joins
        the first.
    """
    loops = _Loops(np.pad(numbers, 1, constant_values=OUTSIDE))
    outer = loops.join_holes()

    return [_ring(loops, start, tolerance, inset) for start in outer]


def _ring(loops: "_Loops", start: int, tolerance: float, inset: float) -> np.ndarray:
    order = loops.from_vertex(start)
    points = loops.points[order]

    if tolerance > 0:
        kept = _simplified(points, loops.fixed[order], tolerance)
        order = order[kept]
        points = points[kept]

    points = points + inset * loops.inward[order]
    return points[(points != np.roll(points, 1, 0)).any(1)]  # a keyhole may begin at a corner


class _Loops:
    """The borders of regions as loops of vertices, in linked lists.

    A vertex is where a border turns, or where more than two regions meet.

    points: (n, 2) x and y, px. inward: (n, 2) direction into the region, -1, 0 or 1 each. fixed:
    (n,) whether simplification must keep the vertex. after: the next vertex of each.
    """

    def __init__(self, numbers: np.ndarray) -> None:
        """numbers: (H + 2, W + 2) of regions within a rim of OUTSIDE."""
        self._numbers = numbers
        self._flat = numbers.ravel()
        self._steps = ACROSS @ (1, numbers.shape[1])
        pixel, side = self._borders()
        straight, turn, following = self._followed(pixel, side)

        column = pixel % numbers.shape[1] - 1
        row = pixel // numbers.shape[1] - 1
        ends = np.stack([column, row], 1) + END[side]
        meeting = self._meeting(ends)

        # the vertex to which each side leads, along those straight ahead
        last = np.arange(len(pixel))
        passed = straight & ~meeting
        last[passed] = following[passed]
        while passed[last].any():
            last = last[last]
        vertices = np.flatnonzero(~passed)
        self._led_to = np.searchsorted(vertices, last)

        self.points = ends[vertices]
        self.inward = -np.sign(ACROSS[side] + ACROSS[turn])[vertices]
        self.fixed = meeting[vertices]
        self.after = self._led_to[following[vertices]]
        self._region = self._flat[pixel[vertices]]
        self._turn = turn[vertices]

    def _borders(self) -> tuple[np.ndarray, np.ndarray]:
        """Find the sides at which regions end: (e,) pixel in the flat map and (e,) side."""
        inner = self._numbers[1:-1, 1:-1]
        height, width = inner.shape
        keys = []
        for side, (x, y) in enumerate(ACROSS + 1):
            across = self._numbers[y : y + height, x : x + width]
            row, column = np.nonzero((inner > 0) & (inner != across))
            keys.append(4 * ((row + 1) * (width + 2) + column + 1) + side)
        self._keys = np.sort(np.concatenate(keys))
        return self._keys // 4, self._keys % 4

    def _followed(self, pixel: np.ndarray, side: np.ndarray) -> tuple[np.ndarray, ...]:
        """Find what follows each side: whether that is straight ahead, which side of its own pixel
        it is, and its place among all, (e,) each.
        """
        onward = (side + 1) % 4
        backward = (side - 1) % 4
        ahead = pixel + self._steps[onward]
        convex = self._flat[ahead] != self._flat[pixel]
        beside = np.where(convex, pixel, ahead + self._steps[side])
        reflex = ~convex & (self._flat[beside] == self._flat[pixel])

        turn = np.where(convex, onward, np.where(reflex, backward, side))
        place = np.where(convex | reflex, beside, ahead)
        following = np.searchsorted(self._keys, 4 * place + turn)
        return ~convex & ~reflex, turn, following

    def _meeting(self, points: np.ndarray) -> np.ndarray:
        """Tell at which points (n, 2) more than two regions meet, or two by their corners."""
        x, y = points.T
        around = np.stack([self._numbers[y + dy, x + dx] for dx, dy in END], 1)  # clockwise
        changes = (around != np.roll(around, 1, 1)).sum(1)
        return changes > 2

    def join_holes(self) -> list[int]:
        """Join every hole to what surrounds it; return a vertex of each region's outline, in the
        order of their numbers.

        A keyhole leads from the topmost of the leftmost corners of the hole to the left, through
        pixels of the region, to its border.
        """
        starts = self._leftmost()
        self.fixed[starts] = True
        before = np.argsort(self.after).tolist()
        after = self.after.tolist()
        added: list[tuple[int, int]] = []
        inward: list[tuple[int, int]] = []

        holes = starts[self._turn[starts] == RIGHT]
        # of several keyholes that end at one side, which is gone along upwards, the lowest first
        for hole in holes[np.argsort(-self.points[holes, 1])].tolist():
            x, y = self.points[hole].tolist()
            left, corner = self._to_the_left(x, y)
            there, first, again, back = range(len(after), len(after) + 4)
            added += [(left, y), (x, y), (x, y), (left, y)]
            inward += [(1, 1), (-1, 1), (-1, 1), (1, 1)]

            way = [before[corner], there, first, after[hole]]
            way_back = [hole, again, back, corner]
            after += [0] * 4
            before += [0] * 4
            for one, other in (*pairwise(way), *pairwise(way_back)):
                after[one] = other
                before[other] = one

        if added:
            self.points = np.concatenate([self.points, added])
            self.inward = np.concatenate([self.inward, inward])
            self.fixed = np.concatenate([self.fixed, np.ones(len(added), bool)])
        self.after = np.array(after)

        outer = starts[self._turn[starts] != RIGHT]
        return outer[np.argsort(self._region[outer])].tolist()

    def _leftmost(self) -> np.ndarray:
        """Find the topmost of the leftmost vertices of each loop."""
        rank = np.empty(len(self.points), np.int64)
        order = np.lexsort(self.points.T[::-1])
        rank[order] = np.arange(len(order))

        least = rank
        onward = self.after
        reach = 1  # vertices that `least` is of
        while reach < len(rank):
            least = np.minimum(least, least[onward])
            onward = onward[onward]
            reach *= 2
        return np.flatnonzero(least == rank)

    def _to_the_left(self, x: int, y: int) -> tuple[int, int]:
        """Find where the pixels of one region to the left of a point, in the row below it, begin:
        x, and the vertex to which that side leads.
        """
        row = self._numbers[y + 1, : x + 1]
        begin = int(np.flatnonzero(row != row[-1])[-1]) + 1
        key = 4 * ((y + 1) * self._numbers.shape[1] + begin) + LEFT
        return begin - 1, int(self._led_to[np.searchsorted(self._keys, key)])

    def from_vertex(self, start: int) -> np.ndarray:
        """Return the vertices of a loop in their order, from one of them on."""
        order = [start]
        while (vertex := int(self.after[order[-1]])) != start:
            order.append(vertex)
        return np.array(order)


def _simplified(points: np.ndarray, fixed: np.ndarray, tolerance: float) -> np.ndarray:
    """Choose which vertices (n, 2) of a ring to keep, (n,) bool; the first is fixed."""
    kept = np.zeros(len(points), bool)
    closed = np.concatenate([points, points[:1]])
    for first, last in pairwise([*np.flatnonzero(fixed), len(points)]):
        kept[first:last] = _needed(closed[first : last + 1], tolerance)[:-1]

    if _is_another_size(points[kept], points):
        return _simplified(points, fixed, tolerance / 2)
    return kept


def _needed(chain: np.ndarray, tolerance: float) -> np.ndarray:
    """Choose which vertices (m, 2) of an open or closed chain to keep, (m,) bool; the same
    whichever way the chain is gone.
    """
    reverse = chain[::-1]
    if chain.tolist() > reverse.tolist():
        return _needed(reverse, tolerance)[::-1]

    kept = _farthest_first(chain, tolerance)
    is_closed = (chain[0] == chain[-1]).all()
    if is_closed and _is_another_size(chain[kept], chain):
        return _needed(chain, tolerance / 2)
    return kept


def _farthest_first(chain: np.ndarray, tolerance: float) -> np.ndarray:
    """Choose vertices (m, 2) until none is farther than `tolerance` from what joins them, px.

    Source: Douglas and Peucker, 1973, with distances to the segment instead of the line.
    """
    kept = np.zeros(len(chain), bool)
    kept[[0, -1]] = True
    parts = [(0, len(chain) - 1)]

    while parts:
        first, last = parts.pop()
        if last - first < 2:
            continue
        distances = _distances(chain[first + 1 : last], chain[first], chain[last])
        farthest = int(distances.argmax())
        if distances[farthest] > tolerance:
            middle = first + 1 + farthest
            kept[middle] = True
            parts += [(first, middle), (middle, last)]

    return kept


def _distances(points: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return the distances of points (n, 2) to the segment between two, px."""
    way = end - start
    offsets = points - start
    along = (offsets @ way / max(way @ way, 1)).clip(0, 1)
    return np.hypot(*(offsets - along[:, None] * way).T)


def _is_another_size(points: np.ndarray, exact: np.ndarray) -> bool:
    """Tell whether two rings of vertices differ in area by more than a quarter of the second's."""
    area = _area(exact)
    return 4 * abs(_area(points) - area) > abs(area)


def _area(points: np.ndarray) -> float:
    """Return the area within a ring of vertices (n, 2), positive if clockwise on the screen."""
    x, y = points.T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2
