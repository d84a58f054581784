"""OpenCV, or what says how to mend it, as its usual build needs display libraries."""

from types import ModuleType
from typing import Any

from utils.common.errors import UserError


class _Broken:
    """Stands for a module that cannot be imported, until something of it is needed."""

    def __init__(self, error: ImportError) -> None:
        self._error = error

    def __getattr__(self, name: str) -> Any:
        raise UserError(
            f"OpenCV cannot be imported ({self._error}); in this environment, `pip uninstall "
            "opencv-python` and `pip install opencv-python-headless`"
        )


cv2: ModuleType | _Broken
try:
    import cv2

    # What it says of damaged files is said in one sentence by whoever reads them.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
except ImportError as error:
    cv2 = _Broken(error)
