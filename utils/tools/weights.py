"""What a weights file is, and what it can be used for here: `python -m utils.tools.weights FILE`.

FILE is a file, a model's folder, or the name of a model in the Hub's download cache. Each use is
tried with the code that training uses, so that what is said here holds there.
"""

from collections.abc import Callable

from torch import nn

from clip.activation import known_activation
from clip.loader import TOY_CLIP, load_clip
from model.class_token_vit import ClassTokenViT
from model.dino import dino_identity, load_dino
from model.vit_loading import deit_identity, from_deit, load_mct
from utils.common.entry import command
from utils.common.errors import UserError
from utils.common.files import sha256_of
from utils.common.parser import Parser
from utils.common.safe_tensors import TensorFile, open_tensors
from utils.common.weights import find_weights, known_by
from utils.run_folder.checkpoint import load_checkpoint

LABEL_WIDTH = 13
Rows = list[tuple[str, str]]


def describe(given: str, activation: str = "auto") -> list[str]:
    """Say in a few lines what a weights file is. UserError where it cannot be read at all."""
    path = TOY_CLIP
    if given != "toy":
        path = find_weights(given, "weights file")
    file = open_tensors(path, "weights file")

    digest = sha256_of(path)
    known = "of no file known here"
    if public := known_by(digest):
        known = f"that of {public.name}"
    kinds = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in file.stored.values()})

    rows = [
        ("form", f"{file.container}, {len(file)} tensors of {', '.join(kinds)}"),
        ("size", f"{path.stat().st_size / 1e6:.1f} MB"),
        ("SHA-256", f"{digest}, {known}"),
    ]
    rows += _use(file, digest, activation)
    return [str(path), *(f"  {name:{LABEL_WIDTH}}{text}" for name, text in rows)]


def _use(file: TensorFile, digest: str, activation: str) -> Rows:
    """Find the flag that takes the file, and what it gives; for none, why each does not."""
    uses: dict[str, Callable[[], Rows]] = {
        "--clip_path": lambda: _clip(file, digest, activation),
        "--deit_path": lambda: _deit(file),
        "--mct_path": lambda: _mct(file),
        "--dino_path": lambda: _dino(file),
        "--model_path": lambda: _trained(file),
    }

    reasons = []
    for flag, use in uses.items():
        try:
            return [*use(), ("used as", flag)]
        except UserError as error:
            reasons.append((flag, f"no: {error}"))

    return [("used as", "nothing here"), *reasons]


def _clip(file: TensorFile, digest: str, activation: str) -> Rows:
    model = load_clip(file.path, activation)
    known = known_activation(file, digest)
    visual = model.visual
    text = model.transformer.resblocks
    side = visual.grid * visual.patch_size
    source = "--clip_activation"
    if known:
        source = known.source

    return [
        ("model", f"CLIP ViT, patches of {visual.patch_size} px, images of {side} px"),
        ("images", f"{len(visual.blocks)} blocks of {visual.width} channels"),
        ("texts", f"{len(text)} blocks of {model.text_projection.shape[0]} channels"),
        ("activation", f"{model.activation}, by {source}"),
        ("parameters", f"{_parameters(model):,}"),
        ("identity", f"{model.identity} (the same in every form)"),
    ]


def _deit(file: TensorFile) -> Rows:
    vit = from_deit(dict(file), num_classes=1, source="the file")
    return [
        ("model", f"ViT with one class token, {_sizes(vit)}"),
        ("parameters", f"{sum(tensor.numel() for tensor in file.values()):,}"),
        ("identity", f"{deit_identity(dict(file))} (the same in every form)"),
    ]


def _mct(file: TensorFile) -> Rows:
    vit = load_mct(dict(file), source="the file")
    limit = ""
    if vit.version == "v1":
        limit = ", whose attention gives seeds (stage 2 refuses it)"
    streams = f"{vit.streams} streams"
    if vit.streams == 1:
        streams = "one stream"
    return [
        ("model", f"class-token ViT of {vit.num_classes} classes, {_sizes(vit)}, {streams}"),
        ("version", f"{vit.version}{limit}"),
        ("parameters", f"{_parameters(vit):,}"),
    ]


def _dino(file: TensorFile) -> Rows:
    dino = load_dino(dict(file), source="the file")
    sizes = f"{len(dino.blocks)} blocks of {dino.width} channels"
    if dino.registers:
        sizes += f", {dino.registers} registers"
    return [
        ("model", f"DINOv2 ViT, patches of {dino.patch} px, {sizes}"),
        ("parameters", f"{_parameters(dino):,}"),
        ("identity", f"{dino_identity(dino)} (the same in every form)"),
    ]


def _trained(file: TensorFile) -> Rows:
    checkpoint = load_checkpoint(file.path, "the file")
    config = checkpoint["config"]
    classes = len(checkpoint["classes"])
    return [
        ("model", f"CVF trained on {config['dataset']}, {classes} classes + background"),
        ("trained", f"{checkpoint['step']} of {config['max_iters']} iterations"),
        ("needs", f"the CLIP that it was trained with, {config['clip_path']}"),
    ]


def _sizes(vit: ClassTokenViT) -> str:
    return f"{len(vit.blocks)} blocks of {vit.cls_token.shape[-1]} channels"


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def main() -> None:
    """Read the command line and do what it asks."""
    parser = Parser(description=__doc__)
    parser.add_argument("weights", metavar="FILE", nargs="+", help="file, folder or model's name")
    parser.add_argument(
        "--clip_activation",
        default="auto",
        choices=("auto", "quick_gelu", "gelu"),
        help="of a CLIP that does not tell it (default: %(default)s)",
    )
    args = parser.parse_args()
    for given in args.weights:
        print("\n".join(describe(given, args.clip_activation)))


if __name__ == "__main__":
    command(main)()
