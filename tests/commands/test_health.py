"""The health command on toy data: each verdict, with the number that leads to it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import TRAIN, VAL, run

import train_voc
from datasets.toy.write import BENCHMARK, write_voc
from utils.common import gpu
from utils.common.entry import command
from utils.health import findings, parts
from utils.metrics import ConfusionMatrix
from utils.references import Reference, read_references
from utils.run_folder.results import read_results
from utils.tools import health

SOURCE = """
sources:
  own: {address: "https://example.org/page", opened: 2026-11-25, what: "a page, opened"}
numbers:
"""
Health = Callable[..., tuple[int, dict[str, str]]]


def numbers(**values: float) -> dict[tuple[str, str], float]:
    """What is expected of the toy data of these tests, but for `values`: counts, or the seed."""
    known = {"train_aug": TRAIN, "train": TRAIN, "val": VAL, **values}
    found = {("images", name): value for name, value in known.items() if name != "seed"}
    if "seed" in known:
        found["CLIP seed", "train"] = known["seed"]
    return found


@pytest.fixture
def check(
    toy_voc: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Health:
    """Run the command against references of its own; it gives its exit status, and verdict and text
    of each line by what that is about.
    """

    def check(expected: dict[tuple[str, str], float], *flags: object) -> tuple[int, dict[str, str]]:
        text = SOURCE
        for (name, split), value in expected.items():
            text += f"  - {{recipe: toy_voc, name: {name}, split: {split}, source: own, "
            text += f"rows: [{{value: {value}}}]}}\n"
        file = tmp_path / "references.yaml"
        file.write_text(text)
        read_references.cache_clear()
        given = read_references(file)
        read_references.cache_clear()
        monkeypatch.setattr(findings, "read_references", lambda: given)

        common = ["--config", "toy_voc", "--device", "cpu", "--threads", 1, "--quiet"]
        data = [] if "--data_root" in flags else ["--data_root", toy_voc]
        status = run(command(health.main), *common, *data, *flags)
        said = capsys.readouterr()
        assert not said.err or status == 2
        lines = {}
        for line in said.out.splitlines():
            what, _, rest = line[12:].partition(": ")
            lines[what.partition(" (")[0]] = f"{line[:12].strip()}: {rest}"
        return status, lines

    return check


def verdicts(lines: dict[str, str]) -> dict[str, str]:
    """Verdict of each line that has one against a number."""
    judged = {what: line.partition(":")[0] for what, line in lines.items()}
    return {what: verdict for what, verdict in judged.items() if verdict in ("suspicious", "wrong")}


def test_where_all_is_as_expected_nothing_is_wrong(check: Health) -> None:
    status, lines = check(numbers(), "--no_seeds")
    assert status == 0 and not verdicts(lines)
    page = "expected 4 (a page, https://example.org/page)"
    assert lines["images of val"] == f"ok: {VAL}; {page}"
    assert lines["masks of val"] == "ok: 4 of 4 images have masks"
    assert lines["CLIP file"].startswith("ok: ") and "toy_clip.safetensors" in lines["CLIP file"]
    assert lines["CLIP parameters"] == "-: 3,524,225"  # no source has it here
    assert "CLIP seed" not in lines


def test_another_number_of_images_is_wrong(check: Health) -> None:
    status, lines = check(numbers(train_aug=10582), "--no_seeds")
    assert status == 1
    assert verdicts(lines) == {"images of train_aug": "wrong"}
    assert "24; expected 10,582 (a page" in lines["images of train_aug"]


@pytest.mark.parametrize(("left", "verdict"), [(0, "wrong"), (2, "suspicious")])
def test_masks_that_are_not_there_are_told(
    left: int, verdict: str, check: Health, tmp_path: Path
) -> None:
    root = tmp_path / "voc"
    write_voc(root, 2, 4, 96, seed=0)
    for folder in root.glob("SegmentationClass*"):
        for path in sorted(folder.glob("toy_val_*.png"))[left:]:
            path.unlink()
    expected = numbers(train_aug=2, train=2)
    status, lines = check(expected, "--no_seeds", "--data_root", root)
    assert verdicts(lines) == {"masks of val": verdict}
    assert status == (1 if verdict == "wrong" else 0)
    assert f"{left} of 4 images have masks" in lines["masks of val"]


def test_other_weights_are_wrong(check: Health, clip_file: Path, tmp_path: Path) -> None:
    broken = tmp_path / "ViT-B-16.pt"
    broken.write_bytes(b"half a download")
    status, lines = check(numbers(), "--no_seeds", "--clip_path", broken)
    assert status == 1 and "ViT-B-16.pt" in lines["CLIP"] and lines["CLIP"].startswith("wrong")

    expected = {("CLIP parameters", "weights"): 149620737.0}
    status, lines = check(expected, "--no_seeds")
    assert status == 1
    assert "3,524,225; expected 149,620,737 (a page" in lines["CLIP parameters"]


def test_every_weights_file_that_is_missing_is_told(check: Health, tmp_path: Path) -> None:
    names = {"clip_path": "ViT-B-16.pt", "deit_path": "deit.pth"}
    flags = [each for flag, name in names.items() for each in (f"--{flag}", tmp_path / name)]
    status, lines = check(numbers(), "--no_seeds", "--init", "deit", *flags)
    assert status == 1
    assert "ViT-B-16.pt does not exist" in lines["CLIP"]
    assert "deit.pth does not exist" in lines["class-token ViT"]


def test_weights_of_full_size_are_held_against_their_own_numbers(
    clip_file: Path, toy_voc: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    read_references.cache_clear()
    flags = ["--clip_path", clip_file, "--branches", "clip", "--data_root", toy_voc, "--no_seeds"]
    assert run(command(health.main), *flags, "--device", "cpu") == 1
    said = capsys.readouterr().out
    assert "expected 149,620,737 (MTEB's table of models, https://" in said
    assert "wrong       images of train_aug: 24; expected 10,582 (DeepLab's table" in said


def scored(toy_voc: Path, folder: Path) -> float:
    """CLIP's seed of all training pictures, as the seeds-only run scores it, in percent."""
    flags = ["--config", "toy_voc", "--data_root", toy_voc, "--branches", "clip"]
    flags += ["--stages", "seeds", "--device", "cpu", "--threads", 1, "--work_dir", folder]
    assert run(train_voc.main, *flags, "--par_iterations", 0, "--quiet") == 0
    return 100 * ConfusionMatrix.from_counts(read_results(folder)["CLIP seed"]["counts"]).miou()


def test_seeds_are_those_of_a_seeds_run_and_each_verdict_follows_from_the_bounds(
    check: Health, toy_voc: Path, tmp_path: Path
) -> None:
    true = scored(toy_voc, tmp_path / "seeds")
    status, lines = check(numbers(seed=true), "--images", 500)
    assert status == 0 and lines["CLIP seed"].startswith(f"ok: {true:.1f}, 95% within")
    assert any("images take about" in line for line in lines)

    low, high = (float(part) for part in lines["CLIP seed"].split(";")[0].split()[-3::2])
    assert low < true < high
    status, lines = check(numbers(seed=high + 0.02 * (high - true)), "--images", 500)
    assert status == 0 and lines["CLIP seed"].startswith("suspicious: ")
    status, lines = check(numbers(seed=true + 3 * (high - true)), "--images", 500)
    assert status == 1 and lines["CLIP seed"].startswith("wrong: ")


def test_without_masks_seeds_cannot_be_scored(check: Health, without_masks: Path) -> None:
    status, lines = check(numbers(seed=50), "--data_root", without_masks)
    assert status == 1 and "no image of train has a mask" in lines["CLIP seed"]


def test_a_gpu_that_cannot_be_used_is_wrong(check: Health, monkeypatch: pytest.MonkeyPatch) -> None:
    reason = "this machine has an NVIDIA GPU that PyTorch cannot use: its driver is 470.82"
    monkeypatch.setattr(parts, "unusable_gpu", lambda: reason)
    status, lines = check(numbers(), "--no_seeds", "--device", "auto")
    assert status == 1 and gpu.DRIVERS_PAGE in lines["device"]
    status, lines = check(numbers(), "--no_seeds")
    assert status == 0  # the CPU was asked for


def test_one_fault_is_told_once(check: Health, tmp_path: Path) -> None:
    status, lines = check(numbers(seed=50), "--data_root", tmp_path / "nowhere")
    assert status == 1
    assert verdicts(lines) == {"images of train_aug": "wrong"}
    assert "nowhere is not a folder" in lines["images of train_aug"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [(["--images", "1"], "--images 1 must be at least 2"), (["--image", "9"], "unknown flag")],
)
def test_flags_that_say_nothing_are_refused(
    flags: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command(health.main), *flags) == 2
    assert said in capsys.readouterr().err


@pytest.mark.heavy
def test_the_toy_is_as_its_references_say(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    read_references.cache_clear()
    root = tmp_path / "toy"
    write_voc(root, **BENCHMARK)
    flags = ["--config", "toy_voc", "--data_root", root, "--device", "cpu"]
    assert run(command(health.main), *flags) == 0
    said = capsys.readouterr().out
    assert said.count("\nok ") >= 9 and said.endswith("nothing is wrong\n")
    assert "ok          CLIP seed (train, spread over 3000, 199): " in said


def test_the_references_of_the_toy_have_no_tolerance_of_ours() -> None:
    read_references.cache_clear()
    seeds: list[Reference] = [each for each in read_references() if each.name == "CLIP seed"]
    assert {each.recipe for each in seeds} == {"clip_es_voc", "toy_voc"}
    assert all(each.tolerance is None for each in seeds)
