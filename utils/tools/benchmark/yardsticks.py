"""Two works that tell how fast a machine is, so that figures carry over to others."""

import torch
import torch.nn.functional as F
from torch import nn

from utils.tools.benchmark.timing import Timing, measure


def yardsticks(device: torch.device, repeats: int, half: bool) -> dict[str, Timing]:
    """Measure seconds of "vit" and "nbr" (module docstring), and if `half` of "vit" in bf16, which
    takes minutes where a processor only emulates it.
    """
    layer = nn.TransformerEncoderLayer(
        768, 12, 3072, dropout=0, activation="gelu", batch_first=True, norm_first=True
    )
    encoder = nn.TransformerEncoder(layer, 12, enable_nested_tensor=False).to(device).eval()
    tokens = torch.randn(4, 401, 768, device=device)

    weights = torch.rand(1, 48, 320, 320, device=device)
    start = torch.rand(3, 1, 320, 320, device=device)
    pick = torch.eye(9, device=device)[[0, 1, 2, 3, 5, 6, 7, 8]].view(8, 1, 3, 3)

    def neighbours() -> None:
        """Sum weighted neighbours at six dilations, twenty times."""
        maps = start
        for _ in range(20):
            sides = [
                F.conv2d(F.pad(maps, [d] * 4, mode="replicate"), pick, dilation=d)
                for d in (1, 2, 4, 8, 12, 24)
            ]
            maps = (torch.cat(sides, 1) * weights).sum(1, keepdim=True) / 48

    def encoder_in_half() -> None:
        """Run the encoder in bfloat16."""
        with torch.autocast(device.type, torch.bfloat16):
            encoder(tokens)

    with torch.no_grad():
        works = {"vit": lambda: encoder(tokens), "nbr": neighbours}
        if half:
            works["vit bf16"] = encoder_in_half
        return dict(zip(works, measure(list(works.values()), repeats, device)))
