"""What is trained from nothing: the decoder and the wide-view head."""

from dataclasses import dataclass

from utils.common.errors import UserError
from utils.common.options import Role, Settings, option

DECODER_HEADS = 8  # attention heads of the decoder's transformer blocks (WeCLIP)


@dataclass(frozen=True)
class HeadSettings(Settings):
    """Sizes of what is trained from nothing."""

    decoder_width: int = option(
        256,
        "method",
        "channels of the fused features and the decoder",
        Role.METHOD,
        low=1,
        high=2**16,
    )
    decoder_layers: int = option(
        3, "method", "transformer layers of the decoder", Role.METHOD, low=0, high=100
    )
    clip_layers: str = option(
        "inner",
        "method",
        "CLIP blocks whose tokens are fused for the decoder: all but the last, all (ExCEL), or the "
        "last of the inner ones alone (WeCLIP+)",
        Role.METHOD,
        choices=("inner", "all", "last"),
    )
    text_match: bool = option(
        False,
        "method",
        "the decoder is told how CLIP's last block matches patches with the texts of the classes",
        Role.METHOD,
    )
    wide_width: int = option(
        512,
        "method",
        "channels of the wide-view head on the ViT (LargeFOV)",
        Role.METHOD,
        low=1,
        high=2**16,
    )
    wide_dilation: int = option(
        5,
        "method",
        "steps between what its 3 x 3 convolutions see, in patches; published: 5",
        Role.METHOD,
        low=1,
        high=2**10,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.decoder_width % DECODER_HEADS:
            raise UserError(
                f"--decoder_width {self.decoder_width} is not a multiple of the decoder's "
                f"{DECODER_HEADS} heads; use 256"
            )
