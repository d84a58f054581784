"""Which recipe a run follows, and what others' numbers may stand beside its own."""

from collections.abc import Mapping, Sequence
from functools import cache

from datasets.coco_json import coco_year
from utils.common.options import Role, options
from utils.config import Config, load_config, values_of
from utils.references import Reference, nearest, of_recipe, read_references
from utils.splits import own_split

FREE = ("seed",)  # a run of another seed is a run of the same recipe


def recipe_of(config: Config) -> str:
    """Return the configuration with references that this one computes and learns like; "" if none.

    Everything that a resumed run must keep, and all that decides a score, has to be equal but for
    the seed: a run at another rate is not the recipe's, whichever file it was begun with.
    """
    for name in dict.fromkeys(each.recipe for each in read_references()):
        if _same(config, _settings_of(name)):
            return name
    return ""


@cache
def _settings_of(name: str) -> Config:
    """Return the settings of a configuration of this repository, which is read once."""
    return load_config(name)


def _same(one: Config, other: Config) -> bool:
    decisive = [
        name
        for name, each in options(Config).items()
        if (each.role.fixed or each.role is Role.TEST) and name not in FREE
    ]
    same = values_of(one, decisive) == values_of(other, decisive)
    return same and one.full_size == other.full_size


def of_other_images(config: Config) -> bool:
    """Return whether a run is on COCO's images of 2017: all numbers are of those of 2014, whose
    lists are others.
    """
    if config.dataset != "coco":
        return False
    return coco_year(config.data_root, own_split(config, config.val_split)) != "2014"


def references_of(config: Config) -> tuple[Reference, ...]:
    """Return the numbers that a run of these settings may be compared with."""
    if of_other_images(config):
        return ()
    return of_recipe(recipe_of(config), read_references())


def beside_score(
    name: str, split: str, step: int, every: int, references: Sequence[Reference]
) -> str:
    """Return what others had of a score made every so many iterations, after `step` of them, to
    stand behind it; "" where no number is nearer to this step than to the next.
    """
    reference = nearest(name, split, step, references)
    if reference is None or 2 * abs((reference.step or 0) - step) > every:
        return ""
    return f" ({_there(reference, reference.step == step)})"


def beside_end(name: str, split: str, references: Sequence[Reference]) -> str:
    """Return what others had of a score at the end of their run; "" where that is not known."""
    for each in references:
        if (each.name, each.split, each.step) == (name, split, None):
            return f" ({each.source.short}: {each.value:.4g})"
    return ""


def _there(reference: Reference, same_step: bool) -> str:
    place = "at this point"
    if not same_step:
        place = f"at {reference.unit.removesuffix('s')} {reference.step}:"
    return f"{reference.source.short} {place} {reference.value:.4g}"


class LossesBeside:
    """Losses of a stage beside those of others, told where these have a number.

    Loss terms are logged with their weight and now and then, and the numbers of others are means
    over a window without: so are those that are told.
    """

    def __init__(
        self,
        references: Sequence[Reference],
        split: str,
        weights: Mapping[str, float],
        per_epoch: float | None = None,
    ) -> None:
        """
        Args:
            references: those that the run may be compared with; losses are picked out by their
                names, the keys of `weights`.
            split: list of the images that are trained on.
            weights: of the terms, as they are logged.
            per_epoch: iterations in an epoch, in a stage that is counted in epochs.
        """
        unit = "epochs"
        if per_epoch is None:
            unit = "iterations"

        self.weights = {name: weight for name, weight in weights.items() if weight > 0}
        self.due: list[tuple[int, int, Reference]] = []
        for each in references:
            comparable = (each.unit, each.split) == (unit, split) and each.name in self.weights
            if comparable and each.step and each.window:
                scale = per_epoch or 1
                at = round(each.step * scale)
                window = max(1, round(each.window * scale))
                self.due.append((at, window, each))

        self.seen: list[tuple[int, Mapping[str, float]]] = []

    def told(self, step: int, values: Mapping[str, float]) -> str:
        """Take the losses logged after `step`; return the comparison that is due, or ""."""
        if not self.due:
            return ""

        before = step - 1
        if self.seen:
            before, _ = self.seen[-1]
        self.seen.append((step, values))

        parts = []
        for at, window, reference in self.due:
            if before < at <= step and self.seen[0][0] <= max(1, step - window) + (step - before):
                mine = self._mean(reference.name, step - window)
                parts.append(f"{reference.name} {mine:.4g} ({_there(reference, at == step)})")
        longest = max(window for _, window, _ in self.due)
        self.seen = [entry for entry in self.seen if entry[0] > step - longest]
        return ", ".join(parts)

    def _mean(self, name: str, after: int) -> float:
        """Return the mean of a term, without its weight, over what was logged after a step."""
        values = [values[name] for step, values in self.seen if step > after]
        return sum(values) / len(values) / self.weights[name]
