"""What runs of earlier versions call by another name. The only place that knows of old names.

To rename a setting or a part of the model, rename it in the code and add a line here; runs,
checkpoints and YAML files of before then load. A setting that is new says on its field, by
`before`, what runs had until then.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

RENAMED_SETTINGS: dict[str, str] = {}  # old name -> today's
RENAMED_TENSORS: dict[str, str] = {}  # old beginning of a name, such as "wide." -> today's


def current_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings of any version under today's names; unknown ones stay."""
    return {RENAMED_SETTINGS.get(name, name): value for name, value in values.items()}


def current_tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a model's tensors of any version under today's names; unknown ones stay."""
    return {_current_tensor(name): tensor for name, tensor in state.items()}


def _current_tensor(name: str) -> str:
    for old, new in RENAMED_TENSORS.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name
