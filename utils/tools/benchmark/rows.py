"""What the benchmark measures, and the lines of its table."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from utils.common.device import uses_bf16
from utils.config import Config
from utils.tools.benchmark.timing import Timing, Work, measure

VIT_GFLOP = 273  # matrix products of "vit", attention itself left out


@dataclass(frozen=True)
class Row:
    """One line of the table; `peak` bytes and `stages` where the part has them, no timing where it
    is counted rather than measured.

    yardstick: the one whose matrix products are in the same precision.
    """

    part: str
    setting: str
    timing: Timing | None
    note: str = ""
    peak: int = 0
    stages: dict[str, dict[str, float]] | None = None
    yardstick: str = "vit"


@dataclass(frozen=True)
class Setting:
    """One setting to measure.

    name, config, device: what runs where, under which name. repeats: measurements per part. images:
    folder of JPEG files for the CRF (None: drawn pictures). model_path: checkpoint whose
    predictions of them the CRF gets (None: random regions). names: images of the longer of the
    lists.
    """

    name: str
    config: Config
    device: torch.device
    repeats: int
    images: Path | None = None
    model_path: Path | None = None
    names: int = 10_000_000


def yardstick_of(setting: Setting) -> str:
    """Return the name of the yardstick in the precision of a setting."""
    if uses_bf16(setting.device, setting.config.precision):
        return "vit bf16"
    return "vit"


def timed(settings: list[Setting], works: Sequence[Work]) -> Iterator[tuple[Setting, Work, Timing]]:
    """Measure one work per setting, in turns."""
    return zip(settings, works, measure(works, settings[0].repeats, settings[0].device))


def table(rows: list[Row], units: dict[str, Timing]) -> str:
    """Write rows and yardsticks as text."""
    lines = [
        f"{name:44}{t.seconds:9.3f} s {t.cpu:8.3f} CPU s   +-{50 * t.spread:.0f}%"
        for name, t in units.items()
    ]
    for row in rows:
        title = f"{row.part} ({row.setting})"
        cells = [f"{title:44}"]
        if row.timing:
            cells.append(_shown(row.timing, units))
        if row.peak and row.timing:
            cells.append(f"peak {row.peak / 1e9:.2f} GB")
        lines.append("   ".join([*cells, row.note]))
        if row.stages:
            lines += stage_lines(row.stages, row.yardstick, units[row.yardstick])

    return "\n".join(lines)


def _shown(timing: Timing, units: dict[str, Timing]) -> str:
    """Write the seconds of a work, and how many yardsticks they are."""
    said = f"{timing.seconds:9.3f} s {timing.cpu:8.3f} CPU s"
    in_units = (f"{timing.seconds / unit.seconds:.2f} {name}" for name, unit in units.items())
    if not units:
        return said
    return f"{said}   = {', '.join(in_units)}"


def stage_lines(found: dict[str, dict[str, float]], name: str, unit: Timing) -> list[str]:
    """Write one line per stage, with its floor: the time that its FLOPs would take at the speed of
    the yardstick so named, "vit" or "vit bf16".
    """
    rate = VIT_GFLOP / unit.seconds
    whole = sum(stage["seconds"] for stage in found.values())

    lines = []
    for title, stage in found.items():
        share = 100 * stage["seconds"] / whole
        work = stage["gflop"]
        floor = ""
        if work >= 1:
            floor = f"{work:7.0f} GFLOP, {work / rate:.3f} s at the speed of {name}"
        lines.append(f"    {title:40}{stage['seconds']:9.3f} s {share:5.1f}%   {floor}")

    return lines
