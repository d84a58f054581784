"""Seed files of this field's codes are read for what they hold; what cannot be scored is told."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from utils.common.console import begin_notices
from utils.common.errors import UserError
from utils.inference.seed_files import LAYOUTS, packed, read_seeds

SIZE = (9, 7)
KEYS = [2, 5]
MAPS = np.random.default_rng(0).random((2, *SIZE)).astype(np.float16).astype(np.float32)
WITH_BACKGROUND = np.concatenate([np.full((1, *SIZE), 0.9, np.float32), MAPS])
PADDED = np.pad(np.array(KEYS) + 1, (1, 0))  # background's key, then classes from 1 on
STRIDED = torch.rand(2, 3, 2)
LABEL = torch.zeros(20).index_fill(0, torch.tensor(KEYS), 1)


def by_class(maps: Any) -> dict:
    """What SEAM and MCTformer save."""
    return {key: maps[number] for number, key in enumerate(KEYS)}


def irn(high_res: Any, label: torch.Tensor = LABEL) -> dict:
    """What IRN saves, its classes and strided CAMs as tensors."""
    return {"keys": torch.nonzero(label)[:, 0], "cam": STRIDED.cpu(), "high_res": high_res}


SAVED: dict[str, Callable[[], dict]] = {
    "SEAM": lambda: by_class(MAPS),
    "MCTformer in half": lambda: by_class(MAPS.astype(np.float16)),
    "classes of NumPy": lambda: {np.int64(key): each for key, each in by_class(MAPS).items()},
    "tensors by class": lambda: by_class(torch.from_numpy(MAPS)),
    "IRN": lambda: irn(MAPS),
    "LPCAM": lambda: irn(torch.from_numpy(MAPS)),
    "arrays alone": lambda: {"keys": np.array(KEYS), "cam": STRIDED.numpy(), "high_res": MAPS},
    "CLIP-ES": lambda: {"keys": np.array(KEYS), "attn_highres": MAPS.astype(np.float16)},
    "CLIP-ES, both": lambda: {
        "keys": np.array(KEYS),
        "highres": np.zeros_like(MAPS),
        "attn_highres": MAPS,
    },
    "another name": lambda: {"keys": np.array(KEYS, np.int32), "mine": MAPS.astype(np.float64)},
    "AMN": lambda: irn(WITH_BACKGROUND) | {"cam": torch.rand(3, 3, 2)},
    "PuzzleCAM": lambda: {"keys": PADDED, "cam": STRIDED, "hr_cam": MAPS},
    "PuzzleCAM's random walk": lambda: {"keys": PADDED, "rw": MAPS},
    "Fortran": lambda: {"keys": KEYS, "mine": np.asfortranarray(MAPS)},
}


@pytest.mark.parametrize("form", SAVED)
def test_what_other_codes_save(form: str, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", SAVED[form]())
    keys, scores = read_seeds(tmp_path / "a.npy", SIZE, 20)
    assert keys.tolist() == KEYS and scores.dtype == torch.float32
    np.testing.assert_array_equal(scores.numpy(), MAPS)


def test_a_map_of_the_background_is_left_out_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begin_notices()
    for name in ("a", "b"):
        np.save(tmp_path / f"{name}.npy", SAVED["AMN"]())
        read_seeds(tmp_path / f"{name}.npy", SIZE, 20)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "a.npy has one more map in high_res than `keys`" in said


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("count", [2, 0])
def test_what_this_project_exports(layout: str, count: int, tmp_path: Path) -> None:
    path = tmp_path / f"a{LAYOUTS[layout]}"
    path.write_bytes(packed(layout, torch.tensor(KEYS)[:count], torch.from_numpy(MAPS)[:count]))
    keys, scores = read_seeds(path, SIZE, 20)
    assert keys.tolist() == KEYS[:count] and keys.dtype == torch.int64
    np.testing.assert_array_equal(scores.numpy(), MAPS[:count])


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"keys": torch.nonzero(torch.zeros(20))[:, 0]},
        irn(MAPS[:0], torch.zeros(20)),
        {"keys": PADDED[:1], "hr_cam": MAPS[:0]},
    ],
    ids=["SEAM", "ReCAM and AMN on COCO", "IRN", "PuzzleCAM"],
)
def test_a_picture_without_tags_is_background(content: dict, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", content)
    keys, scores = read_seeds(tmp_path / "a.npy", SIZE, 20)
    assert keys.shape == (0,) and scores.shape == (0, *SIZE)


def test_what_rounding_leaves_is_not_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", {3: np.full(SIZE, np.nextafter(np.float16(1), np.float16(2)))})
    assert read_seeds(tmp_path / "a.npy", SIZE, 20)[1].max() > 1


class Bomb:
    """Unpickled, it makes a folder where the process stands."""

    def __reduce__(self) -> tuple:
        return os.mkdir, ("made",)


ANY = np.array(KEYS)
REFUSED: dict[str, tuple[Any, str]] = {
    "code": ({"keys": ANY, "cam": Bomb()}, "holds, after 128 bytes .* a call of 'posix mkd"),
    "an array": (MAPS, "is no .npy file of a dict; give seed files of a layout that --help"),
    "a list": ([{2: MAPS[0]}] * 2, "does not hold one dict; give"),
    "texts": ({"img": MAPS[0]}, "an entry 'img' that is no map of a class"),
    "no map": ({2: "high"}, "an entry 2 that is no map of a class"),
    "class K": ({20: MAPS[0]}, r"has the class 20, and the classes are 0\.\.19 without background"),
    "a class below": ({"keys": ANY - 3, "cam": MAPS}, "has the class -1, and the classes"),
    "fractions": ({"keys": ANY / 2, "cam": MAPS}, "`keys` that are no array of whole numbers"),
    "a number": ({"keys": 3, "cam": MAPS}, "`keys` that are no array of whole numbers"),
    "quarter size": (
        {"keys": ANY, "cam": STRIDED},
        r"no maps of shape \(2, 9, 7\), which its mask has: cam is \(2, 3, 2\); save maps at",
    ),
    "turned": ({2: MAPS[0].T}, r"no maps of shape \(9, 7\), .*: class 2 is \(7, 9\)"),
    "no maps": ({"keys": ANY}, "which its mask has: there are none"),
    "two maps more": ({"keys": ANY, "high_res": np.zeros((4, *SIZE))}, r"high_res is \(4, 9, 7\)"),
    "a map too few": ({"keys": ANY, "hr_cam": MAPS[:1]}, r"no maps of shape \(2, 9, 7\), .*hr_cam"),
    "0 twice": ({"keys": PADDED * [1, 0, 1], "rw": MAPS}, r"no maps of shape \(3, 9, 7\)"),
    "two maps with background": (
        {"keys": ANY, "a": WITH_BACKGROUND, "b": WITH_BACKGROUND},
        "several maps .*, a and b; keep the one",
    ),
    "two maps": ({"keys": ANY, "a": MAPS, "b": MAPS}, "several maps .*, a and b; keep the one"),
    "logits": ({2: MAPS[0] * 30 - 15}, r"scores of -1\d\.\d+ to 1\d\.\d+, and background thr"),
    "NaN": ({2: np.full(SIZE, np.nan)}, "scores that are NaN or infinite; make it anew"),
    "infinite": ({2: np.full(SIZE, 1e300)}, "scores that are NaN or infinite"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_scored_is_told(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    content, said = REFUSED[case]
    np.save("a.npy", content)
    with pytest.raises(UserError, match=f"^a.npy .*{said}") as caught:
        read_seeds(Path("a.npy"), SIZE, 20)
    assert "\n" not in str(caught.value) and not Path("made").exists()


def test_archives_are_read_without_pickle(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", keys=ANY, high_res=MAPS)
    assert read_seeds(tmp_path / "a.npz", SIZE, 20)[0].tolist() == KEYS
    np.savez(tmp_path / "pickled.npz", keys=ANY, scores=np.array([Bomb()]))
    with open(tmp_path / "cut.npz", "wb") as file:
        file.write((tmp_path / "a.npz").read_bytes()[:-40])
    for name, said in (("pickled", "Object arrays cannot be loaded"), ("cut", "not a zip file")):
        with pytest.raises(UserError, match=rf"{name}.npz cannot be read \(.*{re.escape(said)}"):
            read_seeds(tmp_path / f"{name}.npz", SIZE, 20)


def test_large_files_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("utils.inference.seed_files._LARGEST", 1 << 20)
    np.savez_compressed(tmp_path / "a.npz", keys=ANY, scores=np.zeros(1 << 20))
    with open(tmp_path / "a.npy", "wb") as file:
        file.truncate((1 << 20) + 1)
    for path in (tmp_path / "a.npz", tmp_path / "a.npy"):
        with pytest.raises(UserError, match="holds more than 1 MiB, too much for seeds of one"):
            read_seeds(path, SIZE, 20)
    with pytest.raises(UserError, match="absent.npy cannot be read"):
        read_seeds(tmp_path / "absent.npy", SIZE, 20)
