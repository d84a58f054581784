"""From a picture to its labels."""

from utils.inference.segmenter import Segmenter

__all__ = ["Segmenter"]
