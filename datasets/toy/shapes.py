"""The registry: how each VOC class is drawn, which colours and patterns it usually has, and where
it usually is.
"""

from collections.abc import Callable
from dataclasses import dataclass

from datasets.specs import VOC
from datasets.toy import bipeds, household, quadrupeds, vehicles
from datasets.toy.pen import Pen

Hsv = tuple[float, float, float]  # hue in degrees, saturation and value 0-1


@dataclass(frozen=True)
class Shape:
    """One class: its drawing, usual tones (HSV), usual patterns of its body, usual backgrounds, and
    tilt.

    `homes` are stuff words of `backdrop`; `tilt` is the standard deviation of the rotation in
    degrees.
    """

    draw: Callable[[Pen], None]
    bodies: tuple[Hsv, ...]
    accents: tuple[Hsv, ...]
    patterns: tuple[str, ...]
    homes: tuple[str, ...]
    tilt: float = 4.0


_BLACK = (0, 0.0, 0.15)
_WHITE = (40, 0.03, 0.95)
_GREY = (210, 0.05, 0.7)
_RED = (356, 0.82, 0.78)
_BLUE = (216, 0.75, 0.72)
_GREEN = (125, 0.65, 0.5)
_YELLOW = (47, 0.85, 0.92)
_BROWN = (24, 0.62, 0.42)
_CHESTNUT = (16, 0.72, 0.5)
_TAN = (33, 0.5, 0.82)
_ORANGE = (27, 0.78, 0.9)

_SHAPES = {
    "aeroplane": Shape(
        vehicles.aeroplane,
        (_WHITE, _GREY, (205, 0.25, 0.9)),
        (_BLUE, _RED),
        ("plain",),
        ("sky",),
        11,
    ),
    "bicycle": Shape(
        vehicles.bicycle, (_RED, _BLUE, _GREEN, _YELLOW), (_BLACK,), ("plain",), ("road", "wall")
    ),
    "bird": Shape(
        bipeds.bird,
        (_BLUE, _RED, _YELLOW, _BROWN),
        ((225, 0.6, 0.4), (28, 0.6, 0.35), _BLACK),
        ("grain", "blotch"),
        ("sky", "tree"),
        9,
    ),
    "boat": Shape(
        vehicles.boat,
        (_RED, (222, 0.7, 0.5), _BROWN, _WHITE),
        (_BLUE, _RED, _ORANGE),
        ("plain", "plank"),
        ("water",),
        6,
    ),
    "bottle": Shape(
        household.bottle,
        ((130, 0.72, 0.4), (22, 0.85, 0.38), (188, 0.5, 0.7)),
        (_RED, _YELLOW, _BLUE),
        ("plain",),
        ("wall",),
        8,
    ),
    "bus": Shape(
        vehicles.bus,
        (_YELLOW, _RED, (150, 0.55, 0.5)),
        (_WHITE, _BLUE),
        ("plain",),
        ("road", "building"),
    ),
    "car": Shape(
        vehicles.car,
        (_RED, _BLUE, _GREY, _YELLOW, _BLACK),
        ((220, 0.06, 0.4), _GREY),
        ("plain", "cloud"),
        ("road", "building"),
    ),
    "cat": Shape(
        quadrupeds.cat,
        (_ORANGE, (32, 0.12, 0.52), (0, 0.0, 0.22), (36, 0.3, 0.85)),
        (_BROWN,),
        ("stripe", "stripe", "grain"),
        ("wall", "grass"),
        6,
    ),
    "chair": Shape(
        household.chair,
        ((30, 0.62, 0.75), _BROWN, _RED),
        (_RED, _BLUE, _GREEN),
        ("plank", "plain"),
        ("wall", "ground"),
    ),
    "cow": Shape(
        quadrupeds.cow, (_WHITE, _WHITE, _CHESTNUT), (_BLACK,), ("plain",), ("grass", "mountain")
    ),
    "diningtable": Shape(
        household.diningtable,
        (_BROWN, _TAN),
        (_BLUE, _RED, _GREEN),
        ("plank", "plain"),
        ("wall", "ground"),
    ),
    "dog": Shape(
        quadrupeds.dog,
        (_TAN, _BROWN, (38, 0.14, 0.92)),
        ((22, 0.65, 0.3), _BROWN, _BLACK),
        ("grain", "blotch"),
        ("grass", "ground"),
        6,
    ),
    "horse": Shape(
        quadrupeds.horse,
        (_CHESTNUT, (14, 0.7, 0.32), (28, 0.5, 0.62)),
        (_RED, _BLUE),
        ("plain", "cloud"),
        ("grass", "ground"),
    ),
    "motorbike": Shape(
        vehicles.motorbike, (_RED, _BLUE, _GREEN, _BLACK), (_GREY,), ("plain",), ("road",)
    ),
    "person": Shape(
        bipeds.person,
        (_BLUE, _RED, _GREEN, _WHITE, _YELLOW),
        ((220, 0.5, 0.4), _BROWN, _BLACK),
        ("plain", "check", "stripe"),
        ("road", "building", "ground"),
    ),
    "pottedplant": Shape(
        household.pottedplant,
        (_CHESTNUT,),
        (_RED, _YELLOW, (320, 0.5, 0.9)),
        ("plain",),
        ("wall", "ground"),
    ),
    "sheep": Shape(
        quadrupeds.sheep,
        (_WHITE, (42, 0.14, 0.9), (35, 0.1, 0.75)),
        (_BLACK,),
        ("blotch", "dots"),
        ("grass", "mountain"),
    ),
    "sofa": Shape(
        household.sofa,
        ((285, 0.45, 0.5), (180, 0.5, 0.5), (345, 0.65, 0.5), _TAN),
        (_YELLOW, _WHITE),
        ("check", "dots", "plain"),
        ("wall", "ground"),
    ),
    "train": Shape(
        vehicles.train,
        ((200, 0.7, 0.5), (140, 0.6, 0.42), _GREY, _RED),
        (_YELLOW, _ORANGE, _RED),
        ("plain",),
        ("railroad",),
    ),
    "tvmonitor": Shape(household.tvmonitor, (_BLACK,), (_GREY,), ("plain",), ("wall",)),
}
SHAPES: tuple[Shape, ...] = tuple(_SHAPES[name] for name in VOC.classes)
