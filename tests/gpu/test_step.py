"""A training step on the device against one on the CPU in float32, and that it never waits."""

import contextlib
import copy
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import tiny
import torch
from helpers import device_named
from torch import Tensor

from model import replay
from model.cvf import CVF
from utils.common.device import autocast, prepare_torch
from utils.config import Config
from utils.training.classifier import classifier_losses, seen_in_training
from utils.training.loop import train_step
from utils.training.optim import adamw
from utils.training.run import Run, Stage
from utils.training.stages import pseudo_label_losses

CPU = torch.device("cpu")
SWITCH = 10


def make_batch(pinned: bool = False) -> dict[str, Tensor]:
    """A batch as the loader gives it; the right quarter of the last image is padding."""
    _, tags = tiny.batch()
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(3, 3, 6, 6, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (64, 48), mode="bilinear")
    valid = torch.ones(3, 64, 48, dtype=torch.bool)
    valid[2, :, 36:] = False
    batch = {
        "image": (255 * smooth).to(torch.uint8),
        "valid": valid,
        "tags": tags,
        "index": torch.arange(3),
    }
    return {name: value.pin_memory() if pinned else value for name, value in batch.items()}


def make_stage(model: CVF, config: Config) -> Stage:
    """Stage 2 of a tiny model, without data and validation."""

    def losses(images: Tensor, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        return pseudo_label_losses(model, images, batch, step, config)

    optimiser = adamw([(model.parameters(), 1e-4)], config.weight_decay)
    return Stage("segmenter", model, optimiser, lambda _: 1.0, losses, None, 1, 3)


def settings(precision: str) -> Config:
    return Config(precision=precision, switch_iters=SWITCH, warmup_iters=1, max_iters=2 * SWITCH)


def one_step(device: torch.device, precision: str, step: int) -> tuple[dict[str, float], Tensor]:
    """Loss terms of one step of the same tiny model, and the gradients in a row, on the CPU."""
    prepare_torch(0)
    torch.manual_seed(0)
    model, config = tiny.cvf().to(device), settings(precision)
    run = Run(config, device, 0, 1, Path(), None)
    terms = train_step(make_stage(model, config), run, make_batch(), step)
    gradients = [p.grad.flatten().cpu() for p in model.parameters() if p.grad is not None]
    assert all(p.device.type == device.type for p in model.parameters())
    return {name: float(term) for name, term in terms.items()}, torch.cat(gradients)


@pytest.fixture(autouse=True)
def _denormals() -> Iterator[None]:
    yield
    torch.set_flush_denormal(False)  # as it was before `prepare_torch`


@pytest.mark.parametrize("step", [0, SWITCH])
@pytest.mark.parametrize(("precision", "apart"), [("fp32", 1e-3), ("bf16", 3e-2)])
def test_a_step_agrees_with_float32_on_the_cpu(
    device: torch.device, precision: str, apart: float, step: int
) -> None:
    expected, expected_gradients = one_step(CPU, "fp32", step)
    terms, gradients = one_step(device, precision, step)
    assert terms.keys() == expected.keys() == {"seg", "affinity", "patch", "loss"}
    for name, value in terms.items():
        assert value == pytest.approx(expected[name], rel=apart), name

    difference = (gradients - expected_gradients).norm() / expected_gradients.norm()
    assert difference < 5 * apart


@contextlib.contextmanager
def waits_refused(device: torch.device) -> Iterator[None]:
    """Raise RuntimeError where an operation makes the CPU wait for the GPU."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_never_waits_for_the_device(device: torch.device, precision: str) -> None:
    prepare_torch(0)
    model, config = tiny.cvf().to(device), settings(precision)
    stage, run = make_stage(model, config), Run(config, device, 0, 1, Path(), None)
    batch = make_batch(pinned=device.type == "cuda")
    # the first makes the optimiser's state and loads kernels, the last records graphs
    for step in (0, SWITCH) * replay.RECORDED_AT:
        train_step(stage, run, batch, step)
    with waits_refused(device):
        for step in (1, SWITCH):
            terms = train_step(stage, run, batch, step)
    assert all(torch.isfinite(term) for term in terms.values())


@pytest.mark.gpu
def test_a_wait_is_noticed() -> None:
    values = torch.rand(4, device=device_named("cuda"))
    with waits_refused(values.device), pytest.raises(RuntimeError, match="synchroniz"):
        values.sum().item()


@pytest.mark.gpu
def test_what_cannot_be_recorded_leaves_the_stream_as_it_was() -> None:
    device = device_named("cuda")
    usual = torch.cuda.current_stream(device)
    again = replay.Replay()
    given = [torch.full((2,), float(start), device=device) for start in range(8)]
    with torch.no_grad(), pytest.warns(UserWarning, match="sum runs without a CUDA graph"):
        sums = [again("sum", lambda x: x.sum().item(), values) for values in given]
    assert sums == [2 * start for start in range(8)]
    assert torch.cuda.current_stream(device) == usual


@pytest.mark.gpu
def test_a_gpu_that_is_not_the_current_one_replays_what_it_is_given() -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("there is no second GPU")
    again = replay.Replay()
    given = [torch.full((2,), float(start), device="cuda:1") for start in range(8)]
    with torch.no_grad():
        doubled = [again("double", lambda x: 2 * x, values).tolist() for values in given]
    assert doubled == [[2 * start] * 2 for start in range(8)]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_is_replayed_is_what_would_be_computed(
    device: torch.device, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = tiny.cvf().to(device).requires_grad_(False).eval()
    _, tags = tiny.batch()
    pictures = [torch.randn(3, 3, 64, 48) for _ in range(2 * replay.RECORDED_AT)]

    def outputs() -> list[Tensor]:
        """All that is predicted and labelled, picture after picture."""
        found = []
        with torch.no_grad(), autocast(device, precision):
            for images in pictures:
                output = model(images.to(device), tags)
                segmented = model.segment(images.to(device))
                found += [output.logits, output.labels.combined.float(), segmented]
        return [each.float().cpu() for each in found]

    replayed = outputs()
    monkeypatch.setattr(replay, "MOST", 0)
    model = copy.deepcopy(model)
    for one, other in zip(replayed, outputs(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def segmenter(device: torch.device, precision: str) -> tuple[Stage, Run]:
    """Stage 2 with all that may stand beside CLIP, and channels dropped."""
    beside = {"dino": True, "dino_use": "both", "text_match": True}
    model, config = tiny.cvf(**beside, fusion_dropout=0.1).to(device), settings(precision)
    return make_stage(model, config), Run(config, device, 0, 1, Path(), None)


def classifier(device: torch.device, precision: str) -> tuple[Stage, Run]:
    """Stage 1, with paths dropped."""
    vit = tiny.vit().to(device).train()
    config = Config(precision=precision, mct_drop_path=0.3)
    losses = partial(classifier_losses, seen_in_training(vit, config), config)
    optimiser = adamw([(vit.parameters(), 1e-4)], config.weight_decay)
    stage = Stage("classifier", vit, optimiser, lambda _: 1.0, losses, None, 1, 3)
    return stage, Run(config, device, 0, 1, Path(), None)


@pytest.mark.parametrize("make", [classifier, segmenter])
@pytest.mark.parametrize(("precision", "apart"), [("fp32", 1e-4), ("bf16", 1e-2)])
def test_what_learns_by_graphs_learns_the_same(
    device: torch.device,
    precision: str,
    apart: float,
    make: Callable[[torch.device, str], tuple[Stage, Run]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def last_step() -> tuple[list[float], Tensor]:
        """Terms and gradients of the last of some steps, each on other pictures."""
        prepare_torch(0)
        torch.manual_seed(0)
        stage, run = make(device, precision)
        for step in range(2 * replay.RECORDED_AT):
            batch = make_batch()
            batch["image"] = batch["image"].roll(step, -1)
            terms = train_step(stage, run, batch, step)

        found = [p.grad.flatten().cpu() for p in stage.module.parameters() if p.grad is not None]
        return [float(term) for term in terms.values()], torch.cat(found)

    terms, gradients = last_step()
    monkeypatch.setattr(replay, "MOST", 0)
    expected, expected_gradients = last_step()
    assert terms == pytest.approx(expected, rel=apart)
    assert (gradients - expected_gradients).norm() <= 10 * apart * expected_gradients.norm()
