"""One source of settings: defaults < YAML < command line. The effective ones are saved with each
run.
"""

import argparse
import os
import reprlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from model.head_settings import HeadSettings
from model.method import Method, Phase
from utils.common.errors import UserError, nearest
from utils.common.files import require_file, write_whole
from utils.common.options import Option, Role, options, shown
from utils.common.parser import at_home, parse_bool
from utils.common.yaml_files import yaml_values
from utils.compatibility import current_settings
from utils.settings.data import DataSettings, WeightSettings
from utils.settings.running import (
    CRFSettings,
    EvaluationSettings,
    RunSettings,
    SeedSettings,
)
from utils.settings.training import Stage1Settings, Stage2Settings

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
RECIPES = CONFIGS / "recipes"  # fragments about the method alone
CONFIG_FILE = "config.yaml"  # of a run folder: its effective settings
LARGEST = 2**63  # of numbers: seeds and sizes beyond are refused by PyTorch, NaN is no setting
BETWEEN_VALIDATIONS = 100  # iterations at least, lest a short trial spend its time on validation


@dataclass(frozen=True)
class Config(  # a dataclass takes the fields of its last base first
    RunSettings,
    CRFSettings,
    SeedSettings,
    EvaluationSettings,
    Stage2Settings,
    Stage1Settings,
    HeadSettings,
    Method,
    WeightSettings,
    DataSettings,
):
    """Every setting of a run. Each is a YAML key and a command line flag of the same name."""

    def phase(self, step: int) -> Phase:
        """Tell what has begun once `step` iterations are done."""
        return Phase(self.after_switch(step), self.self_trains(step))


def names_of(*roles: Role) -> list[str]:
    """Return the names of the settings that have one of the roles."""
    return [name for name, meaning in options(Config).items() if meaning.role in roles]


def values_of(config: Config, names: Iterable[str]) -> dict[str, Any]:
    """Return the values of the named settings, by name."""
    return {name: getattr(config, name) for name in names}


def short(value: Any) -> str:
    """Return `repr` of a value, shortened: in YAML, a few bytes can expand to gigabytes."""
    return reprlib.repr(value)[:120]


def load_config(
    given: str | Path | Sequence[str | Path], overrides: Mapping[str, Any] | None = None
) -> Config:
    """Read defaults, then the YAML files, of which later ones win, then overrides (setting ->
    value). `given` are paths, or names of ready configurations.

    Where max_iters is overridden, what is given for the full run keeps its share of it, unless it
    is overridden itself. Settings that the file of a run lacks are those that the run had. Raises
    UserError on bad keys or values.
    """
    if isinstance(given, str | Path):
        given = [given]
    source = " ".join(map(str, given))
    overrides = dict(overrides or {})
    values: dict[str, Any] = {}
    for path in map(config_file, given):
        own = read_yaml(path)
        if path.name == CONFIG_FILE and (path.parent / "checkpoints").is_dir():  # of a run
            own = completed(own)
        values |= own

    try:
        full = from_dict(values, source)
    except UserError as error:
        if source in str(error):
            raise
        raise UserError(f"{source}: {error}") from None

    max_iters = overrides.get("max_iters", full.max_iters)
    if max_iters != full.max_iters:
        overrides = {**_scaled(full, max_iters), **overrides}
    effective = from_dict({**asdict(full), **overrides}, source)
    _check_boxes(effective, overrides)
    return effective


def _check_boxes(config: Config, overrides: Mapping[str, Any]) -> None:
    """Raise UserError where boxes are asked for by hand and a distribution does without them.

    What files say of both is resolved: the distribution wins.
    """
    for name in ("boxes", "box_threshold"):
        if overrides.get(name) and config.boxes and config.distribution != "none":
            raise UserError(
                f"--{name} {shown(overrides[name])} acts on boxes, which --distribution "
                f"{config.distribution} does without; leave it out, or use --distribution none"
            )


def config_file(given: str | Path) -> Path:
    """Return the file that `--config` means: that of this path, else the ready configuration or
    recipe of this name. Raises UserError, with what it may have been, where there is neither.
    """
    if os.path.isfile(given):
        return Path(given)
    ready = {file.stem: file for folder in (RECIPES, CONFIGS) for file in folder.glob("*.yaml")}
    if str(given) in ready:
        return ready[str(given)]
    fault = "is a folder, not a file" if os.path.isdir(given) else "does not exist"
    hint = nearest(str(given), ready) or f"; ready ones are {', '.join(sorted(ready))}"
    raise UserError(f"--config {given} {fault}{hint}")


def _scaled(full: Config, max_iters: int) -> dict[str, int]:
    """Return the settings that follow the length of a run, for `max_iters` iterations."""
    scaled = {
        name: round(getattr(full, name) * max_iters / full.max_iters)
        for name, meaning in options(Config).items()
        if meaning.scaled
    }
    least = min(full.eval_every, BETWEEN_VALIDATIONS)
    return {**scaled, "eval_every": max(scaled["eval_every"], least)}


def read_yaml(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Return the settings of a YAML file, over those of the files that it names as `base`.

    `base` is a path relative to the file, or a list of them, of which later ones win. `above` are
    the files that led here. Raises UserError on a file that is missing, malformed or its own base.
    """
    if path.resolve() in above:
        raise UserError(f"--config {path} is its own base; remove the line `base`")
    content = _yaml_content(path)

    bases = content.pop("base", [])
    if isinstance(bases, str):
        bases = [bases]
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise UserError(f"--config {path} has the base {short(bases)}; name a file, or a list")

    values = current_settings(content)
    for name in values:
        _check_known(name, f"--config {path}")
    inherited: dict[str, Any] = {}
    for base in bases:
        inherited |= read_yaml(path.parent / base, (*above, path.resolve()))
    placed = {
        name: at_home(value) if isinstance(value, str) else value for name, value in values.items()
    }
    return {**inherited, **placed}


def _yaml_content(path: Path) -> dict[str, Any]:
    require_file(path, "--config", "configs/ holds the ready ones")
    content = yaml_values(path, f"--config {path}") or {}
    if not isinstance(content, dict):
        raise UserError(f"--config {path} must hold `key: value` lines")
    return content


def _check_known(name: Any, source: str) -> None:
    if name not in options(Config):
        hint = nearest(str(name), options(Config)) or "; remove it"
        called = name if str(name).isprintable() else short(name)
        raise UserError(f"{source} has an unknown key {called}{hint}")


def completed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a run of an earlier version saved, as those of today.

    Settings that it did not know yet take the value that runs had before.
    """
    before = {name: meaning.default for name, meaning in options(Config).items()}
    before |= {
        name: meaning.before
        for name, meaning in options(Config).items()
        if meaning.before is not None
    }
    return {**before, **current_settings(values)}


def from_dict(values: Mapping[str, Any], source: str) -> Config:
    """Return the Config of plain values. Raises UserError naming `source` on an unknown key or a
    wrong type, and on whatever `Config` refuses.
    """
    return Config(**{name: _read(name, value, source) for name, value in values.items()})


def typed(name: str, text: str, source: str) -> Any:
    """Return the value of a setting that is written as on the command line, such as "0.5", "true"
    or, of a list, "1 0.75". Raises UserError naming `source` as `from_dict` does.
    """
    _check_known(name, source)
    kind = options(Config)[name].kind
    value: Any = text
    if kind is bool:
        value = {"true": True, "false": False}.get(text.lower(), text)
    elif kind is list:
        value = text.split()
    return _read(name, value, source)


def _read(name: Any, value: Any, source: str) -> Any:
    _check_known(name, source)
    meaning = options(Config)[name]
    try:
        read = _converted(value, meaning.kind)
    except (TypeError, ValueError, OverflowError):
        raise UserError(
            f"{source}: {name} is {short(value)}; it must be of type {meaning.kind.__name__}"
        ) from None
    meaning.check_choice(f"{source}: {name}", read)
    return read


def _converted(value: Any, kind: type) -> Any:
    """Return a value as one of a type. Raises an error where it is of another, or too large."""
    if kind is list:
        if not isinstance(value, list | tuple):
            raise TypeError
        return [_converted(item, float) for item in value]
    if isinstance(value, bool) != (kind is bool) or isinstance(value, list | dict | None):
        raise TypeError
    if kind is int and isinstance(value, float) and not value.is_integer():
        raise ValueError

    converted = kind(value)
    if kind in (int, float) and not abs(converted) < LARGEST:
        raise OverflowError
    return converted


def as_yaml(config: Config) -> str:
    """Return the effective configuration as YAML that `--config` accepts."""
    return yaml.safe_dump(asdict(config), sort_keys=False, allow_unicode=True)


def save_config(config: Config, path: Path) -> None:
    """Write the effective configuration as YAML that `--config` accepts, whole or not at all."""
    write_whole(path, as_yaml(config).encode())


def add_config_flags(
    parser: argparse.ArgumentParser, testing: bool = False, only: Collection[str] = ()
) -> None:
    """Add one flag per setting, grouped; absent flags stay out of the namespace.

    testing: only those that a test command takes, whose defaults are the checkpoint's.
    only: names of the settings that have a flag; by default all.
    """
    groups: dict[str, Any] = {}
    for name, meaning in options(Config).items():
        default = meaning.test_default if testing else shown(meaning.default)
        if default is None or (only and name not in only):
            continue

        if meaning.group not in groups:
            groups[meaning.group] = parser.add_argument_group(meaning.group)

        text = f"{meaning.help} (default: {default})".replace("%", "%%")
        groups[meaning.group].add_argument(
            f"--{name}", help=text, default=argparse.SUPPRESS, **_reading(meaning)
        )


def _reading(meaning: Option) -> dict[str, Any]:
    """Return how argparse reads a setting's flag."""
    if meaning.kind is bool:
        return {"type": parse_bool, "nargs": "?", "const": True, "metavar": "true|false"}
    if meaning.kind is list:
        return {"type": float, "nargs": "+", "metavar": "X"}
    if meaning.choices:
        return {"type": str, "choices": meaning.choices}
    return {"type": meaning.kind, "metavar": {int: "N", float: "X", str: "TEXT"}[meaning.kind]}
