"""The folder of temporary files; `utils.tools.launch` asks for it before PyTorch is there."""

import tempfile

from utils.common.errors import UserError


def temporary_folder() -> str:
    """Return the folder of temporary files. Raises UserError where none can be written."""
    try:
        return tempfile.gettempdir()
    except OSError as error:
        raise UserError(
            f"no folder for temporary files can be written ({error}); set TMPDIR to one that can"
        ) from None
