"""What np.save writes of a dict of arrays and tensors is read, and nothing in it is run."""

import io
import os
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from utils.common.plain_pickle import read_npy_dict, read_plain

MAPS = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
ARRAYS = {
    "C": MAPS,
    "Fortran": np.asfortranarray(MAPS),
    "transposed": MAPS.transpose(1, 2, 0),
    "a part": MAPS[:, ::2],
    "half": MAPS.astype(np.float16),
    "big-endian": MAPS.astype(">f8"),
    "empty": MAPS[:0],
    "no axis": MAPS[1, 2, 3, None].reshape(()),
}
TENSORS = {
    "whole": torch.from_numpy(MAPS.copy()),
    "a part": torch.from_numpy(MAPS.copy())[1:, :, ::2],
    "transposed": torch.from_numpy(MAPS.copy()).permute(2, 0, 1),
    "half": torch.from_numpy(MAPS.copy()).half(),
    "numbers": torch.nonzero(torch.tensor([0, 1, 1]))[:, 0],
    "no numbers": torch.nonzero(torch.zeros(3))[:, 0],
    "one number": torch.tensor(3),
    "parameters": torch.ones(2, 2, requires_grad=True),
}


def saved(content: dict) -> bytes:
    """The file that np.save writes."""
    stream = io.BytesIO()
    np.save(stream, content)
    return stream.getvalue()


@pytest.mark.parametrize("form", ARRAYS)
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_arrays_of_every_order_and_protocol(form: str, protocol: int) -> None:
    read = read_plain(pickle.dumps({np.int64(7): ARRAYS[form]}, protocol=protocol))
    assert list(read) == [7] and read[7].dtype == ARRAYS[form].dtype
    np.testing.assert_array_equal(read[7], ARRAYS[form], strict=True)


@pytest.mark.parametrize("form", ARRAYS)
def test_the_names_of_numpy_1_and_2(form: str) -> None:
    written = pickle.dumps(ARRAYS[form], protocol=2)
    for former, later in ((b"numpy._core.", b"numpy.core."), (b"numpy.core.", b"numpy._core.")):
        read = read_plain(written.replace(former, later))
        np.testing.assert_array_equal(read, ARRAYS[form], strict=True)


@pytest.mark.parametrize("form", TENSORS)
@pytest.mark.parametrize("protocol", [2, 4])
def test_tensors_of_pytorch(form: str, protocol: int) -> None:
    read = read_plain(pickle.dumps([TENSORS[form]], protocol=protocol))[0]
    np.testing.assert_array_equal(read, TENSORS[form].detach().numpy(), strict=True)


class OnGPU:
    """A tensor as a machine with a GPU pickles one that is there."""

    def __reduce__(self) -> tuple:
        storage, *form = TENSORS["whole"].__reduce_ex__(4)[1]
        content = storage.__reduce__()[1][0]
        for here, there in ((b"ctorch\n", b"ctorch.cuda\n"), (b"\3\0\0\0cpu", b"\6\0\0\0cuda:0")):
            assert here in content
            content = content.replace(here, there)
        return torch._utils._rebuild_tensor_v2, (Loaded(content), *form)


def test_tensors_of_a_gpu() -> None:
    read = read_plain(pickle.dumps(OnGPU()))
    np.testing.assert_array_equal(read, MAPS, strict=True)


def test_what_np_save_writes_of_a_dict() -> None:
    read = read_npy_dict(saved({"keys": TENSORS["numbers"], "cam": TENSORS["whole"].bfloat16()}))
    assert read["keys"].tolist() == [1, 2] and read["cam"].dtype == np.float32
    np.testing.assert_array_equal(read["cam"], MAPS)
    assert read_npy_dict(saved({})) == {}
    np.testing.assert_array_equal(read_npy_dict(saved(OrderedDict({3: MAPS})))[3], MAPS)
    for content in (MAPS, [MAPS]):
        with pytest.raises(ValueError, match="is no .npy file of a dict"):
            read_npy_dict(saved(content))


class Bomb:
    """Unpickled, it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.folder),)


class Shaped:
    """A tensor of a shape and strides that its storage of two numbers does not have."""

    def __init__(self, *form: Any) -> None:
        self.form = form

    def __reduce__(self) -> tuple:
        storage = torch.ones(2).untyped_storage()
        typed = torch.storage.TypedStorage(
            wrap_storage=storage, dtype=torch.float32, _internal=True
        )
        return torch._utils._rebuild_tensor_v2, (typed, *self.form, False, OrderedDict())


class Loaded:
    """What a tensor's storage would be loaded from, of any bytes."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def __reduce__(self) -> tuple:
        return torch.storage._load_from_bytes, (self.content,)


def test_code_is_not_run(tmp_path: Path) -> None:
    bomb = Bomb(tmp_path / "made")
    inner = io.BytesIO()
    torch.save(bomb, inner, _use_new_zipfile_serialization=False)
    bombs: dict[str, Any] = {
        "a call of 'posix mkdir'": bomb,
        "a tensor that cannot be read .it would call posix.mkdir": Loaded(inner.getvalue()),
        "a tensor that cannot be read .it is a pickle that torch.save": Loaded(pickle.dumps([1])),
    }
    for said, content in bombs.items():
        with pytest.raises(ValueError, match=f"^holds, after 128 bytes of header at byte .*{said}"):
            read_npy_dict(saved({"keys": content}))
    assert not (tmp_path / "made").exists()


WRONG: dict[str, Callable[[], Any]] = {
    "outside its storage": lambda: Shaped(1, (2,), (1,)),
    "huge without memory": lambda: Shaped(0, (1 << 30, 1 << 30), (0, 0)),
    "before its storage": lambda: Shaped(-1, (1,), (1,)),
    "no bytes": lambda: Loaded(b""),
}


@pytest.mark.parametrize("case", WRONG)
def test_tensors_that_are_none_are_refused(case: str) -> None:
    with pytest.raises(ValueError, match="^at byte .*tensor") as caught:
        read_plain(pickle.dumps(WRONG[case]()))
    assert "\n" not in str(caught.value)


def test_damaged_tensors_are_read_or_refused_in_one_sentence() -> None:
    content = saved({"cam": TENSORS["whole"]})
    for place in range(128, len(content)):
        for spoilt in (content[:place], content[:place] + b"\xff" + content[place + 1 :]):
            try:
                read_npy_dict(spoilt)
            except ValueError as error:
                assert "\n" not in str(error)
