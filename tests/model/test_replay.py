"""When functions are recorded and replayed; what graphs give is tested on a GPU (tests/gpu)."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from clip.model import ImageFeatures
from model import replay
from model.replay import RECORDED_AT, Replay

RESULT = ImageFeatures([torch.ones(1, 5, 2), torch.zeros(1, 5, 2)], [torch.ones(1, 5, 5)], (2, 2))


def on_gpu(side: int) -> Tensor:
    """Something that passes for images of that size on a GPU."""
    facts = {"shape": (1, 3, side, side), "dtype": torch.float32, "device": torch.device("cuda")}
    return cast(Tensor, SimpleNamespace(**facts, copy_=lambda images: None))


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Have functions recorded without a GPU; the sizes of what was recorded."""
    sizes: list[Any] = []

    def record(self: Replay, function: Any, images: Tensor, half: bool) -> tuple[Any, Any, Any]:
        sizes.append(images.shape[-1])
        return SimpleNamespace(replay=lambda: None), images, RESULT

    monkeypatch.setattr(Replay, "_recorded", record)
    return sizes


def run(again: Replay, images: Tensor, name: str = "network") -> str:
    """Run a network and tell where its result is from."""
    with torch.no_grad():
        result = again(name, lambda images: None, images)
    return "replayed" if result else "computed"


def test_a_size_that_returns_is_recorded_once(recorded: list[Any]) -> None:
    again = Replay()
    found = [run(again, on_gpu(64)) for _ in range(RECORDED_AT + 1)]
    assert found == ["computed"] * (RECORDED_AT - 1) + ["replayed"] * 2
    assert run(again, on_gpu(48)) == run(again, on_gpu(64), "other network") == "computed"
    assert recorded == [64]


def test_no_more_than_so_many_are_kept(
    recorded: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "MOST", 1)
    again = Replay()
    found = {side: [run(again, on_gpu(side)) for _ in range(RECORDED_AT)] for side in (64, 48)}
    assert found[64][-1] == "replayed"
    assert found[48][-1] == "computed"


def test_what_cannot_be_recorded_is_computed_with_one_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*given: Any) -> None:
        raise RuntimeError("not within a capture")

    monkeypatch.setattr(Replay, "_recorded", refuse)
    again = Replay()
    with pytest.warns(UserWarning, match="network runs without a CUDA graph: not within") as told:
        found = [run(again, on_gpu(64)) for _ in range(RECORDED_AT + 2)]
    assert set(found) == {"computed"}
    assert len(told) == 1


def test_nothing_is_recorded_on_a_cpu_or_with_gradients(recorded: list[Any]) -> None:
    again = Replay()
    for _ in range(RECORDED_AT + 1):
        assert run(again, torch.zeros(1, 3, 8, 8)) == "computed"
        assert again("network", lambda images: "computed", on_gpu(8)) == "computed"
    assert not recorded


def test_a_replayed_result_is_a_copy(recorded: list[Any]) -> None:
    again = Replay()
    with torch.no_grad():
        for _ in range(RECORDED_AT):
            result = again("network", lambda images: RESULT, on_gpu(64))
    assert result is not RESULT
    assert result.grid == RESULT.grid
    for ours, theirs in zip(result.tokens + result.attention, RESULT.tokens + RESULT.attention):
        assert torch.equal(ours, theirs)
        assert ours.data_ptr() != theirs.data_ptr()
