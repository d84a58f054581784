"""SegmentationClassAug: the masks of SBD (Hariharan et al., ICCV 2011), those of PASCAL VOC where
it has one.

train_aug = SBD's train and val + VOC's train - VOC's val, which stays untouched for evaluation.
"""

from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
from scipy.io import loadmat

from datasets.list_files import read_list
from datasets.pictures import mask_png
from datasets.prepare.parallel import Each
from datasets.specs import IGNORE, VOC, palette
from utils.common.errors import UserError
from utils.common.files import write_whole


def augment(root: Path, sbd: Path, each: Each) -> str:
    """Write the list train_aug and the masks of train_aug and val that are not there yet; returns
    what was done.

    Raises:
        UserError: SBD's files are incomplete or malformed, or there is another list train_aug.
    """
    sbd = _folder_of(sbd)
    lists = root / "ImageSets" / "Segmentation"
    train, val = (read_list(lists / f"{split}.txt") for split in ("train", "val"))
    names = sorted({*read_list(sbd / "train.txt"), *read_list(sbd / "val.txt"), *train} - set(val))
    _write_list(lists / "train_aug.txt", names)
    voc = root / "SegmentationClass"
    aug = root / "SegmentationClassAug"
    own, theirs, done = (
        _stems(*place) for place in ((voc, ".png"), (sbd / "cls", ".mat"), (aug, ".png"))
    )
    maskless = [name for name in names if name not in own | theirs | done]
    if maskless:
        raise UserError(
            f"{len(maskless)} of the {len(names)} images of train_aug have no mask in "
            f"{sbd / 'cls'} or {voc}, first"
            f" {maskless[0]}; complete SBD"
        )

    wanted = [name for name in names if name not in done] + [
        name for name in val if name in own - done
    ]
    if not wanted:
        return f"{aug}: all masks of {len(names)} + {len(val)} images are there, nothing to do"

    from_voc = [name for name in wanted if name in own]
    from_sbd = [name for name in wanted if name not in own]
    start = perf_counter()

    for name in from_voc:
        write_whole(aug / f"{name}.png", (voc / f"{name}.png").read_bytes())

    for _ in each(partial(_convert, sbd / "cls", aug), from_sbd, aug.name):
        pass

    rate = f"{len(wanted) / (perf_counter() - start):.0f} per second"
    return (
        f"{aug}: {len(from_voc)} masks of VOC, {len(from_sbd)} of SBD written ({rate}), "
        f"{len(done)} were there"
    )


def list_from_masks(root: Path) -> str:
    """Write the list train_aug from the masks in SegmentationClassAug and VOC's own list train, of
    whose images it may lack some, without the images of val; return what was done, "" where there
    are no such masks.

    Raises UserError where there is no list val.
    """
    names = _stems(root / "SegmentationClassAug", ".png")
    if not names:
        return ""

    lists = root / "ImageSets" / "Segmentation"
    train: list[str] = []
    if (lists / "train.txt").is_file():
        train = read_list(lists / "train.txt")
    kept = sorted({*names, *train} - set(read_list(lists / "val.txt")))
    if not kept:
        return ""

    _write_list(lists / "train_aug.txt", kept)
    return (
        f"{lists / 'train_aug.txt'}: {len(kept)} images, those of train and of the {len(names)} "
        "masks in SegmentationClassAug that are not of val"
    )


def read_sbd(path: Path) -> np.ndarray:
    """Read the (H, W) uint8 labels 0..K of one of SBD's cls/*.mat.

    Raises:
        UserError: the file is missing, no MATLAB file, or holds no labels of VOC.
    """
    try:
        labels = loadmat(path, variable_names=["GTcls"])["GTcls"]["Segmentation"][0, 0]
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; complete SBD") from error
    except Exception as error:  # bytes that are no MATLAB file make the reader fail in any way
        raise UserError(
            f"{path} is no MATLAB file with GTcls.Segmentation ({error}); unpack SBD again"
        ) from error

    known = np.array(False)
    if labels.dtype.kind in "uif":
        known = np.isin(labels, [*range(len(VOC.label_names)), IGNORE])
    if labels.ndim != 2 or not known.all():
        raise UserError(
            f"{path} holds other values than labels 0..{len(VOC.classes)}; unpack SBD again"
        )

    return labels.astype(np.uint8)


def _convert(cls: Path, aug: Path, name: str) -> None:
    write_whole(aug / f"{name}.png", mask_png(read_sbd(cls / f"{name}.mat"), palette()))


def _folder_of(sbd: Path) -> Path:
    """Return the folder with cls/ and the lists, in or below what was given."""
    for folder in (sbd, sbd / "dataset", sbd / "benchmark_RELEASE" / "dataset"):
        if (folder / "cls").is_dir():
            return folder
    raise UserError(
        f"--sbd {sbd} has no folder cls; give SBD's folder that holds cls/, train.txt and val.txt"
    )


def _stems(folder: Path, suffix: str) -> set[str]:
    if not folder.is_dir():
        return set()
    return {path.stem for path in folder.iterdir() if path.suffix == suffix and path.name[0] != "."}


def _write_list(path: Path, names: list[str]) -> None:
    """Write an image list; one that holds the same names, in any order, is left as it is."""
    if not path.is_file():
        write_whole(path, "".join(f"{name}\n" for name in names).encode())
    elif set(read_list(path)) != set(names):
        raise UserError(
            f"{path} lists other images than SBD's and VOC's lists give ({len(names)}); remove it "
            "to have it written"
        )
