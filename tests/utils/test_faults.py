"""What happens around a training: full disks, lost folders and pictures, dying processes, signals,
two runs at once.
"""

import errno
import os
import resource
import shutil
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
import torch
from helpers import TRAIN, VAL, counted, crash, metrics, run, same_weights, signalled

import train_voc
from datasets import picture_files, pictures
from datasets.data import MaskedImages, TaggedImages
from utils.common import claim
from utils.common.claim import claimed
from utils.common.entry import command
from utils.common.errors import UserError
from utils.common.signals import StopRequest, follow_parent, interrupted_by_signals, stop_asked
from utils.config import Config
from utils.run_folder import bad_images as of_pictures
from utils.run_folder.bad_images import bad_images
from utils.run_folder.checkpoint import load_checkpoint
from utils.splits import split_items
from utils.training import loop, stages

OUT_OF_MEMORY = torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
WORKER = RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. \nmore")


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "runs/a"),
            "runs/a: No space left on device; free space",
        ),
        (
            OSError(errno.EROFS, "Read-only file system", "runs/a"),
            "runs/a: Read-only file system; make it readable and writable",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "runs/a"), "make it readable"),
        (OSError(errno.EMFILE, "Too many open files"), "lower --workers"),
        (
            FileExistsError(errno.EEXIST, "File exists", "runs/a"),
            "runs/a: File exists; name another file or folder",
        ),
        (OUT_OF_MEMORY, "lower --mct_batch_size or --mct_crop_size in stage 1, --batch_size or"),
        (MemoryError(), "out of memory; lower --mct_batch_size"),
        (
            WORKER,
            "a data loading process died (DataLoader worker (pid 7) is killed by signal: Killed)",
        ),
    ],
)
def test_a_fault_of_the_machine_is_one_sentence(
    fault: Exception, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> None:
        raise fault

    assert run(command(main)) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and said in lines[0]


def test_a_bug_keeps_its_traceback() -> None:
    def main() -> None:
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        run(command(main))


def test_a_full_disk_ends_the_run_and_keeps_the_checkpoint(
    trained: Path, start: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = tmp_path / "run" / "checkpoints" / "segmenter.pt"
    with pytest.MonkeyPatch.context() as patch:
        counted(patch, 5, crash)
        assert run(train_voc.main, *start) == 130
    assert "kept: the same command with --resume goes on" in capsys.readouterr().err
    before = checkpoint.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # no file may grow beyond
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        assert run(train_voc.main, *start, "--resume") == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (
        "segmenter.pt cannot be written (File too large); the one before is kept"
        in capsys.readouterr().err
    )
    assert checkpoint.read_bytes() == before and not list(checkpoint.parent.glob("*.partial"))
    assert run(train_voc.main, *start, "--resume") == 0 and same_weights(tmp_path / "run", trained)


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnhandledThreadExceptionWarning"
)  # of TensorBoard
def test_a_run_survives_the_loss_of_its_folder_and_clocks_that_go_back(
    trained: Path, start: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(10**9, 0, -3600))
    counted(monkeypatch, 3, lambda: shutil.rmtree(tmp_path / "run"))
    monkeypatch.setattr(time, "time", lambda: float(next(clock)))
    assert run(train_voc.main, *start) == 0
    assert same_weights(tmp_path / "run", trained)


def test_a_signal_ends_a_validation_at_once_and_it_is_made_up_for(
    trained: Path, start: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    validated = []

    def update(step: int) -> None:
        validated.append(step)
        if len(validated) == 1:
            signalled()
            time.sleep(60)  # an evaluation that takes long

    report = stages.report
    monkeypatch.setattr(stages, "report", lambda *args: (update(args[-1]), report(*args)))
    begun = time.monotonic()
    assert run(train_voc.main, *start) == 130 and time.monotonic() - begun < 60
    assert (
        load_checkpoint(tmp_path / "run" / "checkpoints" / "segmenter.pt", "--resume")["step"] == 3
    )
    assert run(train_voc.main, *start, "--resume") == 0
    assert validated == [3, 3, 4] and same_weights(tmp_path / "run", trained)
    assert metrics(tmp_path / "run") == [
        row for row in metrics(trained) if b"seed" not in row and b"pseudo" not in row
    ]


def test_a_signal_in_the_last_iteration_of_a_stage_ends_the_run_before_the_next(
    trained: Path, start: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for at, done in ((1, 2), (3, 4)):  # of stage 1, then of stage 2
        with monkeypatch.context() as patch:
            steps = counted(patch, at, signalled)
            assert run(train_voc.main, *start, "--resume") == 130
        assert len(steps) == done
    assert run(train_voc.main, *start, "--resume") == 0
    assert same_weights(tmp_path / "run", trained)


SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU"]


@pytest.mark.parametrize("name", SIGNALS)
def test_a_second_signal_interrupts_at_once(name: str) -> None:
    with interrupted_by_signals(), StopRequest() as stop:
        os.kill(os.getpid(), getattr(signal, name))
        assert stop.made and stop_asked()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), getattr(signal, name))
    assert not stop_asked()


def test_a_hangup_that_nohup_has_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interrupted_by_signals(), StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.made
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [getattr(signal, name) for name in SIGNALS])
def test_loading_processes_leave_signals_to_the_training_process(number: int) -> None:
    child = os.fork()
    if not child:
        follow_parent()
        if os.fork() == 0:  # sent by another process than the parent
            os.kill(os.getppid(), number)
            os._exit(0)
        os.wait()
        time.sleep(0.2)
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def wait_as_helper(started: Event) -> None:
    follow_parent()
    started.set()
    time.sleep(60)


def test_a_helper_process_ends_when_its_parent_says_so() -> None:
    context = get_context("fork")
    started = context.Event()
    helper = context.Process(target=wait_as_helper, args=(started,))
    helper.start()
    assert started.wait(30)
    begun = time.monotonic()
    helper.terminate()
    helper.join(30)
    assert helper.exitcode == 0 and time.monotonic() - begun < 30


def test_a_loading_process_that_dies_is_one_sentence(
    start: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(TaggedImages, "_sample", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    assert run(train_voc.main, *start, "--workers", 1) == 1
    assert "a data loading process died" in capsys.readouterr().err.splitlines()[-1]


def test_a_folder_serves_one_run_at_a_time(
    start: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(claim, "PATIENCE", 0.1)
    (tmp_path / "run").mkdir()
    with claimed(tmp_path / "run"):
        assert run(train_voc.main, *start) == 2
    assert "run is in use by another process" in capsys.readouterr().err
    with claimed(tmp_path / "run"):  # free again
        pass


def test_a_loss_that_is_not_finite_is_kept_for_replay(
    start: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    criterion, calls = stages.criterion, []

    def broken(*args: object, **options: object) -> dict[str, torch.Tensor]:
        calls.append(args)
        terms = criterion(*args, **options)
        return {**terms, "patch": terms["patch"] / 0} if len(calls) == 3 else terms

    monkeypatch.setattr(stages, "criterion", broken)
    assert run(train_voc.main, *start) == 2
    said = capsys.readouterr().err
    file = tmp_path / "run" / "nonfinite_segmenter_2_0.pt"
    assert "at segmenter iteration 2" in said and str(file) in said and "'patch': inf" in said
    kept = load_checkpoint(file, "--replay")
    assert kept["images"] and all(name in said for name in kept["images"])
    assert kept["batch"]["image"].shape == (2, 3, 64, 64) and torch.isfinite(
        torch.tensor(kept["terms"]["seg"])
    )
    last = load_checkpoint(tmp_path / "run" / "checkpoints" / "segmenter.pt", "--resume")
    assert last["step"] == 2 and all(
        torch.equal(last["model"][name], value) for name, value in kept["model"].items()
    )


def test_weights_that_are_not_finite_never_replace_a_checkpoint(
    start: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    step_of = loop.train_step

    def step(stage: loop.Stage, *rest: object) -> dict[str, torch.Tensor]:
        terms = step_of(stage, *rest)
        if stage.name == "segmenter" and rest[-1] == 3:
            next(stage.module.decoder.parameters()).data.fill_(float("nan"))
        return terms

    monkeypatch.setattr(loop, "train_step", step)
    assert run(train_voc.main, *start) == 2
    assert "1 tensors of segmenter, first decoder." in capsys.readouterr().err
    assert (
        load_checkpoint(tmp_path / "run" / "checkpoints" / "segmenter.pt", "--resume")["step"] == 2
    )


def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    trained: Path, start: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        counted(patch, 4, signalled)
        assert run(train_voc.main, *start, "--keep", 3, "--checkpoint_every", 1) == 130
    checkpoints = tmp_path / "run" / "checkpoints"
    assert len(list(checkpoints.glob("segmenter_*.pt"))) == 3
    for name in ("segmenter.pt", "segmenter_00000003.pt"):
        content = (checkpoints / name).read_bytes()
        (checkpoints / name).unlink()
        (checkpoints / name).write_bytes(content[:1000])
    assert run(train_voc.main, *start, "--resume") == 0
    assert "going on from" in capsys.readouterr().out and same_weights(tmp_path / "run", trained)


BROKEN = {
    "truncated": lambda file: file.write_bytes(file.read_bytes()[:300]),
    "vanished": Path.unlink,
    "empty": lambda file: file.write_bytes(b""),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_picture_that_breaks_under_way_is_named(
    kind: str,
    start: list[str],
    without_masks: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(picture_files, "READ_AGAIN_AFTER", (0, 0))
    broken = without_masks / "JPEGImages" / "toy_train_000005.jpg"
    counted(monkeypatch, 1, lambda: BROKEN[kind](broken))
    assert run(train_voc.main, *start, "--data_root", without_masks, "--mct_epochs", 2) == 2
    fault = "cannot be read"
    if kind == "vanished":
        fault = "does not exist"
    assert f"image {broken} {fault}" in capsys.readouterr().err


def test_a_run_that_a_picture_ended_goes_on_without_it_if_asked(
    start: list[str], without_masks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picture_files, "READ_AGAIN_AFTER", (0, 0))
    broken = without_masks / "JPEGImages" / "toy_train_000005.jpg"
    broken.write_bytes(b"")
    flags = [*start, "--data_root", without_masks, "--max_iters", 1, "--visualise", TRAIN]
    assert run(train_voc.main, *flags) == 2
    assert run(train_voc.main, *flags, "--resume", "--on_bad_image", "skip") == 0
    noted = bad_images(tmp_path / "run")
    places = [entry["place"] for entry in noted]
    assert places[0].startswith("classifier iteration") and places[-1] == "panels"
    assert all(str(broken) in entry["reason"] for entry in noted)
    last = (tmp_path / "run" / "train.log").read_text()
    assert f"{len(noted)} times a picture could not be read and was skipped" in last


def test_an_image_that_cannot_be_read_is_none_of_those_that_a_score_is_of(
    start: list[str], toy_voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picture_files, "READ_AGAIN_AFTER", (0, 0))
    root = shutil.copytree(toy_voc, tmp_path / "data")
    (root / "JPEGImages" / "toy_val_000001.jpg").write_bytes(b"no picture")
    flags = ["--data_root", root, "--branches", "clip", "--max_iters", 1, "--eval_images", 0]
    assert run(train_voc.main, *start, *flags, "--on_bad_image", "skip") == 0
    said = (tmp_path / "run" / "train.log").read_text()
    assert f"(val, {VAL - 1} images)" in said


@pytest.fixture
def pair(toy_voc: Path, tmp_path: Path) -> tuple[list, torch.Tensor]:
    """Three images with masks, of which the second is broken, and tags."""
    root = shutil.copytree(toy_voc, tmp_path / "data")
    found = split_items(Config(data_root=str(root), train_split="train"), "train")[:3]
    found[1].image.write_bytes(b"no picture")
    return found, torch.eye(3, 20).bool().numpy()


def test_the_next_picture_stands_in_for_an_unreadable_one(pair: tuple[list, torch.Tensor]) -> None:
    found, tags = pair
    data = TaggedImages(found, tags, 32, skip_bad=True)
    stand_in, own = data[7, 1], data[7, 2]
    assert str(found[1].image) in stand_in["skipped"] and own["skipped"] == ""
    assert stand_in["index"] == 2 and torch.equal(stand_in["image"], own["image"])
    assert torch.equal(stand_in["tags"], own["tags"])
    for item in found:
        item.image.write_bytes(b"no picture")
    with pytest.raises(UserError, match="11 images one after another cannot be read"):
        data[7, 0]


def test_evaluation_counts_what_it_cannot_read(
    pair: tuple[list, torch.Tensor], tmp_path: Path
) -> None:
    found, _ = pair
    note = partial(of_pictures.note_bad_image, tmp_path, "validation")
    samples = list(of_pictures.readable(MaskedImages(found, skip_bad=True), note))
    assert [sample["name"] for sample in samples] == [found[0].name, found[2].name]
    assert [entry["place"] for entry in bad_images(tmp_path)] == ["validation"]
    with pytest.raises(UserError, match="cannot be read"):
        MaskedImages(found)[1]


def test_a_line_that_a_power_cut_tore_does_not_hide_the_bad_images_after_it(tmp_path: Path) -> None:
    of_pictures.note_bad_image(tmp_path, "iteration 1", "a.jpg is broken")
    with (tmp_path / of_pictures.BAD_IMAGES).open("a") as file:
        file.write('{"place": "iter')
    for reason in ("b.jpg is broken", "c.jpg is broken", "a.jpg is broken"):
        of_pictures.note_bad_image(tmp_path, "iteration 1", reason)
    assert [entry["reason"] for entry in bad_images(tmp_path)] == [
        "a.jpg is broken",
        "c.jpg is broken",
    ]


@pytest.mark.parametrize(("failures", "read"), [(1, True), (2, True), (3, False)])
def test_a_mount_that_fails_for_a_moment_is_read_again(
    failures: int, read: bool, toy_voc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = next((toy_voc / "JPEGImages").iterdir())
    whole, left = pictures.load_image(file), [OSError(errno.EIO, "Input/output error")] * failures
    read_bytes: Callable[[Path], bytes] = Path.read_bytes

    def flaky(path: Path) -> bytes:
        if left:
            raise left.pop()
        return read_bytes(path)

    monkeypatch.setattr(picture_files, "READ_AGAIN_AFTER", (0, 0))
    monkeypatch.setattr(Path, "read_bytes", flaky)
    if read:
        assert (pictures.load_image(file) == whole).all()
    else:
        with pytest.raises(UserError, match="Input/output error"):
            pictures.load_image(file)


@pytest.mark.parametrize("name", ["SIGINT", "SIGHUP", "SIGUSR1"])
def test_the_first_signal_ends_the_wait_for_a_picture_with_a_checkpoint(
    name: str, trained: Path, start: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = TaggedImages._sample

    def stuck(self: TaggedImages, iteration: int, index: int) -> dict[str, object]:
        if iteration == 3:
            threading.Timer(0.3, os.kill, (os.getpid(), getattr(signal, name))).start()
            time.sleep(60)
        return sample(self, iteration, index)

    with monkeypatch.context() as patch:
        patch.setattr(TaggedImages, "_sample", stuck)
        begun = time.monotonic()
        assert run(train_voc.main, *start, "--checkpoint_every", 100) == 130
        assert time.monotonic() - begun < 50
    last = load_checkpoint(tmp_path / "run" / "checkpoints" / "segmenter.pt", "--resume")
    assert last["step"] == 3
    assert run(train_voc.main, *start, "--resume", "--checkpoint_every", 100) == 0
    assert same_weights(tmp_path / "run", trained)
