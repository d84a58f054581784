"""What all evaluations of a model share: its mode, and how images come with their masks."""

import contextlib
from collections.abc import Iterator, Sequence

from torch import nn
from torch.utils.data import DataLoader

from datasets.data import MaskedImages
from datasets.lists import Item
from utils.common.device import loading_processes
from utils.common.signals import follow_parent
from utils.config import Config


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode, and back into its own at the end, also after an exception."""
    mode = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(mode)


def masked_loader(
    items: Sequence[Item], config: Config, rank: int = 0, world: int = 1
) -> DataLoader:
    """Load images one by one, as `MaskedImages` gives them, by the configuration's processes.

    Process `rank` of `world` gets its share. With `on_bad_image` "skip" an image that cannot be
    read comes as its error.
    """
    data = MaskedImages(items, rank, world, config.on_bad_image == "skip")
    workers = loading_processes(config.workers)
    return DataLoader(data, None, num_workers=workers, worker_init_fn=follow_parent)
