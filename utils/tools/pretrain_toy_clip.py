"""Train the toy CLIP that the embedded default uses, by image-text contrast on captioned toy
pictures (never on masks).

    python -m utils.tools.pretrain_toy_clip --out first.safetensors

Pictures are rendered with known contents, captioned with random wordings of what they show, and
laid out as mosaics: a canvas holds 1, 4 or 9 pictures, and the mean patch feature of each cell is
contrasted with the captions. Attention spans the canvas, so patches learn to describe their own
neighbourhood, which is what CAMs need. The value path of the last block is trained on the same
contrast, so that the gradient at its input points to local evidence.

Where it was stopped, the same command goes on from the last snapshot: FILE.training, which is gone
at the end.
"""

import argparse
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from clip.activation import METADATA
from clip.blocks import HEAD_WIDTH
from clip.loader import load_clip
from clip.model import CLIP, VisionTransformer
from clip.tokenizer import Tokenizer
from datasets.specs import VOC
from datasets.toy.captioned import (
    CANVAS,
    DRAWN,
    LINKS,
    NEVER,
    TEMPLATES,
    PictureBank,
    write_captions,
)
from datasets.toy.scene import random_classes, render
from datasets.transforms import IMAGENET_MEAN, IMAGENET_STD, normalise
from utils.common.device import choose_device, prepare_torch
from utils.common.entry import command
from utils.common.errors import UserError
from utils.common.files import require_place, sha256_of, write_whole
from utils.common.parser import Parser, refuse_idle
from utils.common.progress import progress
from utils.common.safe_tensors import load_plain
from utils.run_folder.checkpoint import save_checkpoint
from utils.training.average_precision import mean_average_precision
from utils.training.optim import set_rate

# flags that are whole numbers: default, least value, help
_NUMBERS = (
    ("steps", 4000, 1, "training steps"),
    ("batch", 48, 1, "canvases per step"),
    ("pictures", 9000, 3, "small pictures held at a time"),
    ("refresh", 4, 1, "how often the pictures are rendered anew"),
    ("snapshot", 500, 0, "steps between saves; 0 for none"),
    ("seed", 0, 0, "all randomness follows from it"),
    ("width", 192, HEAD_WIDTH, "channels of the image tower"),
    ("layers", 6, 1, "blocks of the image tower"),
    ("embed_dim", 128, 1, "channels of the joint space"),
    ("text_width", 128, HEAD_WIDTH, "channels of the text tower"),
    ("text_layers", 3, 1, "blocks of the text tower"),
)
_SIZES = ("width", "layers", "embed_dim", "text_width", "text_layers")


def contrast(
    images: Tensor, texts: Tensor, positive: Tensor, scale: Tensor, bias: Tensor
) -> Tensor:
    """Return multi-positive InfoNCE in both directions plus a quarter of the pairwise sigmoid loss.

    images (n, E) and texts (t, E) unnormalised, positive (n, t) 0/1: every picture that shows all a
    caption names.
    """
    logits = scale * F.normalize(images.float(), dim=1) @ F.normalize(texts.float(), dim=1).T
    nce = sum(
        -((logits.log_softmax(axis) * positive).sum(axis) / positive.sum(axis).clamp(min=1)).mean()
        / 2
        for axis in (0, 1)
    )
    return nce - F.logsigmoid((2 * positive - 1) * (logits + bias)).sum(1).mean() / 4


def image_features(
    visual: VisionTransformer, images: Tensor, side: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mean patch feature of each cell (B*side*side, E), the same of the last block's
    values, class feature (B, E).
    """
    x, (h, w) = visual.embed(images)
    for block in visual.blocks[:-1]:
        x = block(x)
    last = visual.blocks[-1]
    normed = last.ln_1(x)
    value_weight, value_bias = (
        p.chunk(3)[2] for p in (last.attn.in_proj_weight, last.attn.in_proj_bias)
    )
    values = last.attn.out_proj(F.linear(normed, value_weight, value_bias))
    out = visual.project(last.mix(x, last.attn(normed)))

    def pool(tokens: Tensor) -> Tensor:
        """Average the patches of each cell."""
        maps = tokens[:, 1:].transpose(1, 2).unflatten(2, (h, w))
        return F.adaptive_avg_pool2d(maps.float(), side).flatten(2).transpose(1, 2).flatten(0, 1)

    return pool(out), pool(visual.project(values)), out[:, 0]


@torch.no_grad()
def initialise(model: CLIP, bank: PictureBank) -> None:
    """Set weights that small ViTs start well from: whitened principal components as patch
    filters, sine-cosine positions.
    """
    visual = model.visual
    images = normalise(
        torch.from_numpy(bank.images[:400]).permute(0, 3, 1, 2), IMAGENET_MEAN, IMAGENET_STD
    )
    patches = (
        F.unfold(images, visual.patch_size, stride=visual.patch_size).transpose(1, 2).flatten(0, 1)
    )

    values, vectors = torch.linalg.eigh(torch.cov(patches.T))
    values = values.flip(0)[: visual.width]
    vectors = vectors.flip(1)[:, : visual.width]
    visual.conv1.weight.copy_(
        (vectors / (values + values[40]).sqrt()).T.view_as(visual.conv1.weight)
    )

    rates = 40.0 ** -torch.linspace(0, 1, visual.width // 4)
    y, x = torch.meshgrid(torch.arange(visual.grid), torch.arange(visual.grid), indexing="ij")
    waves = [
        wave(axis.flatten()[:, None] * rates) for axis in (y, x) for wave in (torch.sin, torch.cos)
    ]
    visual.positional_embedding[1:] = 0.5 * torch.cat(waves, 1)
    visual.positional_embedding[0] = 0


@torch.no_grad()
def zero_shot_map(model: CLIP, count: int = 400, size: int = 224, seed: int = 987654) -> float:
    """Measure the mean average precision of tags on unseen scenes of 1-3 objects: cosine of mean
    patch feature and class prompt.
    """
    prompts = [VOC.template.format(word) for word in VOC.prompts]
    device = model.text_projection.device
    text = F.normalize(model.encode_text(Tokenizer()(prompts).to(device)), dim=1)
    scores = []
    truth = torch.zeros(count, len(VOC.classes), dtype=torch.bool)

    for i in range(count):
        rng = np.random.default_rng((seed, i))
        scene = render(rng, size, size, random_classes(rng))
        truth[i, list(scene.classes)] = True
        image = normalise(
            torch.from_numpy(scene.image).permute(2, 0, 1)[None].to(device),
            IMAGENET_MEAN,
            IMAGENET_STD,
        )
        scores.append((F.normalize(model.visual(image)[:, 1:].mean(1), dim=1) @ text.T).cpu())

    by_class, _ = mean_average_precision(torch.cat(scores), truth)
    return by_class


def build(args: argparse.Namespace) -> CLIP:
    """Build a CLIP of toy size that holds token rows only for the words it will be trained on."""
    texts = [template.format(word) for template in TEMPLATES for word in (*DRAWN, *NEVER)]
    token_ids = Tokenizer()([*texts, "".join(LINKS)]).unique()
    visual = VisionTransformer(args.width, args.layers, args.embed_dim)
    return CLIP(visual, args.embed_dim, args.text_width, args.text_layers, token_ids=token_ids)


def optimiser_of(model: CLIP, bias: nn.Parameter, lr: float) -> torch.optim.AdamW:
    """Make AdamW; matrices are decayed, embeddings and vectors are not, scale and bias of the
    logits learn faster.
    """
    named = [(name, p) for name, p in model.named_parameters() if p is not model.logit_scale]
    decayed = [p for name, p in named if p.ndim > 1 and "embedding" not in name]
    others = [p for name, p in named if p.ndim <= 1 or "embedding" in name]
    groups = [
        {"params": decayed, "weight_decay": 0.1, "base_lr": lr},
        {"params": others, "weight_decay": 0.0, "base_lr": lr},
        {"params": [bias, model.logit_scale], "weight_decay": 0.0, "base_lr": 5 * lr},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98))


def rate(step: int, steps: int) -> float:
    """Return the learning rate's factor: warm-up over 150 steps, then half a cosine to almost 0."""
    return min(1.0, (step + 1) / 150) * (0.5 + 0.5 * math.cos(math.pi * step / steps)) + 1e-3


def batch_loss(
    model: CLIP,
    bias: Tensor,
    tokenizer: Tokenizer,
    canvas: Tensor,
    concepts: Tensor,
    side: int,
    rng: np.random.Generator,
) -> Tensor:
    """Contrast the cells of mosaics with captions: mean patch feature, value path, class token of
    whole pictures.
    """
    texts, needs = write_captions(rng, concepts)
    positive = (concepts @ needs.T >= needs.sum(1)).float().to(canvas.device)
    with torch.autocast(canvas.device.type, torch.bfloat16):
        mean, value, whole = image_features(
            model.visual, normalise(canvas, IMAGENET_MEAN, IMAGENET_STD), side
        )
        text = model.encode_text(tokenizer(texts).to(canvas.device))

    scale = model.logit_scale.exp().clamp(max=100)
    loss = contrast(mean, text, positive, scale, bias)
    loss = loss + 0.5 * contrast(value, text, positive, scale, bias)
    if side == 1:
        loss = loss + 0.3 * contrast(whole, text, positive, scale, bias)
    return loss


def train(args: argparse.Namespace) -> CLIP:
    """Do the whole pre-training, or what a stopped one left of it; the weights are a function of
    the arguments alone.
    """
    torch.manual_seed(args.seed)
    prepare_torch(0)
    device = choose_device(args.device)
    tokenizer = Tokenizer()
    if args.start:
        model = load_clip(args.start).requires_grad_(True).train()
    else:
        model = build(args)
    bias = nn.Parameter(torch.tensor(-6.0, device=device))
    optimiser = optimiser_of(model.to(device), bias, args.lr)
    parts = nn.ModuleDict({"clip": model, "bias": nn.ParameterList([bias])})
    first = resumed(args, parts, optimiser)
    steps = range(first, args.steps)
    bar = progress(steps, desc="toy CLIP", initial=first, total=args.steps)
    period = math.ceil(args.steps / args.refresh)

    for step in bar:
        if step in (first, step - step % period):
            drawn = step - step % period
            small = PictureBank(args.pictures, 112, 0.75, (args.seed, drawn))
            large = PictureBank(args.pictures // 3, CANVAS, 0.2, (args.seed, drawn))
        if step == 0 and not args.start:
            initialise(model, small)

        set_rate(optimiser, rate(step, args.steps))
        rng = np.random.default_rng((args.seed, step))
        # single pictures of single objects first
        shares = (0.4, 0.4, 0.2)
        if step < 0.35 * args.steps and not args.start:
            shares = (0.05, 0.35, 0.6)
        side = int(rng.choice((1, 2, 3), p=shares))
        bank = large if side == 1 else small
        canvas, concepts = bank.mosaic(rng, args.batch, side)

        loss = batch_loss(model, bias, tokenizer, canvas.to(device), concepts, side, rng)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()

        bar.set_postfix({"loss": f"{loss.item():.2f}", "side": side}, refresh=False)
        if args.snapshot and (step + 1) % args.snapshot == 0:
            save(model, args.out)
            state = {"step": step + 1, "parts": parts.state_dict()}
            state |= {"optimiser": optimiser.state_dict(), "of": made_from(args)}
            save_checkpoint(state, state_file(args.out))
            tqdm.write(f"step {step + 1}: zero-shot mAP {zero_shot_map(model, 200):.3f}")

    return model.cpu()


def state_file(out: str) -> Path:
    """Name the file beside the weights that holds all that going on needs."""
    return Path(f"{out}.training")


def made_from(args: argparse.Namespace) -> dict[str, Any]:
    """Return what the weights are a function of, as plain values."""
    others = ("out", "snapshot", "start", "device")
    values = {name: value for name, value in vars(args).items() if name not in others}
    start = sha256_of(args.start) if args.start else ""
    return {**values, "start": start, "device": choose_device(args.device).type}


def resumed(args: argparse.Namespace, parts: nn.Module, optimiser: torch.optim.Optimizer) -> int:
    """Load what a stopped training of these very arguments left, and say so; returns how many steps
    it had done, else 0.
    """
    file = state_file(args.out)
    if not file.is_file():
        return 0
    try:
        state = load_plain(file)
        same = state["of"] == made_from(args)
    except Exception:  # bytes of no checkpoint make the reader fail in any way
        same = False
    if not same:
        tqdm.write(f"{file} is of other settings, or damaged: begun anew")
        return 0

    parts.load_state_dict(state["parts"])
    optimiser.load_state_dict(state["optimiser"])
    tqdm.write(f"{file}: {state['step']} of {args.steps} steps are done already")
    return int(state["step"])


def save(model: CLIP, path: str) -> None:
    """Write half-precision safetensors with official names plus `token_ids`, whole or not at
    all.
    """
    content = {}
    for name, tensor in model.state_dict().items():
        kept = torch.half if tensor.is_floating_point() else torch.int32
        content[name] = tensor.to(kept).contiguous()
    write_whole(path, safetensors.torch.save(content, {METADATA: model.activation}))


def main() -> None:
    """Read the command line and do what it asks."""
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--out",
        required=True,
        metavar="FILE",
        help="file to write, in place of one that is there; clip/toy_clip.safetensors is the toy "
        "CLIP that every toy configuration reads",
    )
    parser.add_argument(
        "--start",
        default="",
        metavar="FILE",
        help="go on from these weights with a new schedule (default: from nothing)",
    )
    parser.add_argument("--lr", type=float, default=1e-3, help="default: %(default)s")
    parser.add_argument("--device", default="auto", help="default: %(default)s")
    for name, default, _, text in _NUMBERS:
        parser.add_argument(
            f"--{name}",
            type=int,
            metavar="N",
            help=f"{text} (default: {default})",
        )

    args = parser.parse_args()
    if args.start:
        idle = "is of a new CLIP, and --start brings its own; leave one of them out"
        refuse_idle(vars(args), _SIZES, idle)
    for name, default, least, _ in _NUMBERS:
        number = getattr(args, name)
        if number is None:
            number = default
            setattr(args, name, default)
        if number < least:
            raise UserError(f"--{name} {number} must be at least {least}")
        if least == HEAD_WIDTH and number % HEAD_WIDTH:
            raise UserError(f"--{name} {number} is no multiple of {HEAD_WIDTH}; use e.g. {default}")
    require_place(args.out, "--out")

    start = time.time()
    try:
        save(train(args), args.out)
    except KeyboardInterrupt:
        if not state_file(args.out).is_file():
            raise
        raise KeyboardInterrupt("the same command goes on from the last snapshot") from None
    state_file(args.out).unlink(missing_ok=True)
    print(
        f"{args.out}: zero-shot tag mAP on 400 unseen scenes "
        f"{zero_shot_map(load_clip(args.out)):.3f}"
    )
    print(f"{args.steps} steps in {(time.time() - start) / 60:.1f} min")


if __name__ == "__main__":
    command(main)()
