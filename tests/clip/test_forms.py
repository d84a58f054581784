"""CLIPs in every form in which people have them: beside the outputs of the libraries that made the
files, under every name that leads to them, with the activation they were trained with.

Small files lie in tests/weights_forms; CVF_WEIGHTS_FORMS may name a folder of more. They hold
random weights, and `expected_*.npz` what the library itself gives for them.
"""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from archives import hub_tensors, save_torchscript, save_traced, traced_clip
from helpers import ROOT, clip_tensors, tiny_clip
from safetensors.torch import save_file
from torch import Tensor

from clip.activation import METADATA
from clip.loader import load_clip
from clip.model import CLIP, VisionTransformer
from utils.common.errors import UserError
from utils.tools import pretrain_toy_clip

OWN = ROOT / "tests" / "weights_forms"
MORE = os.environ.get("CVF_WEIGHTS_FORMS")
FOLDERS = [OWN, *([Path(MORE)] if MORE else [])]
LARGEST_CONFIGURATION = 10_000  # bytes; weights are larger
TOLERANCE = 1e-4  # of an array's largest value
CACHED = "models--openai--clip-vit-base-patch16"
NAME = "openai/clip-vit-base-patch16"

# folders that hold a CLIP; those of ViTs are tested beside the models that start from them
CLIPS = {
    "openai_jit",
    "openai_state_dict",
    "hf_clip_openai",
    "hf_clip_openai_bin",
    "hf_clip_cache",
    "hf_clip_laion",
    "hf_clip_laion_bin",
    "open_clip_openai",
    "open_clip_openai_bin",
    "open_clip_laion",
    "open_clip_datacomp",
    "open_clip_training",
}
VITS = {
    "deit_official",
    "timm_deit",
    "hf_deit",
    "dinov2_official",
    "timm_dinov2",
    "hf_dinov2",
    "mctformer_v1",
    "mctformer_v2",
    "mctformer_plus",
}


def files_of(folder: Path) -> list[Path]:
    """Weights files in a folder of forms; of a download cache, the blob."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    large = [path for path in files if path.stat().st_size > LARGEST_CONFIGURATION]
    return [path for path in large if path.suffix != ".npz"]


CASES = [
    (path, folder.name)
    for forms in FOLDERS
    for folder in sorted(forms.iterdir())
    if folder.name in CLIPS
    for path in files_of(folder)
]


def linked(cache: Path, target: Path) -> Path:
    """A copy of a download cache with its links, which a copy may have turned into short texts."""
    shutil.copytree(cache, target, symlinks=True)
    for path in target.glob("snapshots/*/*"):
        if not path.is_symlink():
            where = path.read_text()
            path.unlink()
            path.symlink_to(where)
    return target


def assert_close(name: str, found: Tensor, expected: dict[str, Tensor]) -> None:
    difference = (found - expected[name]).abs().max() / expected[name].abs().max()
    assert found.shape == expected[name].shape and difference < TOLERANCE, (name, difference)


def assert_agrees(model: CLIP, arrays: Path) -> None:
    """Every array of the library's but those whose position table it resized in its own way."""
    expected = {
        name: torch.from_numpy(array)
        for name, array in np.load(arrays).items()
        if name != "config" and not name.endswith("_wide")
    }
    images = {"": expected.pop("images")}
    if wide := [name for name in expected if name.endswith("_wide_bilinear")]:
        images["_wide_bilinear"] = torch.from_numpy(np.load(arrays)["images_wide"])
    assert len(wide) in (0, 3)

    text = model.encode_text(expected.pop("token_ids").long())
    assert_close("text_embedding", text, expected)
    expected.pop("text_embedding")
    for suffix, pixels in images.items():
        tokens = model.visual.transformer(model.visual.embed(pixels)[0])
        assert_close(f"tokens{suffix}", tokens, expected)
        assert_close(f"tokens_ln_post{suffix}", model.visual.ln_post(tokens), expected)
        assert_close(f"image_embedding{suffix}", model.visual.project(tokens)[:, 0], expected)
        for name in ("tokens", "tokens_ln_post", "image_embedding"):
            expected.pop(f"{name}{suffix}")
    assert not expected, f"arrays that nobody compared: {list(expected)}"


@pytest.mark.parametrize(("path", "form"), CASES, ids=lambda value: getattr(value, "name", value))
def test_every_form_agrees_with_the_library_that_made_it(
    path: Path, form: str, tmp_path: Path
) -> None:
    named = form if form != "openai_jit" else path.stem
    arrays = next(p for p in path.parents if p.name == form) / f"expected_{named}.npz"

    activation = "auto"
    if form == "open_clip_training":  # only who trained it can know
        with pytest.raises(UserError, match="does not tell its activation.*--clip_activation"):
            load_clip(path)
        activation = json.loads(str(np.load(arrays)["config"]))["activation"]
    if form == "hf_clip_cache":
        folder = linked(next(p for p in path.parents if p.name == CACHED), tmp_path / CACHED)
        with pytest.raises(UserError, match="does not tell its activation"):
            load_clip(path)  # the blob, beside which there is no configuration
        path = folder
    assert_agrees(load_clip(path, activation), arrays)


def test_every_file_is_known_to_a_test() -> None:
    for forms in FOLDERS:
        for folder in forms.iterdir():
            if folder.is_dir():
                assert folder.name in CLIPS | VITS, f"no test knows {folder}"
            else:
                assert folder.name in ("README.md", "make_forms.py"), f"no test knows {folder}"
    assert len({form for _, form in CASES}) >= (9 if MORE else 3)


def test_the_traced_archive_is_of_the_form_that_matters() -> None:
    path = OWN / "openai_jit" / "ViT-B-16_half.pt"
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
    packed = [record for record in records if record.compress_type == zipfile.ZIP_DEFLATED]
    assert packed and all("/data/" not in record.filename for record in packed)
    assert sum(record.file_size for record in records) > path.stat().st_size


# where a name leads


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only download cache there is, with one model; returns the model's folder."""
    for name in ("HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    model = tmp_path / "home" / ".cache" / "huggingface" / "hub" / CACHED
    return made_cache(model)


def made_cache(model: Path, activation: str = "quick_gelu") -> Path:
    """A model's folder of a download cache, as the Hub's own library lays it out."""
    snapshot = model / "snapshots" / ("ab" * 20)
    for folder in (snapshot, model / "blobs", model / "refs"):
        folder.mkdir(parents=True)
    save_file(hub_tensors(clip_tensors(tiny_clip())), model / "blobs" / "weights")
    (model / "blobs" / "config").write_text(json.dumps(hub_config(activation)))
    (snapshot / "model.safetensors").symlink_to("../../blobs/weights")
    (snapshot / "config.json").symlink_to("../../blobs/config")
    (model / "refs" / "main").write_text("ab" * 20)
    return model


def hub_config(activation: str | None) -> dict[str, Any]:
    act = {} if activation is None else {"hidden_act": activation}
    return {"model_type": "clip", "vision_config": {"w": 1, **act}, "text_config": {"w": 1, **act}}


def test_every_way_to_name_a_cached_model_leads_to_it(cache: Path) -> None:
    snapshot = next((cache / "snapshots").iterdir())
    expected = load_clip(snapshot / "model.safetensors").identity
    for given in (NAME, cache, snapshot, str(snapshot)):
        assert load_clip(given).identity == expected

    (cache / "refs" / "main").unlink()
    assert load_clip(NAME).identity == expected  # of the one revision that is there
    (cache / "snapshots" / ("cd" * 20)).mkdir()
    with pytest.raises(UserError, match="no files of the revision main"):
        load_clip(NAME)


@pytest.mark.parametrize("variable", ["HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"])
def test_the_cache_that_the_environment_names_comes_first(
    variable: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = {"HF_HUB_CACHE": "", "HF_HOME": "hub", "XDG_CACHE_HOME": "huggingface/hub"}
    made_cache(tmp_path / "other" / inner[variable] / CACHED, "gelu")
    assert load_clip(NAME).activation == "quick_gelu"
    monkeypatch.setenv(variable, str(tmp_path / "other"))
    assert load_clip(NAME).activation == "gelu"


def test_a_path_wins_over_a_name(cache: Path, tmp_path: Path) -> None:
    folder = tmp_path / NAME
    folder.mkdir(parents=True)
    save_file(clip_tensors(tiny_clip()), folder / "own.safetensors", {METADATA: "gelu"})
    assert load_clip(NAME).activation == "gelu"


BAD_NAMES: dict[str, tuple[Callable[[Path], object], str]] = {
    "not in the cache": (
        lambda _: "laion/CLIP-ViT-B-16",
        "laion/CLIP-ViT-B-16 is no file, no folder and no model in the Hub's cache .*hub",
    ),
    "the default": (
        lambda _: "weights/ViT-B-16.pt",
        "does not exist; .* fetch it with `python -m utils.tools.download clip`$",
    ),
    "a name that is not published": (lambda _: "weights/own.pt", "does not exist; check the path$"),
    "empty folder": (lambda folder: folder, "folder without a weights file .it holds nothing."),
    "other files": (
        lambda folder: (folder / "tf_model.h5").write_bytes(b"x") and folder,
        "it holds tf_model.h5",
    ),
    "several files": (
        lambda folder: [(folder / f"{n}.pt").write_bytes(b"x") for n in "ab"] and folder,
        "several files .a.pt, b.pt.; name one",
    ),
    "shards": (
        lambda folder: (folder / "model.safetensors.index.json").write_text("{}") and folder,
        "model in several files",
    ),
    "broken link": (
        lambda folder: (folder / "model.safetensors").symlink_to("gone") or folder,
        "link to a file that is gone",
    ),
}


@pytest.mark.parametrize("case", BAD_NAMES)
def test_a_name_that_leads_nowhere_is_refused(case: str, cache: Path, tmp_path: Path) -> None:
    given, said = BAD_NAMES[case]
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=said) as caught:
        load_clip(given(tmp_path / "folder"))
    assert "\n" not in str(caught.value)


# the activation


def beside(folder: Path, name: str, content: Any) -> None:
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))


ACTIVATIONS: dict[str, tuple[dict[str, Any], bool, str | None]] = {
    # files beside the weights, whether these have the Hub's names, what follows
    "nothing": ({}, True, None),
    "complete": ({"config.json": hub_config("gelu")}, True, "gelu"),
    "default": ({"config.json": hub_config(None)}, True, "quick_gelu"),
    "said twice, the second counts": (
        {
            "config.json": {
                **hub_config(None),
                "vision_config_dict": {"hidden_act": "gelu"},
                "text_config_dict": {"hidden_act": "gelu"},
            }
        },
        True,
        "gelu",
    ),
    "of another library": ({"config.json": {"architecture": "vit_base_patch16"}}, False, None),
    "of another model": ({"config.json": {"model_type": "vit", "hidden_act": "gelu"}}, True, None),
    "open_clip": (
        {"open_clip_config.json": {"model_cfg": {"quick_gelu": True}}},
        False,
        "quick_gelu",
    ),
    "open_clip, exact": ({"open_clip_config.json": {"model_cfg": {"embed_dim": 3}}}, False, "gelu"),
    "both, the names decide": (
        {"open_clip_config.json": {"model_cfg": {}}, "config.json": hub_config(None)},
        True,
        "quick_gelu",
    ),
    "both, official names": (
        {"open_clip_config.json": {"model_cfg": {}}, "config.json": hub_config(None)},
        False,
        "gelu",
    ),
}


@pytest.mark.parametrize("case", ACTIVATIONS)
def test_the_activation_comes_from_the_configuration_beside_the_file(
    case: str, tmp_path: Path
) -> None:
    configs, hub, expected = ACTIVATIONS[case]
    tensors = clip_tensors(tiny_clip())
    save_file(hub_tensors(tensors) if hub else tensors, tmp_path / "a.safetensors")
    for name, content in configs.items():
        beside(tmp_path, name, content)

    if expected is None:
        with pytest.raises(UserError, match=r"--clip_activation quick_gelu .* gelu"):
            load_clip(tmp_path / "a.safetensors")
        assert load_clip(tmp_path / "a.safetensors", "gelu").activation == "gelu"
    else:
        model = load_clip(tmp_path / "a.safetensors")
        assert model.activation == expected
        quick = [type(block.mlp.gelu).__name__ == "QuickGELU" for block in model.visual.blocks]
        assert quick == [expected == "quick_gelu"] * 3


def test_the_activation_comes_from_the_file(tmp_path: Path) -> None:
    tensors = clip_tensors(tiny_clip())
    numbers = {name: torch.tensor(7) for name in ("input_resolution", "context_length")}
    torch.save({**tensors, **numbers}, tmp_path / "two.pt")
    torch.save({**tensors, **numbers, "vocab_size": torch.tensor(7)}, tmp_path / "three.pt")
    save_torchscript(tensors, tmp_path / "script.pt")
    save_file(tensors, tmp_path / "ours.safetensors", {METADATA: "gelu"})
    beside(tmp_path, "config.json", hub_config("gelu"))
    found = {path.stem: load_clip(path).activation for path in tmp_path.glob("*.[ps]*t*")}
    assert found == {"two": "gelu", "three": "quick_gelu", "script": "quick_gelu", "ours": "gelu"}
    assert load_clip("toy").activation == "quick_gelu"

    pretrain_toy_clip.save(tiny_clip(), str(tmp_path / "new.safetensors"))
    (tmp_path / "config.json").unlink()
    assert load_clip(tmp_path / "new.safetensors").activation == "quick_gelu"


@pytest.mark.parametrize(
    ("config", "asked", "said"),
    [
        (hub_config("gelu"), "quick_gelu", "quick_gelu is not that of .*config.json.*leave the fl"),
        (hub_config("gelu_new"), "auto", "config.json has the activation gelu_new"),
        (
            {"vision_config": {"hidden_act": "gelu"}, "text_config": {}},
            "auto",
            "gelu for images and quick_gelu for texts",
        ),
        ("{", "auto", "config.json is not valid JSON"),
    ],
)
def test_an_activation_that_cannot_be_is_refused(
    config: Any, asked: str, said: str, tmp_path: Path
) -> None:
    save_file(hub_tensors(clip_tensors(tiny_clip())), tmp_path / "model.safetensors")
    beside(tmp_path, "config.json", config)
    with pytest.raises(UserError, match=said):
        load_clip(tmp_path, asked)


# one CLIP in many files


def test_a_clip_is_the_same_in_every_form_and_another_with_another_activation(
    tmp_path: Path,
) -> None:
    rounded = {
        name: tensor.half().float() if tensor.is_floating_point() else tensor
        for name, tensor in clip_tensors(tiny_clip()).items()
    }
    lightning = {f"model.{name}": tensor for name, tensor in rounded.items()}
    torch.save({"state_dict": lightning, "epoch": 3}, tmp_path / "a.ckpt")
    save_file(hub_tensors(rounded), tmp_path / "b.safetensors")
    halves = {n: t.half() if t.is_floating_point() else t for n, t in rounded.items()}
    torch.save(halves, tmp_path / "c.pt")
    save_torchscript(rounded, tmp_path / "d.pt")
    models = [load_clip(path, "quick_gelu") for path in sorted(tmp_path.iterdir())]
    assert len({model.identity for model in models}) == 1
    assert len({model.sha256 for model in models}) == 4
    assert load_clip(tmp_path / "b.safetensors", "gelu").identity != models[0].identity

    rounded["visual.proj"][0, 0] += 1
    torch.save(rounded, tmp_path / "e.pt")
    assert load_clip(tmp_path / "e.pt", "quick_gelu").identity != models[0].identity


def test_what_else_a_training_kept_is_left_out_and_two_clips_are_refused(tmp_path: Path) -> None:
    tensors = clip_tensors(tiny_clip())
    student = {f"model.{name}": tensor for name, tensor in tensors.items()}
    torch.save({**student, "loss.weight": torch.ones(3)}, tmp_path / "a.pt")
    expected = CLIP.from_state_dict(tensors).state_dict()
    found = load_clip(tmp_path / "a.pt", "gelu").state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)

    teacher = {f"teacher.{name}": tensor for name, tensor in tensors.items()}
    torch.save({**student, **teacher}, tmp_path / "b.pt")
    with pytest.raises(UserError, match=r"several CLIPs, under model\. and teacher\."):
        load_clip(tmp_path / "b.pt", "gelu")


def other_patch(size: int) -> dict[str, Tensor]:
    return clip_tensors(CLIP(VisionTransformer(64, 1, 32, size, 2), 32, 64, 1, vocabulary=9))


@pytest.mark.parametrize("names", [dict, hub_tensors])
@pytest.mark.parametrize("size", [14, 32])
def test_other_patch_sizes_are_said_to_be_so(size: int, names: Callable, tmp_path: Path) -> None:
    torch.save(names(other_patch(size)), tmp_path / "a.pt")
    with pytest.raises(UserError, match=f"patches of {size} px; this project needs patches of 16"):
        load_clip(tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("name", "shape", "said"),
    [
        ("visual.layer1.0.conv1.weight", (4, 3, 3, 3), "a CLIP with a ResNet"),
        ("visual.trunk.cls_token", (1, 1, 8), "a CLIP around a tower of the timm library"),
        ("vision_model.head.probe", (1, 1, 8), "a SigLIP"),
        ("cls_token", (1, 1, 8), "a ViT without texts"),
    ],
)
def test_other_architectures_are_named(
    name: str, shape: tuple[int, ...], said: str, tmp_path: Path
) -> None:
    torch.save(
        {name: torch.ones(shape), "visual.conv1.weight": torch.ones(4, 3, 3, 3)}, tmp_path / "a.pt"
    )
    tensors = torch.load(tmp_path / "a.pt", weights_only=True)
    if "layer1" not in name:
        tensors.pop("visual.conv1.weight")
        torch.save(tensors, tmp_path / "a.pt")
    with pytest.raises(UserError, match=f"is not a CLIP ViT but {said}"):
        load_clip(tmp_path / "a.pt")


# archives traced here


def test_an_archive_traced_by_this_torch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = traced_clip(VisionTransformer(64, 3, 32, 16, 3), 32, 64, 2, 77, 40)
    save_traced(model, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as archive:
        unpacked = sum(record.file_size for record in archive.infolist())
    assert unpacked > (tmp_path / "a.pt").stat().st_size

    found, expected = load_clip(tmp_path / "a.pt").state_dict(), model.state_dict()
    assert len(found) == len(expected) - 3
    for name, tensor in found.items():
        same = tensor == expected[name]
        assert (same | (tensor == expected[name].half())).all(), name
    assert (found["visual.proj"] == expected["visual.proj"].half()).all()
    assert (found["ln_final.weight"] == expected["ln_final.weight"]).all()


GROWTH = """
import sys
from clip.loader import load_clip
import torch

def resident(kind):
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line for line in lines if line.startswith(kind)).split()[1]) * 1024

before = resident("VmRSS")
model = load_clip(sys.argv[1])
print(resident("VmHWM") - before, sum(p.numel() for p in model.parameters()))
"""


@pytest.mark.heavy
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs Linux's /proc")
def test_an_archive_of_the_official_size_is_loaded_in_seconds_and_little_memory(
    tmp_path: Path,
) -> None:
    path = tmp_path / "full.pt"
    save_traced(traced_clip(VisionTransformer(768, 12, 512, 16, 14), 512, 512, 12), path)
    size = path.stat().st_size
    assert 345e6 < size < 355e6  # the official file has 350 MB

    ran = subprocess.run(
        [sys.executable, "-c", GROWTH, path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    growth, numbers = map(int, ran.stdout.split())
    assert numbers == 149_620_737
    assert growth < 2 * size
