"""Public ViT weights in the forms in which people have them, against what the libraries that wrote
them give.

The files are those of this folder's data/, or of the folder that CVF_WEIGHTS_FORMS names, one form
per subfolder: the weights and, in expected_*.npz, inputs and outputs.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
import torch
import torch.nn.functional as F
from golden_file import GoldenFile, close, same
from torch import Tensor
from vit_files import (
    DATA,
    as_v1,
    as_v2,
    deit,
    dino,
    dino_in_hugging_face_names,
    in_hugging_face_names,
    mctformer_plus,
)

from model.class_token_vit import ClassTokenViT
from model.dino import dino_identity, load_dino
from model.outputs import VitOutput
from model.vit_forms import HUGGING_FACE, in_deit_names
from model.vit_loading import deit_identity, from_clip, from_deit, load_mct
from utils.common.errors import UserError
from utils.common.safe_tensors import read_tensors

FORMS = Path(os.environ.get("CVF_WEIGHTS_FORMS") or DATA)
CLIPS = ("hf_clip", "open_clip", "openai")  # the forms of CLIP are tested elsewhere
FOLDERS = [path.name for path in sorted(FORMS.iterdir()) if path.is_dir()]
State = dict[str, Tensor]


def results(vit: ClassTokenViT, out: VitOutput) -> State:
    """What `VitOutput` says, under the names of the expected arrays."""
    classes, weights = vit.num_classes, torch.stack(out.attention).mean(dim=2)
    last = weights[-1][:, :classes, classes:].unflatten(2, out.x_patch.shape[-2:])
    found = {
        "class_logits": out.cls_logits,
        "class_tokens": torch.stack(out.cls_embeddings),
        "class_tokens_last": out.cls_embeddings[-1],
        "patch_tokens": out.x_patch.flatten(2).transpose(1, 2),
        "class_to_patch_last": last,
        "class_to_patch_mean": out.class_to_patch,
        "class_to_patch_sum": out.class_to_patch * len(vit.blocks),
        "patch_attention": weights[:, :, classes:, classes:],
        "cams_fused": out.cams,
    }
    if out.scores is not None:
        found["scores_relu"] = out.scores.relu()
        found["patch_logits"] = out.patch_logits
        found["joint_logits"] = (out.cls_logits + out.patch_logits) / 2
    return found


@torch.no_grad()
def check_mctformer(state: State, expected: GoldenFile, version: str) -> None:
    """Every output of a one-stream ViT. V1 and V2 resize their table in a way of their own, so that
    only the native size can agree.
    """
    vit = load_mct(state)
    assert (vit.version, vit.streams) == (version, 1)
    if version != "plus":
        expected.unread -= {f"{name}_wide" for name in expected.names("_wide")}
    for suffix in ("", "_wide") if version == "plus" else ("",):
        images = expected[f"images{suffix}"]
        found = results(vit, vit(images, maps="all"))
        for name in expected.unread.copy():
            if name.endswith("_wide") == (suffix == "_wide"):
                close(found[name.removesuffix("_wide")], expected[name])
        close(vit.patch_features(images).flatten(2).transpose(1, 2), found["patch_tokens"])


@torch.no_grad()
def check_deit(state: State, expected: GoldenFile, form: str) -> None:
    """The ViT started from the file has its tensors, and a tower with the one class token gives the
    library's tokens, of other sizes too where it resizes its table as we do.
    """
    mapped = in_deit_names(state, HUGGING_FACE)
    side = expected["images"].shape[-1]
    for streams in (1, 2):
        own = from_deit(state, 7, side, streams=streams).state_dict()
        for name in [n for n in mapped if n.startswith(("blocks.", "patch_embed."))]:
            same(own[name], mapped[name])
        same(own["pos_embed_pat"], mapped["pos_embed"][:, 1:])
        same(own["pos_embed_cls"][:, 3], mapped["pos_embed"][:, 0])
        copies = own["cls_token"] - mapped["cls_token"]
        assert 0 < copies.abs().max() < 0.2

    # V1 is DeiT's tower with a class token per class and a head that is not used.
    tower = load_mct(mapped | {name: mapped[name][:1] for name in ("head.weight", "head.bias")})
    for suffix in ("", "_wide") if form == "transformers" else ("",):
        out = tower(expected[f"images{suffix}"])
        tokens = torch.cat([out.cls_embeddings[-1], out.x_patch.flatten(2).transpose(1, 2)], dim=1)
        close(tokens, expected[f"tokens{suffix}"])
        norm = F.layer_norm(tokens, tokens.shape[-1:], mapped["norm.weight"], mapped["norm.bias"])
        close(norm, expected[f"tokens_norm{suffix}"])
        logits = F.linear(norm[:, 0], mapped["head.weight"], mapped["head.bias"])
        close(logits, expected[f"logits{suffix}"])
    if form == "timm":
        expected.unread -= {f"{name}_wide" for name in expected.names("_wide")}


def check_dinov2(state: State, expected: GoldenFile) -> None:
    """Loaded as DINOv2; refused by name as the class-token ViT."""
    model = load_dino(state)
    first = 1 + model.registers
    suffixes = ("", "_wide") if "x_norm_clstoken" in expected else ("",)
    for suffix in suffixes:
        tokens = model(expected[f"images{suffix}"]).tokens
        if "x_norm_clstoken" in expected:
            close(tokens[:, 0], expected[f"x_norm_clstoken{suffix}"])
            close(tokens[:, first:], expected[f"x_norm_patchtokens{suffix}"])
        else:
            close(tokens, expected["tokens_norm"])

    with pytest.raises(UserError, match="is a ViT with LayerScale, as DINOv2 has; give DeiT-S"):
        from_deit(state, 7)
    with pytest.raises(UserError, match="as DINOv2 has; give MCTformer V2"):
        load_mct(state)
    expected.unread.clear()


CHECKS: dict[str, Callable[[State, GoldenFile], None]] = {
    "mctformer_v1": lambda state, expected: check_mctformer(state, expected, "v1"),
    "mctformer_v2": lambda state, expected: check_mctformer(state, expected, "v2"),
    "mctformer_plus": lambda state, expected: check_mctformer(state, expected, "plus"),
    "deit_official": lambda state, expected: check_deit(state, expected, "timm"),
    "timm_deit": lambda state, expected: check_deit(state, expected, "timm"),
    "hf_deit": lambda state, expected: check_deit(state, expected, "transformers"),
    "dinov2_official": check_dinov2,
    "timm_dinov2": check_dinov2,
    "hf_dinov2": check_dinov2,
}


@pytest.mark.parametrize("folder", [name for name in FOLDERS if not name.startswith(CLIPS)])
def test_a_published_form_gives_what_its_library_gives(folder: str) -> None:
    assert folder in CHECKS, f"no test knows the form {folder}"
    files = [file for file in (FORMS / folder).iterdir() if file.suffix != ".json"]
    (arrays,) = (file for file in files if file.suffix == ".npz")
    (weights,) = (file for file in files if file != arrays)
    expected = GoldenFile(arrays)
    CHECKS[folder](read_tensors(weights, "the test's file"), expected)
    assert expected.unread == set()


@torch.no_grad()
def test_the_versions_of_mctformer_read_the_same_tokens_each_in_its_way() -> None:
    plus, images = mctformer_plus(), torch.randn(2, 3, 64, 64)
    found = {}
    for version, state in (("plus", plus), ("v2", as_v2(plus)), ("v1", as_v1(plus))):
        vit = load_mct(state)
        assert vit.version == version
        found[version] = vit(images, maps="patch")
        same(found[version].cls_logits, found["plus"].cls_logits)
        same(found[version].class_to_patch, found["plus"].class_to_patch)

    plus, v2, v1 = found.values()
    same(v2.scores, plus.scores)
    close(v2.patch_logits, plus.scores.mean((2, 3)))
    close(v2.cams, 2 * plus.class_to_patch * plus.scores.relu())  # the sum over two blocks
    assert v1.scores is None and v1.patch_logits is None
    same(v1.cams, plus.class_to_patch)


@pytest.mark.parametrize("form", [as_v2, lambda plus: plus])
def test_a_saved_one_stream_vit_stays_of_its_version(form: Callable[[State], State]) -> None:
    vit = load_mct(form(mctformer_plus()))
    again = load_mct(vit.state_dict())
    assert (again.version, again.streams) == (vit.version, 1)
    assert all(torch.equal(t, vit.state_dict()[name]) for name, t in again.state_dict().items())


def test_a_deit_has_one_identity_under_all_names() -> None:
    state = deit()
    named = deit_identity(in_hugging_face_names(state))
    assert named == deit_identity(state)
    changed = {**state, "cls_token": state["cls_token"] + 1}
    assert named != deit_identity(changed)


def test_a_deit_is_the_same_under_the_names_of_hugging_face() -> None:
    state = deit()
    renamed = in_hugging_face_names(state)
    assert {"vit.layernorm.weight", "classifier.bias"} < renamed.keys()
    assert "vit.encoder.layer.1.attention.attention.key.bias" in renamed
    mapped = in_deit_names(renamed, HUGGING_FACE)
    assert mapped.keys() == state.keys()
    assert all(torch.equal(mapped[name], state[name]) for name in state)


@pytest.mark.parametrize("start", ["deit", "clip"])
def test_a_start_with_one_stream_has_the_small_patches_of_one_with_two(start: str) -> None:
    begin, weights = {"deit": (from_deit, deit()), "clip": (from_clip, tiny.tower())}[start]
    one, two = (begin(weights, 5, 64, streams=streams).state_dict() for streams in (1, 2))
    extra = {name.split(".")[0] for name in two.keys() - one.keys()}
    assert extra == {"alpha", "patch_embed_large", "fuse_token"} and one.keys() < two.keys()
    random = ("cls_token", "head.weight", "head.bias")
    assert all(torch.equal(one[name], two[name]) for name in one if name not in random)


def change(state: State, removed: tuple[str, ...] = (), **added: Tensor) -> State:
    """A copy of a state dict, some names removed, others added or replaced ("__" stands for a
    dot).
    """
    added = {name.replace("__", "."): tensor for name, tensor in added.items()}
    return {name: t for name, t in state.items() if name not in removed} | added


OTHERS: dict[str, tuple[Callable[..., ClassTokenViT], State, str]] = {
    "distilled": (from_deit, change(deit(), dist_token=torch.zeros(1, 1, 64)), "a distilled DeiT"),
    "registers": (from_deit, change(deit(), reg_token=torch.zeros(1, 4, 64)), "register tokens"),
    "LayerScale": (from_deit, change(deit(), blocks__0__ls1__gamma=torch.ones(64)), "LayerScale"),
    "small patches": (from_deit, deit(patch=8), "patches of 8 px, not 16; give DeiT-S"),
    "small patches, named": (
        from_deit,
        in_hugging_face_names(deit(patch=32)),
        "patches of 32 px, not 16; give DeiT-S",
    ),
    "no square": (from_deit, change(deit(), pos_embed=torch.zeros(1, 16, 64)), "15 patches, which"),
    "no token": (from_deit, change(deit(), ("cls_token",)), "has no tensor cls_token; it is no"),
    "flat token": (from_deit, change(deit(), cls_token=torch.zeros(64)), "has no tensor cls_token"),
    "no bias": (
        from_deit,
        change(deit(), ("blocks.1.norm1.bias",)),
        "missing: blocks.1.norm1.bias",
    ),
    "odd width": (from_deit, deit(dim=200), "width 200, no multiple of 64 channels"),
    "trained": (from_deit, mctformer_plus(), "trained class-token ViT, which --mct_path takes"),
    "CLIP": (from_deit, {"visual.conv1.weight": torch.ones(1)}, "a CLIP, which --clip_path takes"),
    "DeiT": (load_mct, deit(), "a ViT with one class token, which --deit_path takes"),
    "named DeiT": (load_mct, in_hugging_face_names(deit()), "which --deit_path takes"),
    "CVF": (load_mct, {"fusion.merge.bias": torch.ones(1)}, "whole CVF, whose ViT is the class"),
    "no head": (load_mct, change(as_v2(mctformer_plus()), ("head.weight",)), "no tensor head.wei"),
    "lost": (load_mct, change(mctformer_plus(), ("head.bias",)), "missing: head.bias"),
    "odd": (load_mct, change(mctformer_plus(), extra=torch.ones(1)), "unexpected: extra"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_other_weights_are_refused_and_named(case: str) -> None:
    load, state, said = OTHERS[case]
    with pytest.raises(UserError) as refused:
        load(state, source="file.pth") if load is load_mct else load(state, 5, source="file.pth")
    assert str(refused.value).startswith("file.pth ") and said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "model.net."])
def test_what_a_training_puts_before_every_name_is_taken_off(prefix: str) -> None:
    def named(state: State) -> State:
        return {prefix + name: tensor for name, tensor in state.items()}

    one = deit()
    for state in (one, in_hugging_face_names(one)):
        assert deit_identity(named(state)) == deit_identity(one)
        from_deit(named(state), 7)

    one = dino()
    for state in (one, dino_in_hugging_face_names(one)):
        assert dino_identity(load_dino(named(state))) == dino_identity(load_dino(one))

    one = mctformer_plus()
    tensors = load_mct(named(one)).state_dict()
    assert all(torch.equal(t, tensors[name]) for name, t in load_mct(one).state_dict().items())


def test_one_of_several_vits_is_not_chosen_and_what_is_beside_one_is_named() -> None:
    both = {f"{who}.{name}": t for who in ("student", "teacher") for name, t in deit().items()}
    with pytest.raises(UserError, match="has no tensor cls_token"):
        from_deit(both, 7)

    one = {f"model.{name}": tensor for name, tensor in mctformer_plus().items()}
    with pytest.raises(UserError, match="unexpected: criterion.weight"):
        load_mct({**one, "criterion.weight": torch.ones(1)})
    whole = {f"vit.{name}": tensor for name, tensor in mctformer_plus().items()}
    with pytest.raises(UserError, match="is a whole CVF"):
        load_mct({**whole, "fusion.merge.bias": torch.ones(1)})
