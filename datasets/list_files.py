"""List files: the names of images, one per line."""

from pathlib import Path, PurePosixPath

from datasets.folders import picture_suffixes
from utils.common.errors import UserError
from utils.common.files import decoded_text


def read_list(path: str | Path) -> list[str]:
    """Return the image names of a list file: one per line, blank lines skipped, any line ending, in
    any encoding of `decoded_text`.

    A line of an image and its mask, as DeepLab's lists have it (`/JPEGImages/NAME.jpg
    /SegmentationClassAug/NAME.png`), gives NAME.

    Raises:
        UserError: the file is missing, no text or holds no name.
    """
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError as error:
        raise UserError(
            f"list {path} does not exist; check the split's name or give another list file"
        ) from error
    except OSError as error:
        raise UserError(
            f"list {path} cannot be read ({error}); give a text of one image name per line"
        ) from error

    lines = map(str.strip, decoded_text(path, content).splitlines())
    names = [_listed(line) for line in lines if line]
    if not names:
        raise UserError(f"list {path} holds no image name; write one per line")
    return names


def _listed(line: str) -> str:
    """Return the image that a line of a list names.

    Two columns are told by their suffixes and by having one name, as names may hold spaces.
    """
    if " " not in line:
        return line

    image, _, mask = (PurePosixPath(part.strip()) for part in line.partition(" "))
    pair = (
        image.suffix.lower() in picture_suffixes()
        and mask.suffix == ".png"
        and image.stem == mask.stem
    )
    if pair:
        return image.stem
    return line


def check_names(source: Path, names: list[str]) -> None:
    """Raise UserError, which names the list `source`, where a name comes twice or leads out of the
    folder of images.
    """
    seen: set[str] = set()
    for name in names:
        if not is_plain(name) or "\\" in name or name[1:2] == ":":
            raise UserError(
                f"{source} lists {name!r}; list plain image names relative to the image folder"
            )
        if name in seen:
            raise UserError(f"{source} lists {name!r} twice; remove the second line")
        seen.add(name)


def is_plain(name: object) -> bool:
    """Tell whether a name stays below the folder it is relative to."""
    if not isinstance(name, str):
        return False
    odd = ":" in name or ".." in name or name.startswith(("/", "\\"))
    return not odd or (not Path(name).anchor and ".." not in Path(name).parts)
