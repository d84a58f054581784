"""Compare the kernels of the dense CRF with operations of PyTorch, without a GPU: run by
`utils/test_sums.py` in a process where Triton interprets all its kernels.
"""

import torch

import utils.inference.simplices_kernel as simplices_kernel
import utils.inference.sums_kernel as kernel
from utils.inference import crf, lattice, simplices, sums
from utils.settings.running import CRFSettings


def compare_sums(labels: int) -> None:
    """Compare each of the three names on random rows."""
    table = torch.randn(40, labels)

    counts = torch.tensor([1, 3, 64, 1, 700, 59])  # cuts fall on and between starts
    starts = (counts.cumsum(0) - counts).int()
    rows = torch.randint(0, 40, (int(counts.sum()),), dtype=torch.int32)
    bags = (rows, torch.rand(len(rows)), starts)
    torch.testing.assert_close(kernel.Bags(*bags).sums(table), sums.Bags(*bags).sums(table))

    corners = torch.randint(0, 40, (70, 9), dtype=torch.int32)
    given = (table, corners, torch.rand(70, 9))
    torch.testing.assert_close(kernel.weighted_rows(*given), sums.weighted_rows(*given))

    log_probs = torch.randn(70, labels)
    expected = torch.empty(70, labels)
    found = torch.empty(70, labels)
    sums.update(*given, log_probs, expected, 0.0)
    limit = expected.amax(0).median().item()
    alive = sums.update(*given, log_probs, expected, limit)
    assert labels == 1 or len(alive.unique()) == 2
    assert torch.equal(kernel.update(*given, log_probs, found, limit).bool(), alive)
    torch.testing.assert_close(found, expected)


def compare_simplices(features: torch.Tensor, kind: torch.dtype) -> None:
    """Compare each of the names that the lattice is made by: they must agree to the bit."""
    scales = lattice._scales(len(features), features.device)
    steps, order, shares = simplices.simplices(features, scales)
    found = simplices_kernel.simplices(features, scales)
    for ours, expected in zip(found, (steps, order.int(), shares)):
        assert torch.equal(ours, expected)

    strides = [50**i for i in range(len(features))]
    lowest = [-9 for _ in strides]
    numbers = torch.tensor([[*strides, -sum(strides)], [*lowest, 0]], dtype=kind)
    codes = simplices.codes(steps, order, numbers)
    assert torch.equal(simplices_kernel.codes(*found[:2], numbers), codes)

    vertices = codes.unique()
    near, weights = simplices.neighbours(vertices, numbers[0])
    ours = simplices_kernel.neighbours(vertices, numbers[0])
    assert torch.equal(ours[0], near) and torch.equal(ours[1], weights)


def compare_crf() -> None:
    """Compare a whole CRF, in which a label leaves between the rounds."""
    image = torch.randint(0, 256, (3, 5, 3), dtype=torch.uint8)
    scores = torch.randn(4, 3, 5)
    scores[1] -= 4
    given = (image, scores.softmax(0), CRFSettings(crf_iterations=3), 0.05)
    expected = crf.dense_crf(*given)
    assert expected[1].max() == 0 and expected[0].min() > 0

    crf.sums_on = lattice.sums_on = lambda device: kernel
    lattice.simplices_on = lambda device: simplices_kernel
    crf._spatial.cache_clear()
    torch.testing.assert_close(crf.dense_crf(*given), expected)


if __name__ == "__main__":
    torch.manual_seed(0)
    for labels in (1, 16, 37):
        compare_sums(labels)
    for d in (2, 5):
        compare_simplices(4 * torch.randn(d, 70), torch.int32)
        compare_simplices(torch.randint(-30, 30, (d, 70)) / 4, torch.int64)  # full of ties
        compare_simplices(torch.zeros(d, 3), torch.int32)
    compare_crf()
