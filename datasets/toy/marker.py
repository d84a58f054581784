"""How a toy set on disk is known."""

import json
from functools import cache
from pathlib import Path

MARKER = "toy.json"  # in its folder, once it is whole
FORMS = ("voc", "coco", "custom")  # `layout` in the marker


def is_drawn(picture: Path) -> bool:
    """Tell whether a picture, or another file, lies in a toy set that is whole."""
    return any(_holds_toy(folder) for folder in picture.absolute().parents)


@cache
def _holds_toy(folder: Path) -> bool:
    try:
        found = json.loads((folder / MARKER).read_text())
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("layout") in FORMS
