"""Which attention maps of the class-token ViT are kept, and their sums over blocks."""

from __future__ import annotations

from torch import Tensor

from clip.blocks import mean_of_heads


class KeptAttention:
    """What is kept of the attention of a ViT's blocks, whose first tokens are those of classes.

    of_classes (B, K, K+N): attention of the class tokens, mean over heads, sum over blocks.
    of_patches (B, N, N): that between patches. weights (B, heads, K+N, K+N): of every block.
    The first two are None until there is something to add, the last is empty unless all is kept.
    """

    def __init__(self, maps: str, patch_block: int, classes: int) -> None:
        """maps, patch_block: as in `ClassTokenViT.forward`. classes: K."""
        self.maps = maps
        self.patch_block = patch_block
        self.classes = classes
        self.of_classes: Tensor | None = None
        self.of_patches: Tensor | None = None
        self.weights: list[Tensor] = []

    def rows(self, number: int, tokens: int) -> int:
        """Return of how many of the first tokens the attention is wanted, in block `number`, from
        0, of so many tokens.
        """
        if self.maps == "none":
            return 0
        if self.maps == "all" or self._counts_patches(number):
            return tokens
        return self.classes

    def add(self, number: int, weights: Tensor | None) -> None:
        """Keep what is wanted of the weights (B, heads, rows, K+N) of a block, None for no rows."""
        if weights is None:
            return

        mean = mean_of_heads(weights)
        self.of_classes = _plus(self.of_classes, mean[:, : self.classes])
        if self._counts_patches(number):
            between = mean[:, self.classes :, self.classes :]
            self.of_patches = _plus(self.of_patches, between)
        if self.maps == "all":
            self.weights.append(weights)

    def _counts_patches(self, number: int) -> bool:
        return self.patch_block in (0, number + 1)


def _plus(total: Tensor | None, part: Tensor) -> Tensor:
    """Add to a sum that may not have begun."""
    if total is None:
        return part
    return total + part
