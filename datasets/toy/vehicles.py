"""Drawings of the vehicles. Each takes a Pen and adds one object that faces right (or us)."""

import math

from datasets.toy.pen import Pen


def _wheel(pen: Pen, x: float, y: float, radius: float) -> None:
    pen.oval("tyre", x, y, radius)
    pen.oval("metal", x, y, radius * pen.vary(0.45, 0.6))
    pen.oval("tyre", x, y, radius * 0.16)


def _windows(pen: Pen, left: float, right: float, top: float, bottom: float, count: int) -> None:
    step = (right - left) / count
    for i in range(count):
        pen.box("glass", left + i * step, top, left + (i + 0.78) * step, bottom)


def aeroplane(pen: Pen) -> None:
    """Draw an airliner from the side, or from above."""
    if pen.chance(0.6):
        _plane_side(pen)
    else:
        _plane_above(pen)


def _plane_side(pen: Pen) -> None:
    fat = pen.vary(0.2, 0.25)
    span = pen.vary(0.5, 0.66)

    pen.poly("accent_dark", (0.2, -0.1), (-0.22, -0.1), (-0.5, -span), (-0.26, -span))
    pen.poly("accent", (-0.98, -0.05), (-1.04, -0.64), (-0.8, -0.64), (-0.46, -0.1))
    pen.blob(
        "body",
        (-1.12, -fat * 0.7),
        (-0.5, -fat),
        (0.5, -fat),
        (0.96, -fat * 0.6),
        (1.06, fat * 0.3),
        (0.8, fat),
        (-0.4, fat),
        (-0.9, fat * 0.4),
    )
    pen.poly("glass", (0.76, -fat * 0.66), (0.92, -0.02), (0.66, -0.02), (0.64, -fat * 0.66))
    pen.box("accent", -0.8, 0.0, 0.5, 0.07)

    for i in range(7):
        pen.oval("dark", -0.6 + 0.16 * i, -0.08, 0.04)

    pen.poly("accent", (-1.12, -0.08), (-0.72, -0.02), (-0.92, 0.14), (-1.14, 0.14))
    pen.oval("metal", 0.02, 0.3, 0.2, 0.1)
    pen.poly("metal", (0.36, 0.04), (-0.24, 0.04), (-0.6, span), (-0.28, span))


def _plane_above(pen: Pen) -> None:
    fat = pen.vary(0.17, 0.21)
    sweep = pen.vary(0.1, 0.3)
    for side in (-1, 1):
        pen.poly("metal", (0, -0.34), (side * 0.98, sweep), (side * 0.98, sweep + 0.2), (0, 0.28))
        pen.poly("accent", (0, 0.58), (side * 0.44, 0.78), (side * 0.44, 0.98), (0, 0.9))
        pen.oval("accent", side * 0.45, sweep - 0.12, 0.09, 0.17)
    pen.oval("body", 0, 0, fat, 1.0)
    pen.oval("glass", 0, -0.8, fat * 0.5, 0.07)
    pen.bar("accent", 0.08, (0, 0.5), (0, 0.98))


def bicycle(pen: Pen) -> None:
    """Draw a bicycle whose wheels are pale discs with spokes and whose main triangle is filled, so
    that all is solid.
    """
    radius = pen.vary(0.42, 0.48)
    x = pen.vary(0.56, 0.62)
    y = 0.36

    for side in (-1, 1):
        pen.oval("tyre", side * x, y, radius)
        pen.oval("disc", side * x, y, radius * 0.84)
        start = pen.vary(0, math.pi)
        for spoke in range(4):
            dx, dy = (radius * 0.84 * f(start + spoke * math.pi / 4) for f in (math.cos, math.sin))
            pen.bar("steel", 0.035, (side * x - dx, y - dy), (side * x + dx, y + dy))
        pen.oval("steel", side * x, y, 0.08)

    seat = (-0.24, -0.26)
    head = (0.34, -0.3)
    crank = (-0.04, y)
    pen.poly("body_light", seat, head, crank)
    for start_point, end_point in (
        (seat, head),
        (seat, crank),
        (head, crank),
        ((-x, y), seat),
        ((-x, y), crank),
    ):
        pen.bar("body", 0.11, start_point, end_point)

    pen.bar("body", 0.1, (x, y), (0.32, -0.46))
    pen.bar("dark", 0.09, (0.16, -0.54), (0.34, -0.5), (0.52, -0.6))
    pen.bar("body", 0.08, seat, (-0.28, -0.42))
    pen.blob("dark", (-0.5, -0.54), (-0.08, -0.48), (-0.08, -0.4), (-0.46, -0.36))
    pen.oval("steel", *crank, 0.13)


def motorbike(pen: Pen) -> None:
    """Draw a motorcycle: fat dark wheels, engine block, tank, long seat, exhaust and headlamp."""
    radius = pen.vary(0.33, 0.38)
    x = pen.vary(0.6, 0.66)
    y = 0.4

    for side in (-1, 1):
        _wheel(pen, side * x, y, radius)

    pen.bar("metal", 0.12, (x, y), (0.34, -0.4))
    pen.poly("dark", (-0.5, 0.0), (0.36, -0.06), (0.3, 0.48), (-0.3, 0.5))
    pen.oval("metal", 0.04, 0.26, 0.2, 0.18)
    pen.bar("metal", 0.12, (0.1, 0.5), (-0.9, 0.48))
    pen.blob("body", (-0.98, -0.16), (-0.5, -0.16), (-0.2, 0.1), (-0.5, 0.24), (-0.86, 0.08))
    pen.blob("dark", (-0.84, -0.26), (-0.2, -0.1), (-0.14, 0.06), (-0.6, 0.02))
    pen.blob(
        "body",
        (-0.3, -0.04),
        (-0.06, -0.36),
        (0.38, -0.36),
        (0.48, -0.06),
        (0.26, 0.14),
        (-0.2, 0.12),
    )
    if pen.chance(0.5):
        pen.poly("body", (0.3, -0.3), (0.42, -0.56), (0.66, -0.26), (0.62, 0.1), (0.36, 0.16))

    pen.blob(
        "body",
        (x - 0.32, y - radius + 0.08),
        (x - 0.06, y - radius - 0.14),
        (x + 0.34, y - radius + 0.1),
        (x, y - radius + 0.06),
    )
    pen.bar("dark", 0.09, (0.14, -0.58), (0.36, -0.46))
    pen.oval("lamp", 0.56, -0.26, 0.12)


def boat(pen: Pen) -> None:
    """Draw a sailing boat with full sails, or a motor vessel with a cabin."""
    length = pen.vary(0.85, 1.0)
    if pen.chance(0.6):
        height = pen.vary(0.85, 1.05)
        pen.bar("wood", 0.08, (0, 0.3), (0, -height - 0.06))
        pen.poly("sail", (0.02, -height), (0.02, 0.18), (0.76, 0.14))
        pen.poly(pen.pick(("accent", "sail")), (-0.02, -height + 0.1), (-0.02, 0.16), (-0.62, 0.14))
    else:
        pen.box("sail", -0.6, -0.2, 0.36, 0.3)
        _windows(pen, -0.54, 0.38, -0.1, 0.08, 4)
        pen.box("sail", -0.42, -0.46, 0.14, -0.2)
        pen.box("glass", -0.16, -0.4, 0.1, -0.26)
        pen.box("accent", -0.36, -0.78, -0.16, -0.46)
        pen.box("dark", -0.36, -0.78, -0.16, -0.7)

    pen.poly(
        "body", (-length, 0.18), (length + 0.08, 0.14), (length * 0.7, 0.66), (-length * 0.8, 0.66)
    )
    pen.poly(
        "accent", (-length, 0.18), (length + 0.08, 0.14), (length, 0.28), (-length * 0.96, 0.3)
    )
    if pen.chance(0.4):
        for i in range(4):
            pen.oval("white", -0.5 + 0.3 * i, 0.44, 0.06)


def bus(pen: Pen) -> None:
    """Draw a long box with a row of windows, a door and two wheels; at times a second deck."""
    half = pen.vary(0.88, 1.0)
    height = pen.vary(0.48, 0.56)
    count = int(pen.vary(4, 7))

    if pen.chance(0.3):
        pen.box("body", -half, -height - 0.46, half, -height + 0.1)
        _windows(pen, -half + 0.08, half, -height - 0.36, -height - 0.1, count + 1)

    pen.poly(
        "body",
        (-half, -height),
        (half - 0.06, -height),
        (half, -height + 0.1),
        (half, height),
        (-half, height),
    )
    pen.box("accent", -half, 0.14, half, 0.28)
    _windows(pen, -half + 0.08, half - 0.46, -height + 0.12, 0.04, count)
    pen.box("glass", half - 0.16, -height + 0.12, half, 0.12)
    pen.box("body_dark", half - 0.44, -height + 0.1, half - 0.2, height)
    pen.box("glass", half - 0.41, -height + 0.14, half - 0.23, 0.2)
    pen.box("dark", -half, height - 0.06, half, height)

    for side in (-0.56, 0.36):
        _wheel(pen, side * half, height, 0.19)

    pen.oval("lamp", half - 0.05, 0.36, 0.07)


def car(pen: Pen) -> None:
    """Draw a low car with bonnet and boot, two side windows, lamps and two large wheels."""
    roof = pen.vary(0.38, 0.46)
    back = pen.vary(-0.72, -0.5)

    pen.blob(
        "body",
        (back - 0.2, 0.0),
        (back + 0.16, -roof - 0.04),
        (0.26, -roof - 0.06),
        (0.66, 0.02),
        (0.2, 0.1),
    )
    pen.poly("body", (back - 0.06, -0.03), (back + 0.12, -roof), (0.22, -roof), (0.54, -0.03))
    pen.poly(
        "glass",
        (back + 0.06, -0.04),
        (back + 0.18, -roof + 0.07),
        (-0.1, -roof + 0.07),
        (-0.1, -0.04),
    )
    pen.poly("glass", (-0.03, -0.04), (-0.03, -roof + 0.07), (0.19, -roof + 0.07), (0.43, -0.04))
    pen.poly(
        "body",
        (-0.98, 0.02),
        (back, -0.08),
        (0.52, -0.08),
        (0.92, 0.03),
        (1.0, 0.2),
        (0.98, 0.36),
        (-0.98, 0.36),
    )
    pen.box("accent", -0.98, 0.24, 0.98, 0.36)
    pen.bar("body_dark", 0.035, (-0.06, -0.04), (-0.06, 0.3))

    for side in (-0.58, 0.58):
        _wheel(pen, side, 0.36, pen.vary(0.21, 0.24))

    pen.oval("lamp", 0.9, 0.1, 0.08, 0.07)
    pen.box("red", -0.98, 0.06, -0.88, 0.18)


def train(pen: Pen) -> None:
    """Draw a locomotive from its front, a steam engine with tender, or a streamlined railcar."""
    kind = pen.rng.random()
    if kind < 0.4:
        _train_front(pen)
    elif kind < 0.65:
        _steam_engine(pen)
    else:
        _railcar(pen)


def _train_front(pen: Pen) -> None:
    pen.poly("dark", (-0.54, 0.6), (0.54, 0.6), (0.66, 0.98), (-0.66, 0.98))
    for x in (-0.5, 0.32):
        pen.box("metal", x, 0.7, x + 0.18, 0.98)

    pen.poly(
        "body",
        (-0.58, -0.7),
        (-0.36, -0.96),
        (0.36, -0.96),
        (0.58, -0.7),
        (0.64, 0.6),
        (0.46, 0.76),
        (-0.46, 0.76),
        (-0.64, 0.6),
    )
    for side in (-1, 1):
        pen.poly(
            "glass",
            (side * 0.06, -0.62),
            (side * 0.5, -0.58),
            (side * 0.53, -0.1),
            (side * 0.06, -0.12),
        )
        pen.oval("lamp", side * 0.42, 0.34, 0.11)

    pen.poly(
        "accent",
        (-0.62, 0.04),
        (0, pen.vary(0.12, 0.4)),
        (0.62, 0.04),
        (0.63, 0.22),
        (0, 0.5),
        (-0.63, 0.22),
    )
    pen.box("white", -0.26, -0.84, 0.26, -0.7)
    pen.box("dark", -0.46, 0.6, 0.46, 0.7)


def _steam_engine(pen: Pen) -> None:
    pen.box("dark", -1.04, 0.3, 0.98, 0.46)
    pen.box("accent", -1.08, -0.08, -0.62, 0.36)
    pen.box("body", -0.6, -0.62, -0.12, 0.36)
    pen.box("accent", -0.68, -0.72, -0.04, -0.6)
    pen.box("glass", -0.5, -0.5, -0.22, -0.18)
    pen.box("body", -0.12, -0.26, 0.84, 0.3)
    pen.oval("body_dark", 0.84, 0.02, 0.1, 0.28)
    pen.poly("dark", (0.56, -0.24), (0.5, -0.72), (0.82, -0.72), (0.76, -0.24))
    pen.oval("accent", 0.22, -0.28, 0.14, 0.13)
    pen.box("accent", 0.06, -0.26, 0.14, 0.3)
    pen.poly("red", (0.86, 0.32), (1.14, 0.6), (0.86, 0.6))

    for x in (-0.9, -0.42, 0.0, 0.4):
        _wheel(pen, x, 0.46, 0.2)

    _wheel(pen, 0.72, 0.52, 0.14)


def _railcar(pen: Pen) -> None:
    height = pen.vary(0.28, 0.34)
    pen.box("dark", -1.06, height - 0.06, 1.04, height + 0.1)
    for left in (-1.1, -0.3):
        pen.box("body", left, -height, left + 0.77, height)
        _windows(pen, left + 0.08, left + 0.76, -height + 0.1, 0.0, 4)
    pen.box("dark", -0.34, -height + 0.06, -0.29, height)
    pen.poly("body", (0.4, -height), (0.72, -height), (1.1, 0.02), (1.16, height), (0.4, height))
    pen.poly("glass", (0.66, -height + 0.07), (0.78, -height + 0.07), (1.0, 0.0), (0.66, 0.0))
    pen.box("accent", -1.1, 0.06, 1.1, 0.18)
    pen.bar("dark", 0.05, (-0.84, -height), (-0.68, -height - 0.18), (-0.5, -height - 0.18))
    for x in (-0.94, -0.68, -0.14, 0.12, 0.62, 0.88):
        pen.oval("tyre", x, height + 0.1, 0.12)
    pen.oval("lamp", 1.06, 0.14, 0.06)
