"""How long the whole of a run will take on this machine."""

from dataclasses import dataclass, field


@dataclass
class Forecast:
    """What is known of the seconds that a run will take beside the steps of its stage at work.

    later: of all stages behind it. evaluations: of one evaluation, by its name; at first as
    rehearsed, then as the last one took.
    """

    later: float = 0.0
    evaluations: dict[str, float] = field(default_factory=dict)

    def beyond(self, name: str, count: int) -> float:
        """Return the seconds of so many evaluations and of what comes behind them."""
        return count * self.evaluations.get(name, 0.0) + self.later
