"""What a setting means, once, on its field: default, help, choices, bounds, and who may change it.

    class Seeds(Settings):
        radius: int = option(8, "method", "how far apart, in patches", Role.METHOD, low=1)

Whatever else must be known about settings is derived from their fields by `options`.
"""

from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any

from utils.common.errors import UserError


class Role(Enum):
    """What a setting is about. That decides who may change it once a run has begun."""

    DATA = "how a run sees the pictures that it learns from"
    METHOD = "what it computes"
    SCHEDULE = "how long and how fast it learns"
    TEST = "how pictures are predicted"
    WATCH = "how the run is watched, and what it keeps"
    PLACE = "where files lie, or which list is read; resuming compares what they hold"
    MACHINE = "the machine and the terminal at hand; no checkpoint has a say in it"

    @property
    def fixed(self) -> bool:
        """Return True if a resumed run must have the setting as it began."""
        return self in (Role.DATA, Role.METHOD, Role.SCHEDULE)


@dataclass(frozen=True)
class Option:
    """The meaning of one setting.

    default: a bool, int, float, str, or list of floats; its type is the setting's.
    group, help: where `--help` shows it, and as what.
    choices: the words it may be. low, high: bounds, both allowed.
    decides: changes what a trained model predicts; testing may set it.
    scaled: is given for the full run, and follows `--max_iters`.
    at_test: where a test command takes it from, in words, unless a flag gives it.
    before: what runs had before the setting existed; None is the default.
    part_of: a setting without which, at "none", this one means nothing.
    """

    default: Any
    group: str
    help: str
    role: Role
    choices: tuple[str, ...] | None = None
    low: float | None = None
    high: float | None = None
    decides: bool = False
    scaled: bool = False
    at_test: str = ""
    before: Any = None
    part_of: str = ""

    @property
    def kind(self) -> type:
        """Return the type of the setting; a list is one of floats."""
        return type(self.default)

    @property
    def test_default(self) -> str | None:
        """Return the default that a test command shows for its flag; None where it has no such
        flag.
        """
        if self.role is Role.MACHINE:
            return shown(self.default)
        if self.decides:
            return "the checkpoint's"
        return self.at_test or None

    def check_choice(self, place: str, value: Any) -> None:
        """Raise UserError, which begins with `place`, if the value is none of the choices."""
        if self.choices and value not in self.choices:
            raise UserError(f"{place} is {value!r}; choose from {', '.join(self.choices)}")

    def check_bounds(self, name: str, value: Any) -> None:
        """Raise UserError if the value of the setting `name` is out of bounds."""
        if self.low is not None and value < self.low:
            least = f"be at least {self.low:g}"
            if self.low == 0:
                least = "not be negative"
            raise UserError(f"--{name} {shown(value)} must {least}")

        if self.high is not None and value > self.high:
            raise UserError(f"--{name} {shown(value)} must be at most {self.high:g}")


def option(default: Any, group: str, text: str, role: Role, **meaning: Any) -> Any:
    """Return a dataclass field that holds an `Option`; `meaning` are its further attributes."""
    metadata = {"option": Option(default, group, text, role, **meaning)}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Settings:
    """Settings that belong together, each an `option`. They are sound, or cannot be made.

    Raises UserError, one sentence, on a value that cannot work.
    """

    def __post_init__(self) -> None:
        for name, meaning in options(type(self)).items():
            value = getattr(self, name)
            meaning.check_choice(f"--{name}", value)
            meaning.check_bounds(name, value)


def options(settings: type[Settings]) -> dict[str, Option]:
    """Return the meaning of each setting of a class, by name."""
    return {each.name: each.metadata["option"] for each in fields(settings)}


def shown(value: Any) -> str:
    """Return a value as one would type it on the command line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return " ".join(shown(item) for item in value)
    if value == "":
        return "none"
    return str(value)
