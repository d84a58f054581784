"""Maps of few pixels, resized by products of matrices."""

import pytest
import torch

from clip.resize import by_products, resize


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(32, 17), (3, 6), (1, 1)])
def test_products_resize_with_the_same_gradient(mode: str, size: tuple[int, int]) -> None:
    maps = torch.randn(2, 4, 5, 3).transpose(1, 3).requires_grad_()  # laid out as logits are
    wanted = torch.randn(2, 3, *size)
    found = by_products(maps, size, mode)
    expected = resize(maps, size, mode)
    torch.testing.assert_close(found, expected)
    for one, other in zip(*(torch.autograd.grad(y, maps, wanted) for y in (found, expected))):
        torch.testing.assert_close(one, other)


def test_autocast_leaves_it_exact_and_in_one_piece() -> None:
    maps = torch.randn(2, 4, 5, 3).transpose(1, 3)
    with torch.autocast("cpu", torch.bfloat16):
        enlarged = by_products(maps.bfloat16(), (30, 20))
    torch.testing.assert_close(enlarged, resize(maps.bfloat16().float(), (30, 20)))
    assert enlarged.dtype == torch.float32 and enlarged.is_contiguous()
