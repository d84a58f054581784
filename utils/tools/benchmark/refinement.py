"""What refines label maps: PAR and the dense CRF."""

import importlib.util
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from model.par import refine
from utils.inference.crf import crf
from utils.tools.benchmark.crf_cases import crf_cases
from utils.tools.benchmark.networks import tag_counts
from utils.tools.benchmark.rows import Row, Setting, timed
from utils.tools.benchmark.timing import Work, measure


def measure_par(settings: list[Setting]) -> Iterator[Row]:
    """Measure pixel-adaptive refinement alone."""

    def work(setting: Setting) -> Work:
        """Make what PAR is given under a setting."""
        c = setting.config
        size = (c.crop_size, c.crop_size)
        images = torch.randn(c.batch_size, 3, *size, device=setting.device)
        counts = tag_counts(c, c.batch_size)
        masks = [torch.rand(1 + count, *size, device=setting.device) for count in counts]
        return lambda: refine(images, masks, c.par_iterations)

    for setting, _, timing in timed(settings, [work(s) for s in settings]):
        c = setting.config
        rows = c.batch_size + sum(tag_counts(c, c.batch_size))
        note = (
            f"{rows} masks of {c.batch_size} images at {c.crop_size} px, {c.par_iterations} rounds"
        )
        yield Row("PAR", setting.name, timing, note)


def measure_crf(settings: list[Setting]) -> Iterator[Row]:
    """Measure the dense CRF by each way that is installed, and how far each agrees with the last of
    them.
    """
    setting = settings[0]
    for title, image, probs in crf_cases(setting.images, setting.model_path, setting.device):
        ways: dict[str, Callable[[], tuple[Tensor, Tensor]]] = {
            "plausible labels": partial(crf, image, probs),
            "all labels": partial(crf, image, probs, plausible=0),
        }
        if importlib.util.find_spec("pydensecrf"):
            ways["pydensecrf, all labels"] = partial(
                crf, image, probs, backend="pydensecrf", plausible=0
            )

        _, reference = list(ways.values())[-1]()
        for (way, work), timing in zip(
            ways.items(), measure(list(ways.values()), setting.repeats, setting.device)
        ):
            labels, marginals = work()
            same = (labels[marginals.argmax(0)] == reference.argmax(0)).double().mean().item()
            apart = (marginals - reference[labels]).abs()
            note = (
                f"{title}, {len(labels)} labels; beside the last way same label on "
                f"{100 * same:.4f}%"
            )
            note += f", marginals apart {apart.mean():.1e} on average, {apart.max():.1e} at most"

            yield Row(f"CRF, {way}", setting.name, timing, note)
