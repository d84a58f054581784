"""A training step must not make the CPU wait for a GPU: nothing of it asks for a tensor's
values.
"""

import inspect
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from datasets.transforms import normalise
from model import boxes
from model.criterion import criterion
from model.method import Phase
from utils.tools.benchmark.counts import asks_for_values

# `torch.tensor(values, device=...)`, whose copy to a GPU waits for all that it is doing
LITERALS = torch.ops.aten.lift_fresh
# of what is on the CPU
ALLOWED = {
    ("class_rows.py", "from_tags"),
    ("class_rows.py", "copies"),
    ("par.py", "_closeness"),
}


class NoWaits(TorchDispatchMode):
    """Notes each operation that would wait for a GPU, but those of ALLOWED; also a boolean index,
    whose size it has.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: tuple[type, ...],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func.overloadpacket == LITERALS or asks_for_values(func, args):
            frames = {(Path(frame.filename).name, frame.function) for frame in inspect.stack(0)}
            if not frames & ALLOWED:
                self.found.append(
                    f"{func} in {[name for name in frames if name[0] in ('cvf.py', 'cam.py')]}"
                )
        return func(*args, **(kwargs or {}))


def test_the_forward_and_backward_of_a_step_ask_for_no_value(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(boxes, "boxes_by_spreading", boxes.boxes_by_products)  # as on a GPU
    model, (images, tags) = tiny.cvf(self_train="scores"), tiny.batch()
    valid = torch.ones(3, 64, 48, dtype=torch.bool)
    with NoWaits() as mode:
        for begun in (False, True):
            phase = Phase(after_switch=begun, self_training=begun)
            out = model(normalise(images), tags, phase, valid)
            sum(criterion(out, tags, method=model.method, phase=phase).values()).backward()
    assert not mode.found


def test_a_boolean_index_an_item_and_a_literal_are_noted() -> None:
    values = torch.rand(4)
    with NoWaits() as mode:
        values[values > 0.5]
        values.sum().item()
        torch.tensor([1.0, 2.0])
    assert len(mode.found) == 3
