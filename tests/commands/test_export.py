"""Seeds and pseudo labels for others: the layouts, the threshold sweep, the command."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import TRAIN, run
from PIL import Image

from datasets.specs import IGNORE, VOC, palette
from utils.common.entry import command
from utils.inference import seed_export
from utils.inference.seed_files import LAYOUTS, packed
from utils.inference.sweep import Sweep
from utils.metrics import ConfusionMatrix
from utils.tools import export

KEYS = torch.tensor([2, 5])


def test_the_sweep_counts_as_a_loop_over_thresholds() -> None:
    thresholds = torch.tensor([0.1, 0.25, 0.5, 0.75])
    sweep, expected = Sweep(8, thresholds), [ConfusionMatrix(8) for _ in thresholds]
    rng = torch.Generator().manual_seed(0)
    for keys in (KEYS, torch.tensor([0]), KEYS[:0]):
        scores = torch.rand(len(keys), 9, 7, generator=rng)
        scores[:, 0] = 0.25  # exactly a threshold: not above it
        scores[:, 1] = 0
        truth = torch.randint(8, (9, 7), generator=rng)
        truth[2] = IGNORE
        sweep.update(keys, scores, truth)
        for threshold, matrix in zip(thresholds, expected):
            channels = torch.cat([threshold.expand(1, 9, 7), scores])
            matrix.update(torch.cat([torch.zeros(1).long(), keys + 1])[channels.argmax(0)], truth)
    for got, wanted in zip(sweep.matrices(), expected, strict=True):
        assert torch.equal(got.counts, wanted.counts)


def test_the_layouts_hold_the_same_scores() -> None:
    scores = torch.rand(2, 13, 10).half().float()
    plain = np.load(io.BytesIO(packed("npz", KEYS, scores)))  # no pickle
    assert plain["keys"].tolist() == [2, 5] and plain["scores"].dtype == np.float16
    assert np.array_equal(plain["scores"], scores.numpy())
    irn = np.load(io.BytesIO(packed("irn", KEYS, scores)), allow_pickle=True).item()
    assert irn["cam"].shape == (2, 4, 3) and np.pad(irn["keys"] + 1, (1, 0)).tolist() == [0, 3, 6]
    assert np.array_equal(irn["high_res"], scores.numpy())
    mct = np.load(io.BytesIO(packed("mctformer", KEYS, scores)), allow_pickle=True).item()
    assert list(mct) == [2, 5] and np.array_equal(np.stack(list(mct.values())), scores.numpy())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_image_without_tags_has_no_scores(layout: str) -> None:
    content = np.load(
        io.BytesIO(packed(layout, KEYS[:0], torch.zeros(0, 5, 5))), allow_pickle=layout != "npz"
    )
    assert len(content["keys"] if layout == "npz" else content.item().get("keys", [])) == 0


def test_a_split_is_exported_and_scored(
    trained: Path, toy_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = (
        "--model_path",
        trained / "checkpoints" / "final.pt",
        "--device",
        "cpu",
        "--out",
        tmp_path / "out",
    )
    assert run(export.main, *flags, "--sweep") == 0
    said, about = (
        capsys.readouterr().out,
        json.loads((tmp_path / "out" / "export.json").read_text()),
    )
    assert (
        "tuned on the masks of train_aug" in said
        and about["images"] == TRAIN
        and about["kind"] == "fused"
    )
    best = about["mIoU"]["tuned on masks"]
    assert best["mIoU by t"][str(best["threshold"])] == max(best["mIoU by t"].values())
    counted = ConfusionMatrix(len(VOC.label_names))
    for path in (tmp_path / "out" / "pseudo_labels").iterdir():
        label, truth = (
            Image.open(path),
            np.array(Image.open(toy_voc / "SegmentationClassAug" / path.name)),
        )
        assert label.getpalette() == palette().ravel().tolist() and label.size == truth.shape[::-1]
        counted.update(np.array(label), truth)
        seeds = np.load(tmp_path / "out" / "seeds" / f"{path.stem}.npz")
        assert seeds["scores"].shape == (len(seeds["keys"]), *truth.shape)
        assert 0 <= seeds["scores"].min() <= seeds["scores"].max() <= 1
        assert set(np.unique(np.array(label)).tolist()) <= {0, *(seeds["keys"] + 1).tolist()}
    assert about["mIoU"]["pseudo label"] == pytest.approx(100 * counted.miou())


def test_masks_are_opened_for_the_sweep_alone(
    trained: Path, without_masks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = trained / "checkpoints" / "final.pt"
    flags = (
        "--model_path",
        checkpoint,
        "--data_root",
        without_masks,
        "--split",
        "val",
        "--out",
        tmp_path / "out",
    )
    assert run(export.main, *flags, "--layout", "irn", "--kind", "vit") == 0
    assert run(command(export.main), *flags, "--sweep") == 2
    assert "--sweep needs the masks" in capsys.readouterr().err


def test_what_an_earlier_export_left_is_told_and_a_stopped_one_tells_nothing(
    trained: Path, toy_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    flags = ("--model_path", trained / "checkpoints" / "final.pt", "--out", out)
    assert run(command(export.main), *flags, "--split", "train_aug[:2]") == 0
    assert "note:" not in capsys.readouterr().out

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seed_export, "image_seeds", stopped)
        assert run(command(export.main), *flags) == 130
    assert not (out / "export.json").exists()

    assert run(command(export.main), *flags, "--split", "train_aug[:1]", "--layout", "irn") == 0
    said = capsys.readouterr().out
    files = [file for part in ("seeds", "pseudo_labels") for file in (out / part).iterdir()]
    assert (
        f"also holds {len(files) - 2} files that an earlier export left, the first is pse" in said
    )
