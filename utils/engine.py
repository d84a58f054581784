"""The training loop, and what a stage of training is made of."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from datasets.data import IterationSampler, TaggedImages
from datasets.transforms import normalise
from utils import distributed
from utils.build import STATISTICS
from utils.checkpoint import PATHS, load_checkpoint, load_trained_state, portable, save_checkpoint, trained_state
from utils.config import Config
from utils.errors import UserError
from utils.optim import set_rate
from utils.progress import progress
from utils.recorder import Recorder
from utils.runtime import StopRequest, autocast, peak_memory

MAY_CHANGE = {  # settings that a resumed run may change: they say where it runs and how it is watched
    *PATHS, "device", "precision", "workers", "threads", "log_every", "checkpoint_every", "eval_every", "eval_seeds",
    "eval_images", "resize_long", "scales", "visualise", "quiet",
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """Where a run executes and what it writes; `facts` go into every checkpoint (classes, CLIP's checksum, ...)."""

    config: Config
    device: torch.device
    rank: int
    world: int
    folder: Path
    recorder: Recorder
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """One stage of training. `losses(images, batch, step)` gives named, weighted terms, whose sum is minimised."""

    name: str
    module: nn.Module
    optimiser: torch.optim.Optimizer
    rate: Callable[[int], float]
    losses: Callable[[Tensor, dict[str, Tensor], int], dict[str, Tensor]]
    data: TaggedImages
    iterations: int
    batch_size: int
    evaluate: Callable[[int], None] | None = None


def checkpoint_of(folder: Path, stage: str) -> Path:
    """The file a stage is resumed from."""
    return folder / "checkpoints" / f"{stage}.pt"


def save(stage: Stage, run: Run, step: int) -> None:
    """Write all that resuming at `step` needs; augmentation is a function of the step, nothing else is random."""
    if not distributed.is_main():
        return
    content = {
        **run.facts, "stage": stage.name, "step": step, "config": portable(run.config),
        "model": trained_state(stage.module), "optimiser": stage.optimiser.state_dict(),
    }  # fmt: skip
    save_checkpoint(content, checkpoint_of(run.folder, stage.name))


def resume(stage: Stage, run: Run) -> int:
    """Load the stage's checkpoint, if any; returns the step to go on from. Raises UserError if it is another run's."""
    path = checkpoint_of(run.folder, stage.name)
    if not path.is_file():
        return 0
    content = load_checkpoint(path, "--resume")
    check_same_run(run.config, content["config"], path)
    if content["clip_sha256"] != run.facts["clip_sha256"]:
        raise UserError(
            f"--resume: {path} was trained with another CLIP than --clip_path {run.config.clip_path}; give that"
        )
    if content["classes"] != run.facts["classes"]:
        raise UserError(f"--resume: {path} was trained with other classes; use another --work_dir")
    load_trained_state(stage.module, content["model"])
    stage.optimiser.load_state_dict(content["optimiser"])
    return content["step"]


def check_same_run(config: Config, theirs: dict[str, Any], path: Path) -> None:
    """Raises UserError when the settings in the file at `path` describe another training than `config`."""
    for key, ours in asdict(config).items():
        if key not in MAY_CHANGE and ours != theirs.get(key):
            raise UserError(
                f"--resume: {path} was trained with {key} {theirs.get(key)!r}, not {ours!r}; use another --work_dir"
            )


def run_stage(stage: Stage, run: Run) -> None:
    """Train a stage to its end, from its checkpoint if there is one; log, validate and save on the way.

    SIGINT or SIGTERM: the iteration is finished, a checkpoint written, then KeyboardInterrupt raised.
    """
    start, end, config = resume(stage, run), stage.iterations, run.config
    if start >= end:
        run.recorder.say(f"{stage.name}: complete ({end} iterations)")
        return
    sampler = IterationSampler(len(stage.data), stage.batch_size, config.seed, start, end, run.rank, run.world)
    on_gpu = run.device.type == "cuda"
    loader = DataLoader(stage.data, batch_sampler=sampler, num_workers=config.workers, pin_memory=on_gpu)
    stage.module.train()
    bar = progress(quiet=config.quiet, total=end, initial=start, desc=stage.name)
    with StopRequest() as stop, bar:
        clock = time.perf_counter()
        for done, batch in zip(range(start + 1, end + 1), loader):
            terms = train_step(stage, run, batch, done - 1)
            bar.update()
            if done % config.log_every == 0 or done == end:
                values = log(stage, run, done, terms, (time.perf_counter() - clock) / (done - start))
                bar.set_postfix(loss=f"{values['loss']:.3f}", refresh=False)
            if stage.evaluate is not None and done % config.eval_every == 0 and done < end:
                stage.evaluate(done)
            if done % config.checkpoint_every == 0 or done == end or stop.made:
                save(stage, run, done)
            if stop.made and done < end:
                raise KeyboardInterrupt


def log(stage: Stage, run: Run, done: int, terms: dict[str, Tensor], seconds: float) -> dict[str, float]:
    """Record and return loss terms, learning rate, seconds an iteration (mean of this session), peak memory in GB."""
    totals = distributed.total(torch.stack(list(terms.values()))).tolist()  # each process holds its share
    values = {**dict(zip(terms, totals)), "lr": stage.optimiser.param_groups[0]["lr"], "seconds": seconds}
    values["memory"] = peak_memory(run.device)
    run.recorder.scalars(stage.name, done, values)
    return values


def train_step(stage: Stage, run: Run, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
    """One iteration: forward, backward, update. Returns the terms and their sum, `loss`, detached."""
    set_rate(stage.optimiser, stage.rate(step))
    batch = {name: value.to(run.device, non_blocking=True) for name, value in batch.items()}
    images = normalise(batch["image"], *STATISTICS[run.config.statistics])
    with autocast(run.device, run.config.precision):
        terms = stage.losses(images, batch, step)
    loss = sum(terms.values())
    if not torch.isfinite(loss):
        names = [stage.data.names[i] for i in batch["index"].tolist()]
        values = {name: float(term) for name, term in terms.items()}
        raise UserError(
            f"the loss is not finite at {stage.name} iteration {step}: {values}, images {names}; "
            "lower --lr or use --precision fp32"
        )
    stage.optimiser.zero_grad(set_to_none=True)
    loss.backward()
    distributed.sum_gradients(p for group in stage.optimiser.param_groups for p in group["params"])
    stage.optimiser.step()
    return {**{name: term.detach() for name, term in terms.items()}, "loss": loss.detach()}
