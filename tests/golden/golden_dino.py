"""Parity of DINOv2, with and without registers."""

import golden_weights
import torch
from golden_family import normalised
from golden_file import GoldenFile, close
from torch import Tensor

from model.dino import DinoViT, load_dino


def dino(golden: GoldenFile, kind: str) -> DinoViT:
    """The file's DINOv2 of this kind; its weights are drawn under their official names."""
    sizes = golden.config[kind]
    dim, patch = sizes["embed_dim"], sizes["patch"]
    shapes = {"cls_token": (1, 1, dim), "pos_embed": (1, sizes["grid"] ** 2 + 1, dim)}
    if sizes["registers"]:
        shapes["register_tokens"] = (1, sizes["registers"], dim)
    shapes |= {"mask_token": (1, dim), "patch_embed.proj.weight": (dim, 3, patch, patch)}
    shapes |= {"patch_embed.proj.bias": (dim,), "norm.weight": (dim,), "norm.bias": (dim,)}
    hidden = int(dim * sizes["mlp_ratio"])
    layers = {"attn.qkv": (3 * dim, dim), "attn.proj": (dim, dim)}
    layers |= {"mlp.fc1": (hidden, dim), "mlp.fc2": (dim, hidden)}
    for number in range(sizes["depth"]):
        block = f"blocks.{number}"
        for layer, shape in layers.items():
            shapes |= {f"{block}.{layer}.weight": shape, f"{block}.{layer}.bias": shape[:1]}
        for norm in ("norm1", "norm2"):
            shapes |= {f"{block}.{norm}.weight": (dim,), f"{block}.{norm}.bias": (dim,)}
        shapes |= {f"{block}.ls1.gamma": (dim,), f"{block}.ls2.gamma": (dim,)}

    state = golden_weights.fill(shapes, golden.config["seed"])
    assert golden_weights.digest(state) == golden.config["sha256"][kind]
    return load_dino(state, heads=sizes["heads"])


def check_dino(golden: GoldenFile) -> None:
    """Position tables, tokens, and queries, keys and values of the last block."""
    for kind in ("plain", "reg"):
        model = dino(golden, kind)
        assert model.blocks[0].attn.heads == golden.config[kind]["heads"]
        for variant in ("a", "b", "native"):
            if f"{kind}_{variant}_pos" not in golden:
                continue
            images = normalised(golden[f"{variant}_image_u8"])
            out = model(images)
            close(model.position(*out.grid)[0], golden[f"{kind}_{variant}_pos"])
            close(out.patches, golden[f"{kind}_{variant}_patchtokens"])
            close(out.tokens[:, 0], golden[f"{kind}_{variant}_clstoken"])
            if model.registers:
                registers = out.tokens[:, 1 : 1 + model.registers]
                close(registers, golden[f"{kind}_{variant}_regtokens"])
            if f"{kind}_{variant}_q" in golden:
                for part, found in zip("qkv", last_qkv(model, images)):
                    close(found, golden[f"{kind}_{variant}_{part}"])
        if kind == "plain":
            close(model.norm(golden["norm_in"]), golden["norm_out"])


def last_qkv(model: DinoViT, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values (B, heads, T, D/heads) of the last block."""
    stream, _ = model.embed(images)
    *before, last = model.blocks
    for block in before:
        stream, _ = block(stream)
    packed = last.attn.qkv(last.norm1(stream)).unflatten(2, (3, last.attn.heads, -1))
    return tuple(torch.unbind(packed.permute(2, 0, 3, 1, 4)))
