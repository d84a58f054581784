"""What a comparison compares: rows, the settings of the data with a recipe or with switches."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from utils.common.errors import UserError, nearest
from utils.common.options import options
from utils.config import RECIPES, Config, load_config, typed, values_of
from utils.tools.compare_methods.given_labels import MASKS

OURS = "cvf"  # the settings of the data alone
LABELS = "labels:"  # and a folder: trained on label maps that are given
BRANCHES = ("clip", "vit", "fusion")
FAMILY = ("weclip", "excel", "weclip_plus", "cdclip", OURS, "best")
# What is the data's in every row, whatever a recipe says; a switch may change it all the same.
BUDGET = ("max_iters", "batch_size", "mct_epochs", "mct_batch_size")
# The settings of the command, not of a row, with what stands in their place.
TAKEN = {
    "seed": "--seeds",
    "stages": "--labels_only",
    "work_dir": "--work_dir",
    "mct_path": "--mct_path",
    "dataset": "--data",
    "data_root": "--data_root",
    "val_split": "--val_split",
    "seeds_split": "--seeds_split",
    "seeds_images": "--seeds_images",
}


@dataclass(frozen=True)
class Row:
    """One line of a comparison.

    config: its settings; those of the data where it cannot run. reason: why it cannot run, or "".
    labels: what stage 2 learns in place of pseudo labels, "masks" or a folder of label maps; "":
    nothing. changed: settings in which it differs from those of the data. notes: what else to know
    of it.
    """

    name: str
    config: Config
    labels: str = ""
    reason: str = ""
    changed: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_rows(given: Sequence[str], data: Sequence[str], flags: Mapping[str, Any]) -> list[Row]:
    """Return the rows that are asked for, each `NAME` or `NAME=PART,PART`.

    A part is a recipe, one of `clip vit fusion masks cvf`, `SETTING:VALUE` or `labels:FOLDER`; a
    name alone is its own part. `data` are configurations that all rows stand on, `flags` (setting
    -> value) win over these and over recipes, switches win over all.

    Raises UserError on a row that nobody could run: an unknown name, setting or value.
    """
    base = load_config(data, flags)
    rows = [_row(each, data, flags, base) for each in dict.fromkeys(given)]

    names = [row.name for row in rows]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"--rows has two rows {name}; give one of them another name")

    return rows


def _row(given: str, data: Sequence[str], flags: Mapping[str, Any], base: Config) -> Row:
    name, equals, text = given.partition("=")
    if not re.fullmatch(r"\w[\w.+-]*", name):
        raise UserError(
            f"--rows {given}: {name!r} is no name of a row; use letters, digits and . + - _"
        )
    parts = [part for part in text.split(",") if part] if equals else [name]
    folders = [part.removeprefix(LABELS) for part in parts if part.startswith(LABELS)]
    parts = [part for part in parts if not part.startswith(LABELS)]
    switches = dict(_switch(part, given) for part in parts if ":" in part)
    named = [part for part in parts if ":" not in part]
    for part in named:
        _check_known(part, given)

    recipes = [part for part in named if part not in (*BRANCHES, MASKS, OURS)]
    branches = [("branches", part) for part in named if part in BRANCHES]
    budget = values_of(base, BUDGET)
    files = [RECIPES / f"{recipe}.yaml" for recipe in recipes]
    try:
        for file in files:
            if not file.is_file():
                raise UserError(f"there is no configs/recipes/{file.name} yet")
        own = load_config([*data, *files])
        config = load_config([*data, *files], {**flags, **budget, **dict(branches), **switches})
    except UserError as error:
        if equals:
            raise UserError(f"--rows {given}: {error}") from None
        return Row(name, base, reason=str(error))

    notes = tuple(
        f"{setting} {getattr(base, setting)}, of the data, in place of the recipe's "
        f"{getattr(own, setting)}"
        for setting in BUDGET
        if files and setting not in flags and getattr(own, setting) != getattr(base, setting)
    )
    folders += [part for part in named if part == MASKS]
    if len(folders) > 1:
        raise UserError(f"--rows {given} names labels {len(folders)} times; give them once")
    return Row(name, config, "".join(folders), changed=_changed(config, base), notes=notes)


def _check_known(part: str, given: str) -> None:
    ready = {file.stem for file in RECIPES.glob("*.yaml")}
    known = sorted({*BRANCHES, MASKS, *FAMILY, *ready})
    if part not in known:
        hint = nearest(part, known) or f"; choose from {', '.join(known)}, or SETTING:VALUE"
        raise UserError(f"--rows {given}: there is no recipe {part}{hint}")


def _switch(part: str, given: str) -> tuple[str, Any]:
    """Return setting and value of `SETTING:VALUE`."""
    setting, _, text = part.partition(":")
    known = options(Config)
    if setting not in known:
        hint = nearest(setting, known) or "; `python train_voc.py --help` lists them"
        raise UserError(f"--rows {given}: there is no setting {setting}{hint}")
    if setting in TAKEN:
        raise UserError(
            f"--rows {given}: {setting} is the same for all rows; give {TAKEN[setting]} instead"
        )
    return setting, typed(setting, text, f"--rows {given}")


def _changed(config: Config, base: Config) -> dict[str, Any]:
    return {
        name: getattr(config, name)
        for name in options(Config)
        if name != "work_dir" and getattr(config, name) != getattr(base, name)
    }
