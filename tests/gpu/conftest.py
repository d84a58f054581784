"""The device of these tests: each runs on a GPU where there is one, and on the CPU, which shows
that the test itself works.
"""

import pytest
import torch
from helpers import GPU, device_named


@pytest.fixture(params=["cpu", GPU])
def device(request: pytest.FixtureRequest) -> torch.device:
    """The CPU, then the first GPU; skipped where there is none."""
    return device_named(request.param)
