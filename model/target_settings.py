"""What the network is trained on: kinds of targets, further losses, its own predictions."""

from dataclasses import dataclass

from utils.common.options import Role, Settings, option


@dataclass(frozen=True)
class TargetSettings(Settings):
    """Which labels teach the network, and by which losses (model/README.md, "Targets")."""

    targets: str = option(
        "hard",
        "method",
        "what the segmentation learns: one label per pixel, refined scores, or the labels of both "
        "branches as candidates",
        Role.METHOD,
        choices=("hard", "soft", "pair"),
    )
    w_dice: float = option(0.0, "method", "weight of the Dice loss; 0: none", Role.METHOD, low=0)
    dice_classes: str = option(
        "labelled",
        "method",
        "the Dice loss is a mean over classes in the labels; published: all",
        Role.METHOD,
        choices=("labelled", "all"),
    )
    w_cross: float = option(
        0.0,
        "method",
        "weight of the loss by which two predictors learn each other's labels; 0: none",
        Role.METHOD,
        low=0,
    )
    self_train: str = option(
        "none",
        "method",
        "late in training the network's own prediction joins the scores that become labels "
        "(ours), or replaces the labels of the segmentation, or those of affinity",
        Role.METHOD,
        choices=("none", "scores", "labels", "affinity"),
    )
    self_train_iters: int = option(
        18000,
        "method",
        "iteration from which --self_train does so (of the full run)",
        Role.METHOD,
        low=0,
        scaled=True,
        part_of="self_train",
    )
    self_train_at: float = option(
        0.75,
        "method",
        "probability above which a pixel's own prediction replaces its label (labels, affinity)",
        Role.METHOD,
        low=0,
        high=1,
        part_of="self_train",
    )
    self_train_share: float = option(
        0.5,
        "method",
        "share of the network's own prediction in the scores, with --self_train scores",
        Role.METHOD,
        low=0,
        high=1,
        part_of="self_train",
    )
    predicted_classes: str = option(
        "tags",
        "method",
        "what the network's own prediction chooses among, in labels and as a weight of CAMs: an "
        "image's tags and background; published: all",
        Role.METHOD,
        choices=("tags", "all"),
    )

    def self_trains(self, step: int) -> bool:
        """Tell whether the network learns from itself too once `step` iterations are done."""
        return self.self_train != "none" and step >= self.self_train_iters
