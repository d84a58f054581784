"""The training loop: steps, checkpoints, validations, and the answer to a request to stop."""

import functools
import time
from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from datasets.data import Batch, IterationSampler
from datasets.transforms import STATISTICS, normalise
from utils.common import distributed
from utils.common.device import autocast, fetch, loading_processes, peak_gigabytes
from utils.common.errors import UserError
from utils.common.progress import Pace, progress
from utils.common.signals import StopRequest, follow_parent
from utils.run_folder.checkpoint import (
    checkpoint_of,
    keep_numbered,
    load_trained_state,
    newest_whole,
    portable,
    save_checkpoint,
    trained_state,
)
from utils.training.optim import load_state, set_rate
from utils.training.run import Run, Stage

# iterations between two looks whether another process is asked to stop; a look waits for the GPU
LOOK_EVERY = 4


def save(stage: Stage, run: Run, step: int, validated: bool = True) -> None:
    """Write all that resuming at `step` needs; augmentation is a function of the step, nothing else
    is random.

    `validated`: whether the validation due at `step`, if any, is done. Raises UserError rather than
    replace a good checkpoint with weights that are not finite.
    """
    if not distributed.is_main():
        return

    model = trained_state(stage.module)
    if spoilt := [name for name, tensor in model.items() if not torch.isfinite(tensor).all()]:
        raise UserError(
            f"{len(spoilt)} tensors of {stage.name}, first {spoilt[0]}, are not finite after "
            f"iteration {step}; the "
            "checkpoint before is kept, lower --lr or use --precision fp32"
        )

    content = {
        **run.facts,
        "stage": stage.name,
        "step": step,
        "validated": validated,
        "config": portable(run.config),
        "model": model,
        "optimiser": stage.optimiser.state_dict(),
    }
    path = checkpoint_of(run.folder, stage.name)
    save_checkpoint(content, path)
    keep_numbered(path, step, run.config.keep)


def resume(stage: Stage, run: Run) -> tuple[int, bool]:
    """Load the stage's checkpoint, if any; return the step to go on from, and whether its
    validation is done.

    Where the file is damaged, the newest whole one that `--keep` left is taken; UserError if none
    is whole. That it is this run's is checked before, by `check_checkpoints`.
    """
    path = checkpoint_of(run.folder, stage.name)
    if not path.is_file():
        return 0, True

    content, found = newest_whole(path, "--resume")
    if found != path:
        run.recorder.say(f"{path} cannot be read; going on from {found}")

    load_trained_state(stage.module, content["model"])
    load_state(stage.optimiser, content["optimiser"])
    return content["step"], content.get("validated", True)


def run_stage(stage: Stage, run: Run) -> bool:
    """Train a stage to its end, from its checkpoint if there is one; log, validate and save on the
    way. Returns False if it was at its end already.

    A signal that asks to end: the iteration is finished, or the wait for pictures or a validation
    left, a checkpoint written, then KeyboardInterrupt raised.
    """
    start, validated = resume(stage, run)
    end = stage.iterations
    config = run.config
    rewind_records(stage, run, start, validated)
    if start >= end:
        run.recorder.say(f"{stage.name}: complete ({end} iterations)")
        return False

    stage.module.train()
    bar = progress(quiet=config.quiet, total=end, initial=start, desc=stage.name)
    with StopRequest() as stop, bar:
        if not validated:
            run_validation(stage, run, stop, start)
        clock = time.perf_counter()
        pace = Pace(end - start, "iteration")
        loaded = batches(stage, run, start)

        for done in range(start + 1, end + 1):
            batch = next_batch(loaded, stage, run, stop, done)
            terms = train_step(stage, run, batch, done - 1)
            bar.update()

            due_later = stage.evaluations_after(done, config.eval_every)
            if told := pace.count(run.forecast.beyond(stage.evaluation, due_later)):
                run.recorder.say(f"{stage.name}: {told}")
            if done % config.log_every == 0 or done == end:
                seconds = (time.perf_counter() - clock) / (done - start)
                values = log(stage, run, done, terms, seconds)
                bar.set_postfix(loss=f"{values['loss']:.3f}", refresh=False)

            look = run.world == 1 or done % LOOK_EVERY == 0 or done == end
            stopping = look and distributed.agreed(stop.made, run.device)
            every = stage.eval_every or config.eval_every
            due = stage.evaluate is not None and done % every == 0 and done < end
            if due and not stopping:
                pace.leave_out(run_validation(stage, run, stop, done))

            # a validation that a stop leaves out is made up for when the run is resumed
            if done % config.checkpoint_every == 0 or done == end or stopping:
                save(stage, run, done, validated=not (due and stopping))
            if stopping:
                raise KeyboardInterrupt
    return True


def rewind_records(stage: Stage, run: Run, start: int, validated: bool) -> None:
    """Remove what was recorded after iteration `start`, and of the evaluation there if it will be
    made again: it was not finished (`validated`), or a finished stage repeats its last one.
    """
    run.recorder.rewind(stage.name, start)
    if stage.evaluate is None:
        return

    last = start
    repeated = start >= stage.iterations and stage.repeats_last
    if repeated or not validated:
        last -= 1
    run.recorder.rewind(stage.evaluation, last)


def batches(stage: Stage, run: Run, start: int) -> Iterator[Batch]:
    """Yield batches from iteration `start` on; pictures that were skipped as unreadable are
    noted.
    """
    config = run.config
    sampler = IterationSampler(
        len(stage.data), stage.batch_size, config.seed, start, stage.iterations, run.rank, run.world
    )
    on_gpu = run.device.type == "cuda"
    loader = DataLoader(
        stage.data,
        batch_sampler=sampler,
        num_workers=loading_processes(config.workers),
        pin_memory=on_gpu,
        worker_init_fn=follow_parent,
    )

    for iteration, batch in enumerate(loader, start + 1):
        for reason in filter(None, batch.pop("skipped")):
            run.note_bad_image(f"{stage.name} iteration {iteration}", reason)
        yield batch


def next_batch(
    loaded: Iterator[Batch], stage: Stage, run: Run, stop: StopRequest, due: int
) -> Batch:
    """Return the batch of iteration `due`. A request to stop ends the wait for it, with a
    checkpoint of what came before.

    Of several processes each waits for its own batch, as they stop together.
    """
    if run.world > 1:
        return next(loaded)

    try:
        with stop.interrupting():
            return next(loaded)
    except KeyboardInterrupt:
        save(stage, run, due - 1)
        raise


def run_validation(stage: Stage, run: Run, stop: StopRequest, done: int) -> float:
    """Validate after iteration `done`; returns the seconds it took. A request to stop leaves it,
    with a checkpoint that has it made up for.
    """
    if stage.evaluate is None:
        return 0.0
    clock = time.perf_counter()
    try:
        with stop.interrupting():
            stage.evaluate(done)
    except KeyboardInterrupt:
        save(stage, run, done, validated=False)
        raise

    seconds = time.perf_counter() - clock
    run.forecast.evaluations[stage.evaluation] = seconds
    return seconds


def log(
    stage: Stage, run: Run, done: int, terms: dict[str, Tensor], seconds: float
) -> dict[str, float]:
    """Record and return loss terms, learning rate, seconds per iteration (mean of this session),
    peak memory in GB.
    """
    # each process holds its share
    totals = distributed.total(torch.stack(list(terms.values()))).tolist()
    values = {
        **dict(zip(terms, totals)),
        "lr": stage.optimiser.param_groups[0]["lr"],
        "seconds": seconds,
    }
    values["memory"] = peak_gigabytes(run.device)

    run.recorder.scalars(stage.name, done, values)
    if stage.beside and (told := stage.beside.told(done, values)):
        run.recorder.say(f"{stage.name} iteration {done}: {told}")
    return values


def on_device(batch: Batch, device: torch.device) -> Batch:
    """Move a batch, but for tags and indices: these are read on the CPU, where nothing waits for
    the GPU, and the losses move them.
    """
    moved = dict(cast(dict[str, Tensor], batch))
    for name, value in moved.items():
        if name not in ("tags", "index"):
            moved[name] = value.to(device, non_blocking=True)
    return cast(Batch, moved)


def forward(stage: Stage, run: Run, batch: Batch, step: int) -> tuple[dict[str, Tensor], Tensor]:
    """Compute the terms of a batch on the device, and their sum."""
    images = normalise(batch["image"], *STATISTICS[run.config.statistics])
    with autocast(run.device, run.config.precision):
        terms = stage.losses(images, batch, step)
    return terms, functools.reduce(torch.add, terms.values())


def train_step(stage: Stage, run: Run, batch: Batch, step: int) -> dict[str, Tensor]:
    """Do one iteration: forward, backward, update. Returns the terms and their sum, `loss`,
    detached.
    """
    set_rate(stage.optimiser, stage.rate(step))
    batch = on_device(batch, run.device)
    terms, loss = forward(stage, run, batch, step)
    finite = fetch(torch.isfinite(loss))

    stage.optimiser.zero_grad(set_to_none=True)
    loss.backward()
    if not finite():
        raise UserError(keep_what_failed(stage, run, batch, terms, step))

    distributed.sum_gradients(p for group in stage.optimiser.param_groups for p in group["params"])
    stage.optimiser.step()

    return {**{name: term.detach() for name, term in terms.items()}, "loss": loss.detach()}


def keep_what_failed(
    stage: Stage, run: Run, batch: Batch, terms: dict[str, Tensor], step: int
) -> str:
    """Write what made a loss not finite: weights, batch, names, terms. Returns the sentence that
    says so.
    """
    names = [stage.data.names[i] for i in batch["index"].tolist()]
    values = {name: float(term.detach()) for name, term in terms.items()}
    file = run.folder / f"nonfinite_{stage.name}_{step}_{run.rank}.pt"
    content = {
        "stage": stage.name,
        "step": step,
        "images": names,
        "terms": values,
        "config": portable(run.config),
    }
    kept = {name: tensor.cpu() for name, tensor in cast(dict[str, Tensor], batch).items()}
    save_checkpoint(
        {**run.facts, **content, "batch": kept, "model": trained_state(stage.module)}, file
    )

    return (
        f"the loss is not finite at {stage.name} iteration {step}: {values}, images {names}; "
        f"all of it is in {file}, lower --lr or use --precision fp32"
    )
