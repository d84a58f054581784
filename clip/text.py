"""Text features of a list of prompts, cached by prompts and weights."""

import hashlib
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from clip.model import CLIP
from clip.tokenizer import Tokenizer
from utils.common.errors import UserError
from utils.common.files import written_whole


@torch.no_grad()
def text_features(model: CLIP, prompts: list[str], cache: Path | None = None) -> Tensor:
    """Return unit-length features (len(prompts), E) on the CPU, float32.

    With `cache` (a folder), they are kept in a file named by the digest of the CLIP and the
    prompts, and read from it next time. Raises UserError where the CLIP has another vocabulary than
    OpenAI's, or naming a prompt that is too long or, for a reduced vocabulary, has a word it never
    saw.
    """
    said = "\n".join([model.identity, *prompts])
    key = hashlib.sha256(said.encode()).hexdigest()[:16]
    file = None
    if cache is not None and model.identity:
        file = cache / f"text_features_{key}.safetensors"
    if file is not None and file.is_file():
        try:
            return load_file(file)["features"]
        except (SafetensorError, KeyError):
            file.unlink(missing_ok=True)  # a half-written cache is made anew

    features = F.normalize(_encode(model, prompts), dim=1).float().cpu()
    if file is not None:
        with written_whole(file, own=True) as stream:
            stream.write(save({"features": features.contiguous()}))

    return features


def _encode(model: CLIP, prompts: list[str]) -> Tensor:
    device = model.text_projection.device
    tokenizer = Tokenizer()
    rows = len(model.token_embedding.weight)
    if model.token_ids is None and rows != len(tokenizer.ids):
        raise UserError(
            f"the CLIP of --clip_path knows {rows} tokens, but prompts are read by OpenAI's "
            f"vocabulary of {len(tokenizer.ids)}, so that its texts would mean nothing; give a "
            "CLIP that was trained with that one"
        )

    try:
        return model.encode_text(tokenizer(prompts).to(device))
    except ValueError:
        pass

    for prompt in prompts:  # once more, one by one, to name the prompt
        try:
            model.encode_text(tokenizer([prompt]).to(device))
        except ValueError as error:
            raise UserError(
                f"the prompt {prompt!r} cannot be used: {error}; reword it or use full CLIP weights"
            ) from None

    raise AssertionError("a batch of prompts failed though each one alone did not")
