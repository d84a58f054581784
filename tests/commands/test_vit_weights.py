"""Trainings with a class-token ViT of one stream: from the start, and from MCTformer's files."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import counted, final_weights, run
from vit_files import MCTFORMER_PLUS, as_v2, deit, in_hugging_face_names, mctformer_plus, saved

import test_msc_flip_voc
import train_voc
from utils.inference import Segmenter

LARGE = ("vit.alpha", "vit.patch_embed_large.", "vit.fuse_token.")  # what one stream has not


@pytest.fixture
def tested(toy_voc: Path, start: list[str], tmp_path: Path) -> Callable[..., Segmenter]:
    """Trains with these flags, tests the checkpoint on one scale, and loads it."""

    def tested(*flags: object) -> Segmenter:
        assert run(train_voc.main, *start, "--eval_seeds", *flags) == 0
        final = tmp_path / "run" / "checkpoints" / "final.pt"
        testing = ["--model_path", final, "--data_root", toy_voc, "--scales", 1, "--no_crf"]
        assert run(test_msc_flip_voc.main, *testing) == 0
        return Segmenter.from_checkpoint(final, data_root=str(toy_voc), device="cpu")

    return tested


@pytest.mark.parametrize("begin", ["clip_visual", "deit"])
def test_a_vit_of_one_stream_trains_in_both_stages(
    begin: str,
    tested: Callable[..., Segmenter],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = counted(monkeypatch)
    state = in_hugging_face_names(deit())
    flags = ["--init", begin, "--deit_path", saved(tmp_path / "deit.pth", state)]
    segmenter = tested("--mct_streams", 1, *flags)
    assert seen == ["classifier"] * 2 + ["segmenter"] * 4
    assert segmenter.model.vit.streams == 1
    weights = final_weights(tmp_path / "run")
    assert not [name for name in weights if name.startswith(LARGE)]
    assert len({name.split(".")[2] for name in weights if name.startswith("vit.blocks.")}) == (
        2 if begin == "deit" else 3
    )


@pytest.mark.parametrize("version", ["plus", "v2"])
def test_a_published_mctformer_takes_the_place_of_stage_1(
    version: str,
    tested: Callable[..., Segmenter],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = counted(monkeypatch)
    path = MCTFORMER_PLUS
    if version == "v2":
        path = saved(tmp_path / "MCTformerV2.pth", as_v2(mctformer_plus()))
    segmenter = tested("--mct_path", path, "--vit_lr_factor", 0)
    assert seen == ["segmenter"] * 4
    assert (segmenter.model.vit.version, segmenter.model.vit.streams) == (version, 1)
    theirs, ours = mctformer_plus(), final_weights(tmp_path / "run")
    assert torch.equal(ours["vit.blocks.1.attn.qkv.weight"], theirs["blocks.1.attn.qkv.weight"])
