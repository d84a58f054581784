"""What a training step of full size asks of a GPU, counted without one: the memory of its tensors
at their peak, the kernels it launches, and how often the host waits for the device.

The step runs on the CPU with real values, cut as for a GPU. What a CPU does in another way all the
same is attention in bf16: it keeps the weights that a GPU's fused kernel makes again. What a GPU's
allocator and libraries hold beside the tensors comes on top.
"""

import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from utils.tools.benchmark.networks import Step, classifier_step, segmenter_step, tag_counts
from utils.tools.benchmark.rows import Row, Setting

aten = torch.ops.aten
# operations that need a value, which the host waits for
WAITS = {
    aten._local_scalar_dense,
    aten.nonzero,
    aten.equal,
    aten.is_nonzero,
    aten.masked_select,
    aten._unique2,
}
INDEXING = {aten.index, aten.index_put, aten.index_put_}
_WITHOUT_KERNEL = {
    aten._local_scalar_dense,
    aten._unsafe_view,
    aten._reshape_alias,
    aten.detach,
    aten.empty,
    aten.empty_like,
    aten.empty_strided,
    aten.new_empty,
    aten.new_empty_strided,
    aten.lift_fresh,
}


def asks_for_values(operation: OpOverload, arguments: tuple[Any, ...]) -> bool:
    """Tell whether values decide the size of an operation's result, or are its result."""
    packet = operation.overloadpacket
    indices = arguments[1] if packet in INDEXING else ()
    masks = any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices)
    return packet in WAITS or masks


class AsOnGpu(TorchFunctionMode):
    """Within, every tensor says that it is on a GPU, so that the work is cut as for one."""

    def __torch_function__(
        self, function: Any, _: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function == torch.Tensor.is_cuda.__get__:  # type: ignore[attr-defined]
            return True
        return function(*args, **(kwargs or {}))


@dataclass
class Counts:
    """Of a number of operations: launches of kernels, waits of the host, and bytes of all tensors
    that are there, now and at their peak.
    """

    launches: int = 0
    waits: int = 0
    live: int = 0
    peak: int = 0
    per_operation: dict[str, int] = field(default_factory=dict)


class Ledger(TorchDispatchMode):
    """Counts what is done within, as if the given tensors, and all that is made from them, were on
    a GPU and everything else in the host's memory.
    """

    def __init__(self, on_device: Iterable[Tensor]) -> None:
        super().__init__()
        self.counts = Counts()
        self._held: set[int] = set()
        self._on_device: set[int] = set()
        for tensor in on_device:
            self._on_device.add(self._hold(tensor))

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: tuple[type, ...],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        given = _tensors((args, kwargs))
        on_device = any(id(tensor.untyped_storage()) in self._on_device for tensor in given)
        self.counts.waits += on_device and asks_for_values(func, args)
        result = func(*args, **(kwargs or {}))

        if on_device and not func.is_view and func.overloadpacket not in _WITHOUT_KERNEL:
            self.counts.launches += 1
            name = str(func.overloadpacket)
            self.counts.per_operation[name] = self.counts.per_operation.get(name, 0) + 1

        for tensor in _tensors(result):
            number = self._hold(tensor)
            if on_device:
                self._on_device.add(number)
        return result

    def _hold(self, tensor: Tensor) -> int:
        """Count the memory of a tensor until it is gone; return what identifies that memory."""
        storage = tensor.untyped_storage()
        number = id(storage)
        if number not in self._held:
            self._held.add(number)
            size = storage.nbytes()
            self.counts.live += size
            self.counts.peak = max(self.counts.peak, self.counts.live)
            weakref.finalize(storage, self._release, number, size)
        return number

    def _release(self, number: int, size: int) -> None:
        self._held.discard(number)
        self._on_device.discard(number)
        self.counts.live -= size


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def counted(step: Step) -> Counts:
    """Count one training step; another comes before it, so that the optimiser has its moments."""
    step()
    stage = step.stage
    stage.optimiser.zero_grad(set_to_none=True)
    moments = _tensors([list(state.values()) for state in stage.optimiser.state.values()])
    pictures = [step.batch["image"], step.batch["valid"]]
    tensors = [*stage.module.parameters(), *stage.module.buffers(), *moments, *pictures]

    def losses(*arguments: Any) -> dict[str, Tensor]:
        """Compute the losses of the stage as if on a GPU."""
        with AsOnGpu():
            return stage.losses(*arguments)

    with Ledger(tensors) as ledger:
        replace(step, stage=replace(stage, losses=losses))()
    return ledger.counts


def measure_counts(settings: list[Setting]) -> Iterator[Row]:
    """Count a training step of each stage, with the parts trained that the configuration trains."""
    for setting in settings:
        config = setting.config
        if config.branches != "clip" and not config.mct_path:
            about = f"batch {config.mct_batch_size}, crop {config.mct_crop_size}"
            yield _row("stage 1 step", setting, classifier_step(setting), about)

        step = segmenter_step(setting)
        tags = sum(tag_counts(config, config.batch_size)) / config.batch_size
        about = f"batch {config.batch_size}, crop {config.crop_size}, {tags:.1f} tags per image"
        yield _row("training step", setting, step, about)


def _row(part: str, setting: Setting, step: Step, about: str) -> Row:
    found = counted(step)
    note = (
        f"computed as for a GPU: {found.peak / 1e9:.2f} GB of tensors at most, "
        f"{found.launches:,} launches, waits of the host: {found.waits}; {about}"
    )
    return Row(part, setting.name, None, note, found.peak)
