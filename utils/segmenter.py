"""The former place of `Segmenter`, which is `utils.inference.Segmenter` now."""

from utils.inference.segmenter import Segmenter

__all__ = ["Segmenter"]
