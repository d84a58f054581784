"""The benchmark's measuring: turns, stages, memory, and what its command refuses."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.profiler import record_function

from utils.common.errors import UserError
from utils.common.startup import ROOT
from utils.config import Config
from utils.inference.protocol import Outputs
from utils.inference.segmenter import Segmenter
from utils.splits import split_items
from utils.tools.benchmark import simulated
from utils.tools.benchmark.__main__ import against, main
from utils.tools.benchmark.counts import AsOnGpu, Ledger
from utils.tools.benchmark.counts import counted as counted_step
from utils.tools.benchmark.crf_cases import crf_cases, crf_input, random_regions
from utils.tools.benchmark.data import phases, started
from utils.tools.benchmark.networks import classifier_step, tag_counts, tagged_batch
from utils.tools.benchmark.refinement import measure_par
from utils.tools.benchmark.rows import Row, Setting, table
from utils.tools.benchmark.simulated import write_coco, write_many
from utils.tools.benchmark.timing import Timing, measure, peak_memory, stages

CPU = torch.device("cpu")
CHECKPOINT = ROOT / "model" / "toy_voc.pt"


def test_help_begins_with_what_the_command_is_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmark", "--help"])
    with pytest.raises(SystemExit):
        main()
    assert "Measure what CVF costs" in "\n".join(capsys.readouterr().out.splitlines()[:4])


def test_settings_are_measured_in_turns_after_a_warm_up():
    called = []
    timings = measure([lambda: called.append("A"), lambda: called.append("B")], 3, CPU)
    assert "".join(called) == "AB" * 4
    assert len(timings) == 2 and all(timing.seconds > 0 for timing in timings)


def test_stages_are_told_apart_and_the_rest_is_what_remains():
    a = torch.randn(300, 300)

    def work():
        with record_function("product"):
            a @ a
        for _ in range(20):
            a.exp()

    found = stages(work, ("product", "absent"), CPU)
    assert found["product"]["gflop"] == pytest.approx(2 * 300**3 / 1e9)
    assert (
        found["product"]["seconds"] > 0
        and found["absent"]["seconds"] == 0
        and found["rest"]["seconds"] > 0
    )


def test_peak_memory_sees_what_is_held_for_a_moment():
    """In a process of its own, as this one may hold freed memory that is used again."""
    code = (
        "import torch; from utils.tools.benchmark.timing import peak_memory\n"
        "print(*(peak_memory(lambda: torch.ones(n), torch.device('cpu')) for n in (1, 50_000_000)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    little, much = map(int, run.stdout.split())
    assert much - little > 150e6


def test_peak_memory_is_known_where_the_system_keeps_no_files_of_it(monkeypatch, tmp_path):
    monkeypatch.setattr("utils.tools.benchmark.timing.Path", lambda _: tmp_path / "absent")
    assert peak_memory(lambda: None, CPU) > 1e7


def test_the_second_setting_differs_where_it_says():
    changed = against(Config(), ["precision=fp32", "crop_size=448", "clip_box_edges=true"])
    assert (changed.precision, changed.crop_size, changed.clip_box_edges) == ("fp32", 448, True)
    for wrong in (
        "speed=1",
        "precision",
        "scales=1",
        "crop_size=big",
        "precision=fp16",
        "clip_box_edges=yes",
        "crop_size=50",
        "device=cuda",
    ):
        with pytest.raises(UserError, match="--against|--crop_size 50"):
            against(Config(), [wrong])


@pytest.mark.parametrize(("dataset", "mean"), [("voc", 2), ("coco", 2.875)])
def test_every_image_of_a_batch_has_its_tags(dataset: str, mean: float):
    config = Config(dataset=dataset)
    tags = tagged_batch(config, 16, 32)["tags"]
    assert tags.sum(1).tolist() == tag_counts(config, 16) and tags.sum() / 16 == mean


def test_rows_are_read_in_yardsticks():
    timing = Timing(2.0, 3.0, 0.1)
    (row,) = measure_par(
        [Setting("A", Config(crop_size=32, batch_size=1, par_iterations=1), CPU, 1)]
    )
    shown = table([row, Row("x", "A", timing)], {"vit": Timing(4.0, 4.0, 0.0), "vit bf16": timing})
    assert "PAR (A)" in shown and "0.50 vit, 1.00 vit bf16" in shown


def test_crf_input_is_a_fair_segmentation():
    image, probs = crf_input(21, (96, 128))
    assert image.shape == (96, 128, 3) and probs.shape == (21, 96, 128)
    torch.testing.assert_close(probs.sum(0), torch.ones(96, 128))
    assert 1 < len(probs.argmax(0).unique()) < 21


def test_random_regions_are_of_few_labels_and_the_same_at_every_call():
    probs = random_regions(81, (96, 128))
    assert torch.equal(probs, random_regions(81, (96, 128))) and probs.amax(0).mean() > 0.5
    assert 1 < len(probs.argmax(0).unique()) < 20


def test_the_crf_gets_what_a_checkpoint_predicts(tmp_path, toy_voc):
    photograph = next((toy_voc / "JPEGImages").iterdir())
    shutil.copy(photograph, tmp_path / "a.jpg")
    ((title, image, probs),) = crf_cases(tmp_path, CHECKPOINT, CPU)
    segmenter = Segmenter.from_checkpoint(CHECKPOINT, Outputs(use_crf=False), device="cpu")
    assert title.startswith("a.jpg, 21 x ") and image.dtype == torch.uint8
    np.testing.assert_array_equal(probs.argmax(0).numpy(), segmenter(photograph))


def test_launches_waits_and_memory_are_counted() -> None:
    weight, host = torch.ones(1000, 250), torch.ones(10)
    with Ledger([weight]) as ledger:
        product = weight * 2
        del product
        host.nonzero()  # on the host: neither launched nor waited for
        (weight.t() + 1).sum().item()

    found = ledger.counts
    assert found.per_operation == {"aten.mul": 1, "aten.add": 1, "aten.sum": 1}
    assert (found.launches, found.waits) == (3, 1)
    assert 2_000_000 <= found.peak < 2_001_000 and 1_000_000 <= found.live < 1_001_000


def test_work_is_cut_as_for_a_gpu() -> None:
    with AsOnGpu():
        assert torch.ones(2).is_cuda
    assert not torch.ones(2).is_cuda


def test_a_step_of_stage_1_needs_its_weights_three_times_over() -> None:
    config = Config(mct_batch_size=1, mct_crop_size=64, precision="fp32")
    step = classifier_step(Setting("A", config, CPU, 1))
    weights = sum(tensor.nbytes for tensor in step.stage.module.parameters())
    found = counted_step(step)
    assert 4 * weights < found.peak < 6 * weights  # gradients and AdamW's two moments
    assert found.launches > 500
    if torch.__version__ >= "2.4":  # AdamW is fused there without a GPU too, and asks for no count
        assert found.waits == 1
    shown = table([Row("step", "A", None, "computed")], {})
    assert shown.split() == ["step", "(A)", "computed"]


def test_lists_of_images_are_measured(tmp_path: Path) -> None:
    write_many(tmp_path / "data", 50)
    config = Config(dataset="custom", data_root=str(tmp_path / "data"), train_split="train")
    found = phases(replace(config, work_dir=str(tmp_path / "run")))
    assert [phase.name for phase in found] == ["imports", "start-up", "training's lists", "journal"]
    assert all(phase.peak > 0.1 for phase in found) and "50 lines" in found[-1].note


def test_simulated_coco_is_read_as_coco(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulated, "COCO_IMAGES", {"train": 20, "val": 10})
    write_coco(tmp_path / "coco")
    config = Config(dataset="coco", data_root=str(tmp_path / "coco"), train_split="train")
    training = started(config)
    assert len(training) == 20 and 1 < training.tags.total() / 20 < 6
    assert split_items(config, "val").masked.all()
