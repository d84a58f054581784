"""How CLIP is read out densely, and by whose likeness of patches."""

from dataclasses import dataclass

from model.dense import DenseReadout
from utils.common.options import Role, Settings, option


@dataclass(frozen=True)
class DenseSettings(Settings):
    """Settings of a dense read-out of CLIP (`model.dense`) and of its proxy."""

    dense_parts: str = option(
        "k",
        "method",
        "what attends to itself in a dense read-out: q, k, v or several; empty: each its own "
        "value; proxy: what the proxy says, and nothing else",
        Role.METHOD,
        choices=("", "q", "k", "v", "qk", "qkv", "proxy"),
    )
    dense_blocks: int = option(
        1, "method", "last CLIP blocks of a dense read-out", Role.METHOD, low=1
    )
    dense_std: float = option(
        0.0,
        "method",
        "deviation of a Gaussian that draws a dense read-out to near patches, patches; 0: none",
        Role.METHOD,
        low=0,
    )
    dense_heads: str = option(
        "mean",
        "method",
        "attention that all heads share where several blocks are read out; ExCEL: sum",
        Role.METHOD,
        choices=("mean", "sum"),
    )
    dense_maps: str = option(
        "softmax",
        "method",
        "maps of a dense read-out: softmax over tags and background words, feature surgery, or the "
        "same with unit length over tokens (ExCEL)",
        Role.METHOD,
        choices=("softmax", "surgery", "surgery_by_channel"),
    )
    proxy: str = option(
        "none",
        "method",
        "whose patch features tell a dense read-out which patches are alike: a block of CLIP's, "
        "the class-token ViT's, DINO's, or the decoder's from the switch-over on",
        Role.METHOD,
        choices=("none", "clip", "vit", "dino", "learned"),
    )
    proxy_block: int = option(
        -4,
        "method",
        "CLIP block whose output --proxy clip compares; -1 would be the last, whose is not kept",
        Role.METHOD,
        high=-2,
    )
    proxy_beta: float = option(
        1.0,
        "method",
        "patches less alike than this many times the image's mean are left out; ProxyCLIP: 1.2",
        Role.METHOD,
        low=0,
        high=100,
    )
    proxy_gamma: float = option(
        3.0, "method", "how sharply the proxy tells patches apart", Role.METHOD, low=0, high=1000
    )

    @property
    def readout(self) -> DenseReadout:
        """Return how a dense read-out of CLIP is made."""
        residual = "none"
        heads = "own"
        if self.dense_blocks > 1:
            residual = "stream"
            heads = self.dense_heads

        parts = self.dense_parts
        if parts == "proxy":
            parts = ""

        return DenseReadout(
            parts, self.dense_blocks, heads=heads, std=self.dense_std, residual=residual
        )
