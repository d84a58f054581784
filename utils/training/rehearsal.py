"""What a stage that is yet to come will take: a few of its steps are made before the run, of which
nothing is kept, and a few images scored.
"""

import time
from collections.abc import Callable, Sized
from dataclasses import replace

import torch

from model.cvf import CVF
from model.method import BEGINNING
from model.replay import RECORDED_AT
from utils.common.device import synchronise
from utils.run_folder.checkpoint import checkpoint_of
from utils.training.loop import batches, forward, on_device
from utils.training.plan import Evaluation
from utils.training.run import Run, Stage
from utils.training.validation import score_seeds, validate

FEWEST = 50  # iterations of a run that is worth a rehearsal
IMAGES = 2
# what is done so often before it is timed has made ready what stays: on a GPU, its graphs too
MADE_READY = {"cpu": 1, "cuda": RECORDED_AT}


def rehearse(made: Callable[[], Stage], model: CVF, evaluation: Evaluation, run: Run) -> None:
    """Tell the run's forecast how long stage 2, which `made` gives, and its evaluations will take;
    in a short run nothing.
    """
    config = run.config
    if config.max_iters < FEWEST:
        return
    learns = [(tensor, tensor.requires_grad) for tensor in model.parameters()]
    stage = made()
    each = rehearse_evaluation(model, evaluation, run)
    run.forecast.evaluations[stage.evaluation] = each
    if not checkpoint_of(run.folder, stage.name).is_file():
        count = stage.evaluations_after(0, config.eval_every)
        run.forecast.later = rehearse_steps(stage, run) + count * each

    for tensor, learnt in learns:  # stage 1 teaches what stage 2 may leave as it is
        tensor.requires_grad_(learnt)
    model.forget_graphs()  # stage 1 needs their memory
    if run.device.type == "cuda":
        torch.cuda.empty_cache()


def rehearse_steps(stage: Stage, run: Run) -> float:
    """Return the seconds that all iterations of a stage will take, without their updates."""
    batch = on_device(next(batches(stage, alone(run), 0)), run.device)
    seconds = 0.0
    stage.module.train()
    for _ in range(MADE_READY[run.device.type] + 1):
        clock = time.perf_counter()
        # the loss has no name, as what holds on to the graph of a step may keep the next from
        # being recorded (`model.replay`)
        forward(stage, run, batch, 0)[1].backward()
        synchronise(run.device)
        seconds = time.perf_counter() - clock
        stage.optimiser.zero_grad(set_to_none=True)

    return seconds * stage.iterations


def rehearse_evaluation(model: CVF, evaluation: Evaluation, run: Run) -> float:
    """Return the seconds that one evaluation will take, drawn panels left out."""
    small = alone(run)
    few = evaluation.validation[:IMAGES]
    tagged = evaluation.seeds.at(range(min(IMAGES, len(evaluation.seeds))))
    before = MADE_READY[run.device.type]
    seconds = _timed(lambda: validate(model, few, small), before, few, evaluation.validation)
    return seconds + _timed(
        lambda: score_seeds(model, tagged, small, BEGINNING), before, tagged, evaluation.seeds
    )


def alone(run: Run) -> Run:
    """Return the same run without loading processes, bars and notes."""
    config = replace(run.config, workers=0, quiet=True)
    return replace(run, config=config, rehearsed=True)


def _timed(work: Callable[[], object], before: int, few: Sized, every: Sized) -> float:
    """Return the seconds that work on every image will take, from work on a few, timed when it has
    been done so often before.
    """
    if not len(few):
        return 0.0
    for _ in range(before):
        work()

    clock = time.perf_counter()
    work()
    return (time.perf_counter() - clock) * len(every) / len(few)
