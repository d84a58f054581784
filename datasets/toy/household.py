"""Drawings of the things found in a house. Each takes a Pen and adds one object."""

import math

from datasets.toy.pen import Pen


def bottle(pen: Pen) -> None:
    """Draw a stout bottle with neck, cap and label."""
    half = pen.vary(0.3, 0.38)
    neck = pen.vary(0.1, 0.14)
    shoulder = pen.vary(-0.3, -0.12)

    pen.box("body", -neck, -0.88, neck, shoulder)
    pen.blob(
        "body",
        (-neck, shoulder - 0.3),
        (neck, shoulder - 0.3),
        (half + 0.06, shoulder + 0.1),
        (half + 0.03, 1.0),
        (-half - 0.03, 1.0),
        (-half - 0.06, shoulder + 0.1),
    )
    pen.box("accent", -neck - 0.03, -1.0, neck + 0.03, -0.8)
    pen.box("label", -half, 0.1, half, 0.66)
    pen.box("accent", -half, 0.22, half, pen.vary(0.36, 0.52))
    pen.box("white", -half * 0.78, shoulder + 0.12, -half * 0.5, 0.02)


def chair(pen: Pen) -> None:
    """Draw a chair with a solid back, a padded seat and four legs, turned a little to one side."""
    shift = pen.vary(0.06, 0.2)
    top = pen.vary(-1.0, -0.8)
    leg = pen.vary(0.12, 0.16)

    for x in (-0.34, 0.36):
        pen.bar("body_dark", leg, (x + shift, 0.1), (x + shift, 0.8))

    pen.poly(
        "body", (shift - 0.42, top), (shift + 0.44, top), (shift + 0.42, 0.06), (shift - 0.42, 0.06)
    )
    if pen.chance(0.5):
        for i in range(3):
            pen.box(
                "body_dark", shift - 0.28 + 0.22 * i, top + 0.14, shift - 0.16 + 0.22 * i, -0.02
            )
    else:
        pen.box("accent", shift - 0.3, top + 0.12, shift + 0.32, -0.08)

    for x in (-0.5, 0.36):
        pen.bar("body", leg, (x, 0.2), (x, 0.98))

    pen.poly("accent", (shift - 0.42, 0.0), (shift + 0.44, 0.0), (0.46, 0.22), (-0.6, 0.22))
    pen.box("body", -0.6, 0.2, 0.46, 0.34)


def diningtable(pen: Pen) -> None:
    """Draw a laid table seen from a little above, with a cloth that hangs down in front or a
    panelled wooden body.
    """
    half = pen.vary(0.86, 1.0)
    depth = pen.vary(0.24, 0.36)
    drop = pen.vary(0.34, 0.5)

    for x in (-0.8, 0.8):
        pen.bar("wood_dark", 0.16, (x * half, 0.1), (x * half, 0.78))
    for x in (-0.5, 0.5):
        pen.bar("wood_dark", 0.12, (x * half, 0.1), (x * half, 0.62))
    if pen.chance(0.5):
        top = "cloth"
        plate = "accent"
        middle = "white"
    else:
        top = "wood"
        plate = "white"
        middle = "accent"

    pen.poly(f"{top}_dark", (-half, 0.16), (half, 0.16), (half * 0.96, drop), (-half * 0.96, drop))
    pen.poly(top, (-half * 0.74, -depth), (half * 0.74, -depth), (half, 0.18), (-half, 0.18))
    for x in (-0.52, 0.0, 0.52):
        pen.oval(plate, x, -0.02, 0.2, 0.09)
        pen.oval(middle, x, -0.02, 0.12, 0.05)

    if pen.chance(0.5):
        pen.box("glass", 0.2, -depth - 0.16, 0.34, -depth + 0.1)


def pottedplant(pen: Pen) -> None:
    """Draw dense foliage over a tapering pot; sometimes with flowers."""
    spread = pen.vary(0.5, 0.66)
    flowers = pen.chance(0.4)

    pen.blob(
        "leaf_dark",
        (-0.2, 0.2),
        (-spread - 0.1, -0.1),
        (-spread, -0.6),
        (0, -0.86),
        (spread, -0.6),
        (spread + 0.1, -0.1),
        (0.2, 0.2),
    )
    for i in range(13):
        angle = math.pi * (1.08 + 0.84 * (i % 7) / 6) + pen.vary(-0.15, 0.15)
        reach = (0.78, 0.45)[i // 7] * pen.vary(0.85, 1.1)
        x = spread * 1.3 * reach * math.cos(angle)
        y = 0.1 + 1.1 * reach * math.sin(angle)
        pen.oval("leaf", x, y, pen.vary(0.22, 0.3), pen.vary(0.09, 0.14), math.degrees(angle))
        if flowers and i % 2:
            pen.oval("accent", x, y, 0.12)
            pen.oval("lamp", x, y, 0.05)

    pen.poly("pot", (-0.42, 0.24), (0.42, 0.24), (0.28, 0.98), (-0.28, 0.98))
    pen.box("pot_dark", -0.48, 0.14, 0.48, 0.34)


def sofa(pen: Pen) -> None:
    """Draw a wide couch: high back, two or three cushions, thick round arms, short feet."""
    half = pen.vary(0.88, 1.02)
    top = pen.vary(-0.62, -0.46)
    count = int(pen.vary(2, 4))

    for x in (-0.8, 0.8):
        pen.box("dark", x * half - 0.07, 0.44, x * half + 0.07, 0.62)

    pen.blob("body_dark", (-half, top), (half, top), (half + 0.04, 0.36), (-half - 0.04, 0.36))
    width = 2 * (half - 0.24) / count
    for i in range(count):
        left = -half + 0.24 + i * width
        pen.box("body", left + 0.015, top + 0.12, left + width - 0.015, 0.06)
        pen.box("body_light", left + 0.01, 0.05, left + width - 0.01, 0.26)

    pen.box("body", -half + 0.1, 0.28, half - 0.1, 0.5)
    for side in (-1, 1):
        inner, outer = sorted((side * (half - 0.26), side * (half + 0.02)))
        pen.box("body", inner, -0.14, outer, 0.52)
        pen.oval("body", side * (half - 0.12), -0.14, 0.17)
        pen.oval("body_dark", side * (half - 0.12), -0.13, 0.09)

    if pen.chance(0.5):
        x = pen.vary(-0.45, 0.45)
        pen.poly("accent", (x - 0.2, -0.16), (x + 0.14, -0.22), (x + 0.2, 0.1), (x - 0.14, 0.16))


def tvmonitor(pen: Pen) -> None:
    """Draw a dark flat screen on a stand, with a bright picture of sky, hill and sun."""
    half = pen.vary(0.82, 1.0)
    height = pen.vary(0.52, 0.64)
    frame = pen.vary(0.07, 0.11)

    pen.box("case_dark", -0.12, height - 0.05, 0.12, height + 0.24)
    pen.poly(
        "case_dark",
        (-0.5, height + 0.32),
        (-0.4, height + 0.18),
        (0.4, height + 0.18),
        (0.5, height + 0.32),
    )
    pen.box("case", -half, -height, half, height)
    left = -half + frame
    right = half - frame
    bottom = height - frame
    pen.box("screen", left, -bottom, right, bottom)
    ridge = pen.rng.uniform(-0.25, 0.3, 3)
    pen.poly(
        "scenery",
        (left, ridge[0]),
        (0.1, ridge[1]),
        (right, ridge[2]),
        (right, bottom),
        (left, bottom),
    )
    pen.oval("lamp", pen.vary(-0.5, 0.5), pen.vary(-0.34, -0.24), 0.12)
    pen.oval("red", half - 0.1, height - frame / 2, 0.03)
