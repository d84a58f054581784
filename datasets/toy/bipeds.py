"""Drawings of the bird and the person. Each takes a Pen and adds one object that faces right."""

from datasets.toy.pen import Pen


def bird(pen: Pen) -> None:
    """Draw a plump perching bird, or one that flies with spread wings."""
    if pen.chance(0.65):
        _perching(pen)
    else:
        _flying(pen)


def _perching(pen: Pen) -> None:
    tail = pen.vary(0.05, 0.4)
    for x in (-0.08, 0.14):
        pen.bar("beak", 0.07, (x, 0.4), (x + 0.02, 0.74), (x + 0.16, 0.76))

    pen.poly("accent", (-0.35, -0.1), (-1.05, tail), (-0.95, tail + 0.24), (-0.3, 0.28))
    pen.blob(
        "body",
        (-0.65, 0.1),
        (-0.3, -0.3),
        (0.2, -0.55),
        (0.72, -0.3),
        (0.62, 0.3),
        (0.2, 0.62),
        (-0.35, 0.5),
    )
    pen.oval("body", 0.44, -0.42, 0.3)
    pen.oval("breast", 0.34, 0.14, 0.2, 0.3, 25)
    pen.poly("beak", (0.66, -0.58), (1.08, -0.4), (0.66, -0.28))
    pen.blob("accent", (0.25, -0.12), (0.1, 0.3), (-0.75, 0.38), (-0.45, -0.1), (0, -0.3))
    pen.eye(0.52, -0.48, 0.075)


def _flying(pen: Pen) -> None:
    lift = pen.vary(0.55, 0.9)
    sweep = pen.vary(-0.45, -0.1)

    pen.poly("accent", (-0.5, -0.1), (-0.98, -0.24), (-1.02, 0.22), (-0.5, 0.16))
    pen.blob(
        "accent_dark",
        (0.3, 0.0),
        (sweep + 0.35, -lift),
        (sweep, -lift - 0.1),
        (sweep - 0.15, -0.3),
        (-0.35, 0.0),
    )
    pen.blob(
        "body", (-0.75, 0.02), (-0.2, -0.26), (0.5, -0.24), (0.62, 0.1), (0.1, 0.34), (-0.4, 0.2)
    )
    pen.oval("body", 0.58, -0.08, 0.24)
    pen.poly("beak", (0.74, -0.2), (1.08, -0.04), (0.74, 0.06))
    pen.blob(
        "accent",
        (0.3, 0.0),
        (sweep + 0.1, lift),
        (sweep - 0.25, lift + 0.08),
        (sweep - 0.3, 0.3),
        (-0.4, 0.05),
    )
    pen.eye(0.65, -0.12, 0.06)


def person(pen: Pen) -> None:
    """Draw a clothed person with head and hair, standing or walking; sometimes only from the waist
    up.
    """
    bust = pen.chance(0.3)
    shoulder = pen.vary(0.28, 0.34)

    if not bust:
        for side in (-1, 1):
            foot = side * 0.16 + pen.vary(-0.16, 0.16)
            pen.bar(
                "accent",
                0.24,
                (side * 0.14, 0.15),
                ((side * 0.14 + foot) / 2 + 0.02, 0.6),
                (foot, 1.02),
            )
            pen.oval("dark", foot + 0.06, 1.04, 0.17, 0.07)

    for side in (-1, 1):
        elbow = (side * (shoulder + pen.vary(0.04, 0.22)), pen.vary(-0.14, 0.06))
        hand = (elbow[0] + pen.vary(-0.18, 0.18), elbow[1] + pen.pick((-0.32, 0.3, 0.3)))
        pen.bar("body_dark", 0.18, (side * shoulder, -0.36), elbow, elbow)
        pen.bar("skin", 0.13, elbow, hand, hand)

    pen.poly(
        "body",
        (-shoulder - 0.05, -0.42),
        (-0.1, -0.5),
        (0.1, -0.5),
        (shoulder + 0.05, -0.42),
        (shoulder - 0.04, 0.28),
        (0.04 - shoulder, 0.28),
    )
    pen.box("skin", -0.09, -0.6, 0.09, -0.45)
    long = pen.vary(0.0, 0.34)
    pen.oval("hair", 0, -0.8, 0.24, 0.25)
    pen.box("hair", -0.24, -0.8, 0.24, -0.78 + long)
    pen.oval("skin", 0, -0.74, 0.19, 0.23)

    for side in (-1, 1):
        pen.oval("dark", side * 0.075, -0.77, 0.035)

    pen.bar("lips", 0.04, (-0.07, -0.62), (0.07, -0.62))
