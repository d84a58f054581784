"""What is the same for the same weights in any file."""

import hashlib
from collections.abc import Mapping

from torch import Tensor


def identity_of(tensors: Mapping[str, Tensor], words: str = "") -> str:
    """Compute the SHA-256, hexadecimal, of `words` and of the names, shapes and bytes of tensors.

    The tensors are canonical: float32, under this project's names, whatever file they come from.
    """
    digest = hashlib.sha256(words.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\n{name} {tuple(tensor.shape)}\n".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().reshape(-1).numpy().data.cast("B")
