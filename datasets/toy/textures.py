"""A fixed bank of grey patterns with mean about 0 and spread about 1, made once and cut at
random.
"""

import functools

import numpy as np

from utils.common.opencv import cv2

_SIDE = 256


def _smooth(rng: np.random.Generator, cells: int) -> np.ndarray:
    """Draw (256, 256) noise with `cells` bumps per side."""
    noise = rng.standard_normal((cells, cells)).astype(np.float32)
    return cv2.resize(noise, (_SIDE, _SIDE), interpolation=cv2.INTER_CUBIC)


@functools.cache
def bank() -> dict[str, np.ndarray]:
    """Draw the patterns by name, (512, 512) float32, mirrored so that any 256-px window can be cut.
    Always the same values.
    """
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:_SIDE, :_SIDE].astype(np.float32)
    grain = rng.standard_normal((_SIDE, _SIDE)).astype(np.float32)
    wobble = 6 * _smooth(rng, 8)
    course = y // 14
    cell = (x % 16 - 8) ** 2 + (y % 16 - 8) ** 2
    joint = (y % 14 < 2) | ((x + course % 2 * 13) % 26 < 2)
    seam = (y % 18 < 1.5) | ((x + y // 18 * 37) % 90 < 1.5)
    pattern = {
        "plain": 0.25 * grain,
        "cloud": _smooth(rng, 5) + 0.5 * _smooth(rng, 12),
        "grain": grain + _smooth(rng, 64),
        "blotch": 0.6 * _smooth(rng, 24) + 0.7 * _smooth(rng, 48) + 0.3 * grain,
        "crag": _smooth(rng, 9) + np.abs(_smooth(rng, 20)) + 0.4 * grain,
        "wave": np.sin((y + wobble) / 2.6) + 0.3 * grain,
        "brick": -2.0 * joint + 0.2 * grain,
        "plank": -2.0 * seam + 0.4 * _smooth(rng, 64) + 0.2 * grain,
        "window": 1.8 * ((y % 24 > 10) & (x % 18 > 8)) + 0.2 * grain,
        "sleeper": 1.6 * (x % 14 < 6) - 1.8 * (y % 44 < 6) + 0.4 * grain,
        "stripe": np.sign(np.sin((x + 0.4 * y + wobble) / 3.2)) + 0.2 * grain,
        "dots": 2.0 * (cell < 16) + 0.2 * grain,
        "check": 2.0 * ((x // 9 + y // 9) % 2) - 1.0 + 0.2 * grain,
    }

    return {name: _normalise(values) for name, values in pattern.items()}


def _normalise(values: np.ndarray) -> np.ndarray:
    centred = values - values.mean()
    return np.pad(centred / max(float(centred.std()), 1.0), (0, _SIDE), "symmetric").astype(
        np.float32
    )


def cut(
    rng: np.random.Generator, name: str, height: int, width: int, zoom: float = 1.0
) -> np.ndarray:
    """Cut a random (height, width) float32 window of a pattern, enlarged `zoom` times (more if need
    be).
    """
    zoom = max(zoom, height / _SIDE, width / _SIDE)
    rows = max(2, round(height / zoom))
    columns = max(2, round(width / zoom))
    top, left = rng.integers(0, _SIDE, 2)
    window = bank()[name][top : top + rows, left : left + columns]
    return cv2.resize(window, (width, height), interpolation=cv2.INTER_LINEAR)
