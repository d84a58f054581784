"""Drawings of the animals on four legs. Each takes a Pen and adds one object that faces right."""

import math

from datasets.toy.pen import Pen


def _legs(
    pen: Pen,
    tones: tuple[str, str],
    places: tuple[float, float],
    top: float,
    foot: float,
    width: float,
) -> None:
    """Draw two pairs of walking legs around x = places; the far one of each pair has the first
    tone.
    """
    for x in places:
        for tone, side in zip(tones, (-0.06, 0.08)):
            knee = x + side + pen.vary(-0.07, 0.07)
            hoof = x + side + pen.vary(-0.1, 0.1)
            pen.bar(tone, width, (x + side, top), (knee, (top + foot) / 2), (hoof, foot))


def _spots(
    pen: Pen, tone: str, centre: tuple[float, float], reach: tuple[float, float], count: int
) -> None:
    for _ in range(count):
        x = centre[0] + pen.vary(-1, 1) * reach[0]
        y = centre[1] + pen.vary(-1, 1) * reach[1]
        pen.oval(tone, x, y, pen.vary(0.09, 0.19), pen.vary(0.08, 0.15), pen.vary(0, 90))


def cat(pen: Pen) -> None:
    """Draw a slim cat with pointed ears, round head, whiskers and a raised tail: walking, or
    sitting and looking at us.
    """
    if pen.chance(0.5):
        _walking_cat(pen)
    else:
        _sitting_cat(pen)


def _cat_head(pen: Pen, x: float, y: float, radius: float) -> None:
    for side in (-1, 1):
        inner = x + side * 0.1 * radius
        outer = x + side * 1.0 * radius
        pen.poly("body", (inner, y - 0.7 * radius), (outer, y - 1.55 * radius), (outer, y))
        pen.poly(
            "pink",
            (inner + side * 0.3 * radius, y - 0.8 * radius),
            (outer - side * 0.12 * radius, y - 1.25 * radius),
            (outer - side * 0.12 * radius, y - 0.5 * radius),
        )

    pen.oval("body", x, y, 1.12 * radius, radius)
    pen.oval("breast", x, y + 0.42 * radius, 0.5 * radius, 0.38 * radius)
    for side in (-1, 1):
        pen.oval("cat_eye", x + side * 0.45 * radius, y - 0.12 * radius, 0.24 * radius)
        pen.oval("dark", x + side * 0.45 * radius, y - 0.12 * radius, 0.09 * radius, 0.22 * radius)
        for rise in (0.3, 0.55):
            pen.bar(
                "white",
                0.07 * radius,
                (x + side * 0.4 * radius, y + 0.4 * radius),
                (x + side * 1.2 * radius, y + rise * radius),
            )

    pen.poly(
        "pink",
        (x - 0.16 * radius, y + 0.2 * radius),
        (x + 0.16 * radius, y + 0.2 * radius),
        (x, y + 0.42 * radius),
    )


def _walking_cat(pen: Pen) -> None:
    sway = pen.vary(-0.2, 0.2)

    pen.bar("body", 0.13, (-0.62, -0.02), (-0.95, -0.2), (-0.92 + sway, -0.6), (-0.7 + sway, -0.86))
    _legs(pen, ("body_dark", "body"), (-0.52, 0.38), 0.15, 0.68, 0.14)
    pen.blob(
        "body",
        (-0.82, 0.02),
        (-0.6, -0.24),
        (0.1, -0.16),
        (0.62, -0.28),
        (0.66, 0.18),
        (0.2, 0.34),
        (-0.6, 0.36),
    )
    _cat_head(pen, 0.68, -0.26, pen.vary(0.26, 0.31))


def _sitting_cat(pen: Pen) -> None:
    width = pen.vary(0.38, 0.46)
    side = pen.vary(0.1, 0.4)

    pen.bar(
        "body",
        0.14,
        (width * 0.8, 0.86),
        (width + 0.3, 0.78),
        (width + 0.38, 0.45),
        (width + side, 0.2),
    )
    pen.blob(
        "body",
        (-0.28, -0.1),
        (0.28, -0.1),
        (width, 0.45),
        (width + 0.08, 1.0),
        (-width - 0.08, 1.0),
        (-width, 0.45),
    )
    pen.oval("breast", 0, 0.36, 0.2, 0.3)

    for x in (-0.14, 0.14):
        pen.bar("body_light", 0.17, (x, 0.45), (x * 1.1, 0.98))

    _cat_head(pen, 0, -0.3, pen.vary(0.34, 0.4))


def dog(pen: Pen) -> None:
    """Draw a sturdy dog with hanging ears, long muzzle, collar and patches: standing, or sitting
    and looking at us.
    """
    if pen.chance(0.6):
        _standing_dog(pen)
    else:
        _sitting_dog(pen)


def _standing_dog(pen: Pen) -> None:
    wag = pen.vary(-0.15, 0.15)
    x = pen.vary(0.6, 0.7)
    y = pen.vary(-0.6, -0.5)

    pen.bar("body", 0.12, (-0.6, -0.12), (-0.85, -0.4), (-0.9 + wag, -0.66))
    _legs(pen, ("body_dark", "body"), (-0.5, 0.4), 0.15, 0.86, 0.17)
    pen.blob(
        "body",
        (-0.78, 0.0),
        (-0.62, -0.28),
        (0.1, -0.24),
        (0.66, -0.34),
        (0.74, 0.22),
        (0.3, 0.42),
        (-0.2, 0.26),
        (-0.7, 0.36),
    )
    if pen.chance(0.6):
        pen.blob("accent", (-0.45, -0.22), (0.12, -0.24), (0.1, 0.1), (-0.35, 0.16))

    pen.bar("body", 0.36, (0.48, -0.08), (x - 0.06, y + 0.05))
    pen.bar("collar", 0.1, (0.36, -0.3), (0.76, -0.2))
    pen.oval("body", x, y, 0.25, 0.22)
    pen.blob("body_light", (x, y - 0.06), (x + 0.52, y - 0.02), (x + 0.54, y + 0.2), (x, y + 0.24))
    pen.oval("dark", x + 0.46, y + 0.02, 0.08, 0.07)
    pen.blob(
        "accent_dark",
        (x - 0.24, y - 0.22),
        (x + 0.04, y - 0.14),
        (x - 0.02, y + 0.34),
        (x - 0.22, y + 0.36),
    )
    pen.eye(x + 0.12, y - 0.08, 0.06)


def _sitting_dog(pen: Pen) -> None:
    width = pen.vary(0.4, 0.48)
    pen.bar("body", 0.14, (width * 0.8, 0.8), (width + 0.32, 0.5))
    pen.blob(
        "body",
        (-0.34, -0.1),
        (0.34, -0.1),
        (width, 0.5),
        (width + 0.1, 1.02),
        (-width - 0.1, 1.02),
        (-width, 0.5),
    )
    pen.oval("breast", 0, 0.42, 0.22, 0.28)

    for x in (-0.18, 0.18):
        pen.bar("body_light", 0.2, (x, 0.45), (x * 1.1, 1.0))

    pen.bar("collar", 0.12, (-0.3, 0.1), (0.3, 0.1))
    pen.oval("body", 0, -0.3, 0.4, 0.44)
    if pen.chance(0.5):
        pen.oval("accent", 0.18, -0.42, 0.15, 0.18)

    for side in (-1, 1):
        pen.blob(
            "accent_dark",
            (side * 0.24, -0.72),
            (side * 0.5, -0.62),
            (side * 0.66, 0.02),
            (side * 0.46, 0.1),
            (side * 0.34, -0.3),
        )
        pen.eye(side * 0.17, -0.4, 0.08)

    pen.oval("breast", 0, -0.08, 0.24, 0.21)
    pen.oval("dark", 0, -0.18, 0.11, 0.08)
    pen.poly("pink", (-0.08, 0.03), (0.08, 0.03), (0.07, 0.22), (-0.07, 0.22))


def horse(pen: Pen) -> None:
    """Draw a tall horse: long legs, long raised neck with a dark mane, long head and tail."""
    x = pen.vary(0.74, 0.86)
    y = pen.vary(-0.84, -0.72)
    belly = pen.vary(0.2, 0.26)

    pen.blob(
        "mane",
        (-0.55, -0.3),
        (-0.86, -0.16),
        (-0.98, 0.5),
        (-0.82, 0.56),
        (-0.7, 0.1),
        (-0.5, -0.1),
    )
    _legs(pen, ("body_dark", "body"), (-0.46, 0.36), 0.05, 0.98, 0.14)
    pen.blob(
        "body",
        (-0.7, -0.1),
        (-0.56, -0.38),
        (-0.1, -0.26),
        (0.5, -0.42),
        (0.64, 0.0),
        (0.4, belly),
        (-0.2, belly - 0.04),
        (-0.62, belly),
    )
    pen.poly("body", (0.2, -0.28), (x - 0.26, y - 0.02), (x + 0.06, y + 0.12), (0.6, 0.02))
    pen.poly("body", (x - 0.24, y), (x - 0.2, y - 0.26), (x - 0.06, y - 0.06))
    pen.blob(
        "body",
        (x - 0.28, y - 0.08),
        (x, y - 0.12),
        (x + 0.36, y + 0.3),
        (x + 0.3, y + 0.44),
        (x + 0.14, y + 0.42),
        (x - 0.2, y + 0.2),
    )
    pen.oval("body_dark", x + 0.26, y + 0.34, 0.08, 0.09)
    pen.blob(
        "mane",
        (x - 0.12, y - 0.14),
        (x - 0.12, y + 0.08),
        (0.34, -0.14),
        (0.02, -0.22),
        (x - 0.4, y + 0.06),
        (x - 0.26, y - 0.16),
    )
    if pen.chance(0.3):
        pen.blob("accent", (-0.3, -0.4), (0.16, -0.4), (0.18, -0.02), (-0.32, -0.02))

    pen.eye(x - 0.02, y + 0.08, 0.05)


def cow(pen: Pen) -> None:
    """Draw a heavy box of a cow: large dark patches, short legs, horns, pink muzzle and udder."""
    x = pen.vary(0.84, 0.92)
    y = pen.vary(-0.34, -0.2)
    reach = pen.vary(0.48, 0.56)

    pen.bar("body", 0.07, (-0.8, -0.36), (-0.95, 0.1), (-0.92, 0.3))
    pen.oval("accent", -0.92, 0.34, 0.08, 0.12)
    pen.oval("pink", -0.3, 0.36, 0.2, 0.15)
    _legs(pen, ("body_dark", "body"), (-0.6, 0.46), 0.2, 0.76, 0.18)
    pen.poly(
        "body",
        (-0.86, -0.36),
        (-0.7, -0.48),
        (0.6, -0.46),
        (0.82, -0.36),
        (0.8, 0.14),
        (0.6, 0.36),
        (-0.7, 0.36),
        (-0.86, 0.2),
    )
    _spots(pen, "accent", (-0.05, -0.06), (reach, 0.2), 4)
    pen.blob("accent", (-0.7, -0.44), (-0.3, -0.46), (-0.2, 0.06), (-0.66, 0.12))
    pen.bar("body", 0.36, (0.62, -0.14), (x, y))
    pen.bar("horn", 0.08, (x - 0.14, y - 0.16), (x - 0.24, y - 0.3), (x - 0.16, y - 0.46))
    pen.bar("horn", 0.08, (x + 0.08, y - 0.16), (x + 0.2, y - 0.28), (x + 0.16, y - 0.44))
    pen.oval("accent", x - 0.26, y - 0.08, 0.16, 0.09, 20)
    pen.blob(
        "body",
        (x - 0.24, y - 0.24),
        (x + 0.18, y - 0.24),
        (x + 0.34, y + 0.3),
        (x + 0.2, y + 0.46),
        (x - 0.04, y + 0.36),
    )
    pen.oval("pink", x + 0.2, y + 0.26, 0.17, 0.15, 20)
    pen.eye(x + 0.04, y - 0.04, 0.06)


def sheep(pen: Pen) -> None:
    """Draw a woolly cloud on short dark legs with a small dark face."""
    x, y = pen.vary(0.74, 0.84), pen.vary(-0.3, -0.1)
    _legs(pen, ("dark", "dark"), (-0.4, 0.34), 0.25, 0.8, 0.14)
    pen.oval("body", 0, 0, 0.66, 0.42)

    for step in range(14):
        angle = 2 * math.pi * step / 14
        point = pen.rng.normal((0.64, 0.4), 0.015)
        pen.oval(
            "body", point[0] * math.cos(angle), point[1] * math.sin(angle), pen.vary(0.15, 0.2)
        )

    pen.oval("face", x - 0.24, y - 0.02, 0.17, 0.08, -15)
    pen.blob(
        "face",
        (x - 0.24, y - 0.22),
        (x + 0.1, y - 0.22),
        (x + 0.3, y + 0.16),
        (x + 0.14, y + 0.34),
        (x - 0.18, y + 0.22),
    )
    pen.oval("body", x - 0.12, y - 0.22, 0.2, 0.14)
    pen.eye(x + 0.05, y - 0.03, 0.06)
