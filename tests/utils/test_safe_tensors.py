"""Weights in every form that is accepted, and files that are none: refused in one sentence, never
run.
"""

import argparse
import datetime
import json
import os
import pickle
import re
import resource
import struct
import sys
import warnings
import zipfile
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from archives import Payload, as_archive, as_pickle, save_torchscript
from helpers import clip_tensors, tiny_clip
from safetensors.torch import save_file
from torch import Tensor, nn

from clip.loader import load_clip
from clip.model import CLIP, VisionTransformer
from utils.common.errors import UserError
from utils.common.safe_tensors import read_tensors
from utils.common.weights import PUBLIC

FORMS: dict[str, Callable[[dict[str, Tensor], Path], object]] = {
    "torchscript.pt": save_torchscript,
    "bare.pt": torch.save,
    "wrapped.pth": lambda tensors, path: torch.save({"state_dict": tensors, "epoch": 3}, path),
    "model.pth": lambda tensors, path: torch.save({"model": tensors}, path),
    "legacy.pt": lambda tensors, path: torch.save(
        tensors, path, _use_new_zipfile_serialization=False
    ),
    "plain.safetensors": save_file,
}


def rounded() -> dict[str, Tensor]:
    """A tiny CLIP's tensors with values that half precision holds exactly."""
    return {
        n: t.half().float() if t.is_floating_point() else t
        for n, t in clip_tensors(tiny_clip()).items()
    }


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_features(form: str, tmp_path: Path) -> None:
    tensors = rounded()
    FORMS[form](tensors, tmp_path / form)
    model, expected = load_clip(tmp_path / form, "quick_gelu"), CLIP.from_state_dict(tensors)
    images = torch.randn(2, 3, 48, 80)
    tokens = model.token_ids[None, :8].repeat(2, 1)
    assert torch.equal(model.visual(images), expected.visual(images))
    assert torch.equal(model.encode_text(tokens), expected.encode_text(tokens))
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_a_torchscript_archive_of_the_official_size(tmp_path: Path) -> None:
    with torch.device("meta"):
        official = CLIP(VisionTransformer(768, 12, 512, 16, 14), 512, 512, 12)
    tensors = {
        n: torch.full(t.shape, i / 1024, dtype=torch.half)
        for i, (n, t) in enumerate(official.state_dict().items())
    }
    assert sum(t.numel() for t in tensors.values()) == 149_620_737  # CLIP ViT-B/16, as published
    save_torchscript(tensors, tmp_path / "own.pt")
    model = load_clip(tmp_path / "own.pt")
    assert model.state_dict().keys() == tensors.keys() and model.token_ids is None
    for name, tensor in model.state_dict().items():
        assert (
            tensor.shape == tensors[name].shape
            and tensor.flatten()[-1] == tensors[name].flatten()[-1]
        ), name
    assert len(model.visual.blocks) == 12 and model.visual.blocks[0].attn.heads == 12
    assert model.transformer.resblocks[0].attn.heads == 8


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_truncated_files_are_refused(form: str, share: float, tmp_path: Path) -> None:
    FORMS[form](rounded(), tmp_path / form)
    content = (tmp_path / form).read_bytes()
    (tmp_path / form).write_bytes(content[: int(len(content) * share)])
    with pytest.raises(
        UserError, match=f"{re.escape(form)} cannot be read .*truncated.*fetch it again$"
    ) as caught:
        load_clip(tmp_path / form)
    assert "\n" not in str(caught.value)


OTHER_FILES = {
    "text": (b"hello\n", "it is text, 'hello'.; it is not a weights file"),
    "page": (b"\n<!DOCTYPE html><html></html>", "it is a web page.; .*fetch the file itself"),
    "answer of a server": (b"<?xml version='1.0'?><Error>", "it is text, .<.xml"),
    "pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid",
        "Git LFS pointer.*git lfs pull",
    ),
    "lost link": (b"../../blobs/c65b21d1", "text of a lost link"),
    "nothing": (b"", "it is empty.; it is truncated or not a weights file"),
    "picture": (b"GIF89a", "not a weights file"),
    "compressed": (b"\x1f\x8b\x08\x00", "compressed by gzip.*unpack"),
    "keras": (b"\x89HDF\r\n\x1a\n", "HDF5 file"),
    "zeros": (bytes(2000), "begins with zeros, as a download under way"),
    "empty pickle": (b"\x80\x02.", "not a weights file"),
    "noise": (bytes(range(255, 100, -1)), "no known form.*not a weights file"),
    "start of an archive": (b"PK\x03\x04", "its end is missing.; it is truncated, fetch it again"),
    "source": (b"(1, 2)", "it is text"),
}


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize("case", OTHER_FILES)
def test_other_files_are_refused_with_what_they_are(case: str, suffix: str, tmp_path: Path) -> None:
    content, said = OTHER_FILES[case]
    path = tmp_path / f"weights.{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"{path.name} cannot be read .*{said}") as caught:
        read_tensors(path, "CLIP file")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, {"model": {"a": "text"}}, torch.ones(2)])
def test_files_without_a_state_dict_are_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(UserError, match="holds no state dict"):
        read_tensors(tmp_path / "a.pt", "CLIP file")


def test_missing_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "absent.pt"
    with pytest.raises(UserError, match=f"CLIP file {re.escape(str(path))} does not exist"):
        load_clip(path)


def without(name: str) -> dict[str, Tensor]:
    return {n: t for n, t in clip_tensors(tiny_clip()).items() if n != name}


@pytest.mark.parametrize(
    ("tensors", "named"),
    [
        (without("visual.ln_post.bias"), "visual.ln_post.bias"),
        (without("positional_embedding"), "positional_embedding"),
        (without("visual.conv1.weight"), "visual.conv1.weight"),
        (without("") | {"visual.extra": torch.ones(1)}, "visual.extra"),
        (without("") | {"ln_final.weight": torch.ones(3)}, "ln_final.weight"),
        (without("") | {"visual.conv1.weight": torch.ones(3)}, "visual.conv1.weight of 4"),
        (
            {"cls_token": torch.ones(1, 1, 384), "head.bias": torch.ones(1000)},
            "visual.conv1.weight",
        ),  # a DeiT file
        ({}, "visual.conv1.weight"),
    ],
)
def test_a_state_dict_that_is_not_a_clip_is_refused_by_tensor(
    tensors: dict[str, Tensor], named: str, tmp_path: Path
) -> None:
    torch.save(tensors, tmp_path / "a.pt")
    with pytest.raises(UserError, match=f"a.pt is not a CLIP ViT .*{named}") as caught:
        load_clip(tmp_path / "a.pt", "gelu")
    assert "\n" not in str(caught.value)


def test_the_official_name_needs_the_official_bytes(tmp_path: Path) -> None:
    path = tmp_path / PUBLIC["clip"].name
    save_torchscript(rounded(), path)
    with pytest.raises(
        UserError, match=f"{path.name} has SHA-256 .* not that of the official file"
    ):
        load_clip(path)
    load_clip(path.rename(tmp_path / "own.pt"))
    torch.save(rounded(), path)  # made from the official file, as many did, and no damaged copy
    load_clip(path, "quick_gelu")


@pytest.mark.parametrize("save", [as_pickle, torch.save, as_archive])
@pytest.mark.parametrize("kind", ["open", "system"])
@pytest.mark.parametrize(
    "wrap", [lambda payload: payload, lambda payload: {"visual.proj": payload}]
)
def test_a_file_that_would_run_code_is_refused_and_does_not_run(
    kind: str, wrap: Callable, save: Callable, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    payload = (
        Payload(open, str(trace), "w")
        if kind == "open"
        else Payload(os.system, f"echo > '{trace}'")
    )
    pickle.loads(pickle.dumps(payload))
    assert trace.is_file()  # the payload works
    trace.unlink()
    save(wrap(payload), tmp_path / "weights.pt")
    with pytest.raises(UserError, match="cannot be read"):
        load_clip(tmp_path / "weights.pt")
    assert not trace.exists()


# what trainings keep beside their weights


class Settings(argparse.Namespace):
    """A class of somebody's training script."""


def training(tensors: dict[str, Tensor]) -> dict[str, object]:
    """A checkpoint with everything in it that people's trainings leave there."""
    weight = nn.Parameter(torch.ones(3))
    optimiser = torch.optim.AdamW([weight], lr=1e-3)
    weight.grad = torch.ones(3)
    optimiser.step()
    # what `torch.amp.GradScaler` is where PyTorch has it
    scaler = (
        torch.cuda.amp.GradScaler(enabled=False)
        if torch.__version__ < "2.3"
        else torch.amp.GradScaler("cpu")
    )
    return {
        "args": argparse.Namespace(lr=1e-3, data=Path("/data"), sizes=torch.Size([3, 4])),
        "settings": Settings(device=torch.device("cuda"), dtype=torch.bfloat16),
        "best": np.float64(71.2),
        "history": [np.arange(3), np.int64(7), {"a", "b"}, defaultdict(list, x=[1])],
        "optimizer": optimiser.state_dict(),
        "scheduler": torch.optim.lr_scheduler.StepLR(optimiser, 3).state_dict(),
        "scaler": scaler.state_dict(),
        "rng": torch.get_rng_state(),
        "when": datetime.datetime(2026, 1, 1),
        "counts": Counter("abc"),
        "activation": torch.nn.functional.gelu,
        "state_dict": OrderedDict((name, nn.Parameter(t)) for name, t in tensors.items()),
    }


@pytest.mark.parametrize("modern", [True, False])
@pytest.mark.parametrize("protocol", [2, 4])
def test_checkpoints_of_trainings_are_read_and_nothing_of_them_is_made(
    protocol: int, modern: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    floats = {name: t for name, t in rounded().items() if t.is_floating_point()}
    torch.save(
        training(floats),
        tmp_path / "a.pt",
        pickle_protocol=protocol,
        _use_new_zipfile_serialization=modern,
    )
    monkeypatch.setattr(argparse, "Namespace", None)
    monkeypatch.delattr(sys.modules[__name__], "Settings")
    found = read_tensors(tmp_path / "a.pt", "CLIP file")
    assert found.keys() == floats.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in floats.items())


def test_tensors_that_share_memory_and_turned_ones_are_read(tmp_path: Path) -> None:
    whole = torch.arange(24.0).view(4, 6)
    tensors = {"whole": whole, "turned": whole.T, "part": whole[1:3, ::2], "one": whole[2, 3]}
    tensors["none"] = whole[:0]
    for modern in (True, False):
        torch.save(tensors, tmp_path / "a.pt", _use_new_zipfile_serialization=modern)
        found = read_tensors(tmp_path / "a.pt", "weights")
        assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
        assert all(tensor.is_contiguous() for tensor in found.values())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.uint8])
@pytest.mark.parametrize("save", [torch.save, save_file])
def test_data_types(dtype: torch.dtype, save: Callable, tmp_path: Path) -> None:
    tensors = {"a": torch.arange(6).view(2, 3).to(dtype), "b": torch.ones((), dtype=dtype)}
    save(tensors, tmp_path / "a.bin")
    found = read_tensors(tmp_path / "a.bin", "weights")
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    assert {tensor.dtype for tensor in found.values()} == {dtype}


@pytest.mark.skipif(
    not hasattr(torch.serialization, "set_crc32_options"), reason="this PyTorch writes none such"
)
def test_a_file_without_checksums_is_read(tmp_path: Path) -> None:
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(rounded(), tmp_path / "a.pt")
    finally:
        torch.serialization.set_crc32_options(before)
    assert torch.equal(
        read_tensors(tmp_path / "a.pt", "weights")["visual.proj"], rounded()["visual.proj"]
    )


def test_one_changed_bit_is_found(tmp_path: Path) -> None:
    torch.save({"a": torch.full((1000,), 3.0), "b": torch.ones(1000)[3:900]}, tmp_path / "a.pt")
    for value in (3.0, 1.0):
        content = bytearray((tmp_path / "a.pt").read_bytes())
        content[content.index(struct.pack("<3f", *[value] * 3)) + 100] ^= 1
        (tmp_path / "b.pt").write_bytes(content)
        with pytest.raises(UserError, match=r"record a/data/\d is damaged.*fetch it again"):
            read_tensors(tmp_path / "b.pt", "weights")


# what is refused, with its reason


def whole_module(path: Path) -> None:
    torch.save(nn.Linear(2, 2), path)


def module_in_a_checkpoint(path: Path) -> None:
    torch.save({"epoch": 3, "model": nn.Linear(2, 2)}, path)


def packed_anew(path: Path, how: int = zipfile.ZIP_DEFLATED, **changed: bytes) -> None:
    torch.save({"a": torch.zeros(1000)}, path)
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", how) as archive:
        for name, content in records.items():
            archive.writestr(name, changed.get(name.partition("/")[2], content))


def packed_with_others(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ViT-B-16.pt", b"weights")


def plain_pickle(path: Path) -> None:
    as_pickle({"a": [1, 2]}, path)


def quantised(path: Path) -> None:
    tensor = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
    torch.save({"a": tensor}, path)


def big_endian(path: Path) -> None:
    packed_anew(path, zipfile.ZIP_STORED, byteorder=b"big")


REFUSED = {
    whole_module: "no state dict but a whole pickled torch.nn.modules.linear.Linear, whose code",
    module_in_a_checkpoint: "no state dict but a whole pickled torch.nn.modules.linear.Linear",
    packed_anew: "data.pkl is compressed",
    packed_with_others: "zip archive of something else",
    plain_pickle: "a pickle that torch.save did not write, of a Python dict",
    quantised: "a is a whole pickled torch._utils._rebuild_qtensor",
    big_endian: "its numbers are big-endian",
}


@pytest.mark.parametrize("make", REFUSED)
def test_the_reason_is_the_true_one(make: Callable[[Path], None], tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # quantised tensors are deprecated
        make(tmp_path / "a.pt")
    with pytest.raises(UserError, match=f"a.pt .*{REFUSED[make]}") as caught:
        read_tensors(tmp_path / "a.pt", "CLIP file")
    assert "\n" not in str(caught.value) and "fetch" not in str(caught.value)


def header(entries: dict[str, object], data: bytes = bytes(8)) -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype: str, shape: list[int], first: int, end: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [first, end]}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (header({"a": entry("F32", [2], 0, 9)}), r"it has \d+ of \d+ bytes.*truncated"),
        (header({"a": entry("F32", [3], 0, 8)}), "larger than the tensor a"),
        (header({"a": entry("F32", [2**40, 0], 0, 0), "b": entry("F32", [-1], 0, 8)}), "the shape"),
        (header({"a": entry("F32", [2], 8, 0)}), "ends before it begins"),
        (header({"a": entry("F32", [2], -8, 0)}), "ends before it begins"),
        (header({"a": entry("F8_E4M3", [8], 0, 8)}), "a is of type F8_E4M3"),
        (header({str(n): entry("U8", [8], 0, 8) for n in range(99)}, bytes(8)), None),
        (header({str(n): entry("U8", [8000], 0, 8000) for n in range(99)}, bytes(8000)), "overlap"),
        (header({"a": 3}), "truncated or not a weights file"),
        (struct.pack("<Q", 5000) + b"{}", "its header has 5000 bytes"),
    ],
)
def test_safetensors_that_lie_about_themselves(
    content: bytes, said: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    if said is None:  # small enough to do no harm
        assert len(read_tensors(path, "weights")) == 99
    else:
        with pytest.raises(UserError, match=said):
            read_tensors(path, "weights")


@pytest.mark.parametrize("name", ["builtins eval", "os system", "posix system", "io open"])
@pytest.mark.parametrize("opcode", ["R", "o", "i"])
def test_every_way_to_call_a_function_is_refused(name: str, opcode: str, tmp_path: Path) -> None:
    module, function = (part.encode() for part in name.split())
    text = str(tmp_path / "trace").encode()
    named = module + b"\n" + function + b"\n"
    calls = {
        "R": b"c" + named + b"(V" + text + b"\nVw\ntR.",
        "o": b"(c" + named + b"V" + text + b"\nVw\no.",
        "i": b"(V" + text + b"\nVw\ni" + named + b".",
    }
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02" + calls[opcode])
    with pytest.raises(UserError, match=r"it would call .*an attack, delete it"):
        read_tensors(tmp_path / "a.pt", "weights")
    assert not (tmp_path / "trace").exists()


def test_a_pickle_cannot_ask_for_memory_that_it_does_not_fill(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for pickled in (
        b"\x80\x02Nr\xff\xff\xff\x7f.",
        b"\x80\x05\x96" + struct.pack("<Q", 2**34) + b".",
    ):
        with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
            archive.writestr("a/data.pkl", pickled)
        with pytest.raises(UserError, match="cannot be read"):
            read_tensors(tmp_path / "a.pt", "weights")
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 1 << 26
