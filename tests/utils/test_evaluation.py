"""What all evaluations share."""

import pytest
import tiny

from model.cvf import CVF
from utils.inference.evaluation import evaluating


def fail_within(model: CVF) -> None:
    with evaluating(model):
        assert not any(part.training for part in model.modules())
        raise KeyboardInterrupt


@pytest.mark.parametrize("mode", [True, False])
def test_a_model_gets_its_mode_back_even_after_a_fault(mode: bool) -> None:
    model = tiny.cvf().train(mode)
    with pytest.raises(KeyboardInterrupt):
        fail_within(model)
    assert model.training == model.decoder.training == mode and not model.clip.training
