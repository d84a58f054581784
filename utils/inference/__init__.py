"""From a picture to its labels."""

from utils.inference.labeller import Labeller
from utils.inference.segmenter import Segmenter

__all__ = ["Labeller", "Segmenter"]
