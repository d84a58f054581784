"""Maps of few pixels, enlarged by products of matrices."""

import torch

from model.resize import enlarge, resize


def test_enlarging_is_resizing_with_the_same_gradient() -> None:
    maps = torch.randn(2, 4, 5, 3).transpose(1, 3).requires_grad_()  # laid out as logits are
    wanted = torch.randn(2, 3, 32, 17)
    enlarged = enlarge(maps, (32, 17))
    resized = resize(maps, (32, 17))
    torch.testing.assert_close(enlarged, resized)
    for one, other in zip(*(torch.autograd.grad(y, maps, wanted) for y in (enlarged, resized))):
        torch.testing.assert_close(one, other)


def test_autocast_leaves_it_exact_and_in_one_piece() -> None:
    maps = torch.randn(2, 4, 5, 3).transpose(1, 3)
    with torch.autocast("cpu", torch.bfloat16):
        enlarged = enlarge(maps.bfloat16(), (30, 20))
    torch.testing.assert_close(enlarged, resize(maps.bfloat16().float(), (30, 20)))
    assert enlarged.dtype == torch.float32 and enlarged.is_contiguous()
