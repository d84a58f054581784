"""Vector drawing in object units: a list of filled polygons, each with the name of its tone."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

import numpy as np

T = TypeVar("T")
Point = tuple[float, float]
_CIRCLE = np.linspace(0.0, 2 * math.pi, 24, endpoint=False)
_ROUND = np.stack([np.cos(_CIRCLE), np.sin(_CIRCLE)], axis=1)  # (24, 2) unit circle


class Pen:
    """Collects `parts`, polygons ((P, 2) float, tone), painted in order: x to the right, y down,
    about -1..1.

    All chance comes from the generator it is given, so a drawing is a pure function of it.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.parts: list[tuple[np.ndarray, str]] = []

    def vary(self, low: float, high: float) -> float:
        """Draw a uniform number in [low, high)."""
        return low + (high - low) * self.rng.random()

    def chance(self, probability: float) -> bool:
        """Return True with this probability (0-1)."""
        return self.rng.random() < probability

    def pick(self, options: Sequence[T]) -> T:
        """Pick one of the options, all equally likely."""
        return options[int(self.rng.random() * len(options))]

    def poly(self, tone: str, *points: Point) -> None:
        """Fill the polygon with these corners."""
        self.parts.append((np.array(points, dtype=np.float64), tone))

    def blob(self, tone: str, *points: Point) -> None:
        """Fill a smooth closed outline near these corners (two rounds of Chaikin's corner cutting,
        1974).
        """
        outline = np.array(points, dtype=np.float64)
        for _ in range(2):
            after = np.concatenate([outline[1:], outline[:1]])
            outline = np.stack(
                [0.75 * outline + 0.25 * after, 0.25 * outline + 0.75 * after], axis=1
            ).reshape(-1, 2)
        self.parts.append((outline, tone))

    def box(self, tone: str, left: float, top: float, right: float, bottom: float) -> None:
        """Fill an upright rectangle."""
        self.poly(tone, (left, top), (right, top), (right, bottom), (left, bottom))

    def oval(
        self, tone: str, x: float, y: float, rx: float, ry: float | None = None, turn: float = 0.0
    ) -> None:
        """Fill an ellipse around (x, y) with half axes rx, ry (ry = rx if left out), turned by
        `turn` degrees.
        """
        angle = math.radians(turn)
        cos = math.cos(angle)
        sin = math.sin(angle)
        axes = np.array([[rx * cos, rx * sin], [-(ry or rx) * sin, (ry or rx) * cos]])
        self.parts.append((_ROUND @ axes + (x, y), tone))

    def bar(self, tone: str, width: float, *points: Point) -> None:
        """Fill a thick line through the points, round at its inner joints and flat at its ends."""
        for (x0, y0), (x1, y1) in pairwise(points):
            reach = width / 2 / (math.hypot(x1 - x0, y1 - y0) + 1e-6)
            nx, ny = -(y1 - y0) * reach, (x1 - x0) * reach
            self.poly(
                tone, (x0 + nx, y0 + ny), (x1 + nx, y1 + ny), (x1 - nx, y1 - ny), (x0 - nx, y0 - ny)
            )
        for x, y in points[1:-1]:
            self.oval(tone, x, y, width / 2)

    def eye(self, x: float, y: float, radius: float) -> None:
        """Draw a white eye with a dark pupil."""
        self.oval("white", x, y, radius)
        self.oval("dark", x, y, 0.55 * radius)
