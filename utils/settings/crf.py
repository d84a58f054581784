"""The numbers of the dense CRF."""

from dataclasses import dataclass


@dataclass(frozen=True)
class CRFSettings:
    """Rounds of mean field, and deviation and weight of the two kernels of a dense CRF.

    pos_xy_std, pos_w: deviation (pixels) and weight of the spatial kernel. bi_xy_std, bi_rgb_std,
    bi_w: deviations (pixels, grey levels) and weight of the bilateral kernel.
    """

    iterations: int = 10
    pos_xy_std: float = 3.0
    pos_w: float = 3.0
    bi_xy_std: float = 64.0
    bi_rgb_std: float = 5.0
    bi_w: float = 4.0

    @property
    def words(self) -> str:
        """Return the numbers in words, as they stand beside results."""
        return (
            f"{self.iterations} iterations; Gaussian kernel of {self.pos_xy_std:g} px, weight "
            f"{self.pos_w:g}; bilateral kernel of {self.bi_xy_std:g} px and "
            f"{self.bi_rgb_std:g} grey levels, weight {self.bi_w:g}"
        )
