"""OpenCV, or what says how to mend it, as its usual build needs display libraries."""

from types import ModuleType
from typing import Any

from utils.common.errors import UserError

_SILENT = 0  # OpenCV's LOG_LEVEL_SILENT


class _Broken:
    """Stands for a module that cannot be imported, until something of it is needed."""

    def __init__(self, error: ImportError) -> None:
        self._error = error

    def __getattr__(self, name: str) -> Any:
        raise UserError(
            f"OpenCV cannot be imported ({self._error}); in this environment, `pip uninstall "
            "opencv-python` and `pip install opencv-python-headless`"
        )


def be_silent(library: Any) -> None:
    """Make OpenCV print nothing: what it says of damaged files is said in one sentence by whoever
    reads them. Versions have the switch in different places.
    """
    tools = getattr(library, "utils", None)
    for place in (getattr(tools, "logging", None), tools, library):
        switch = getattr(place, "setLogLevel", None)
        if switch is not None:
            switch(_SILENT)
            return


cv2: ModuleType | _Broken
try:
    import cv2

    be_silent(cv2)
except ImportError as error:
    cv2 = _Broken(error)
