"""Recipes: constants, rates, decay and weights are those of their authors' code."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import vit_files
import yaml
from golden_weights import published_name
from helpers import tiny_clip
from torch import Tensor

from datasets.specs import COCO, VOC
from model.cvf import CVF
from model.dino import load_dino
from model.par import DILATIONS
from utils.build import build_cvf
from utils.config import CONFIGS, RECIPES, Config, load_config
from utils.training import stages
from utils.training.optim import set_rate
from utils.training.run import Stage

CONSTANTS = Path(__file__).with_name("published_constants.yaml")
TABLES: dict[str, Any] = yaml.safe_load(CONSTANTS.read_text(encoding="utf-8"))
STEPS = (0, 49, 50, 1499, 1500, 9144, 29999)


def rows() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Recipe, setting and what the table says of it."""
    for recipe, table in TABLES.items():
        about = {key: table[key] for key in ("repository", "commit")}
        for setting, row in table["constants"].items():
            yield recipe, setting, {**about, **row}


@pytest.mark.parametrize(
    ("recipe", "setting", "row"),
    list(rows()),
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_recipe_has_its_authors_constants(recipe: str, setting: str, row: dict[str, Any]) -> None:
    effective = asdict(load_config(recipe))
    where = f"{row['repository']}, {row['file']}, line {row['line']}"
    assert effective[setting] == row["value"], where
    assert type(effective[setting]) is type(row["value"]), where
    assert len(row["commit"]) == 40


@pytest.mark.parametrize("recipe", TABLES)
def test_whatever_a_recipe_sets_stands_in_the_table_or_says_why_not(recipe: str) -> None:
    """Each line of the recipe's own files is a published constant, or pinned elsewhere."""
    content = yaml.safe_load((CONFIGS / f"{recipe}.yaml").read_text())
    fragment = yaml.safe_load((CONFIGS / content.pop("base")[-1]).read_text())
    shared = TABLES[recipe.replace("_coco", "_voc")]["constants"]
    elsewhere = {
        "stages",  # where it ends is no number
        "branches",
        "vit_map",  # without a ViT as good as any; `mass` goes with `summed`
        "clip_box_edges",  # golden files: boxes
        "pad_images",  # golden files: inference
        "scales",  # golden files: inference
        "dense_maps",  # golden files: excel_forward
        "cam",  # golden files: the forwards
        "text_match",  # ours alone
        "self_train",  # where there is none; WeCLIP+'s is in the table
        "transition_power",  # golden files: transition
        "dice_classes",  # golden files: weclip_plus_step
        "vit_logit_scale",  # no factor
        "work_dir",
        "par_iterations",  # CLIP-ES has no PAR
        "skipped_maps",
        "mct_batch_size",  # of the authors' file, which was not at hand
        "mct_decay_tables",  # tests of stage 1
        "mct_contrast",  # golden files: losses
    }
    assert set(content) | set(fragment) <= {
        *TABLES[recipe]["constants"],
        *shared,
        *elsewhere,
    }


def test_fragments_say_nothing_of_data_and_weights() -> None:
    for file in RECIPES.glob("*.yaml"):
        told = set(yaml.safe_load(file.read_text()))
        assert not told & {
            *("dataset", "data_root", "train_split", "val_split", "clip_path", "deit_path"),
            *("crop_size", "batch_size", "max_iters", "work_dir", "early_maps", "device"),
        }, file


@pytest.mark.parametrize("recipe", ["weclip", "weclip_plus", "excel", "cdclip", "clip_es"])
def test_a_recipe_on_the_toy_keeps_nothing_of_ours(recipe: str) -> None:
    ours = yaml.safe_load((RECIPES / "best.yaml").read_text())
    effective = asdict(load_config(["toy_voc", recipe]))
    without_effect = {"wide_dilation"}  # there is no ViT
    if effective["stages"] == "seeds":
        without_effect.add("self_train")
    assert {name for name in ours if effective[name] == ours[name]} <= without_effect


def test_constants_that_are_no_settings_are_weclips_too() -> None:
    assert DILATIONS == (1, 2, 4, 8, 12, 24)  # WeCLIP_model/model_attn_aff_voc.py, line 89
    assert (VOC.template, COCO.template) == ("a clean origami {}.",) * 2  # line 81


def segmenter_stage(model: CVF, config: Config) -> Stage:
    """The stage 2 that training would run."""
    run = SimpleNamespace(config=config, folder=Path(), facts={})
    return stages.segmenter_stage(model, None, None, run, lambda _: None)


def weclip(recipe: str) -> tuple[CVF, Config]:
    """A model that the recipe builds, on a tiny CLIP, and its settings."""
    config, clip = load_config(recipe), tiny_clip()
    spec = VOC if config.dataset == "voc" else COCO
    torch.manual_seed(0)
    text = torch.nn.functional.normalize(torch.randn(len(spec.texts()), 32), dim=1)
    clip.requires_grad_(False)
    dino = load_dino(vit_files.dino()) if config.dino_path else None
    if config.dense_blocks >= len(clip.visual.blocks):
        config = replace(config, dense_blocks=len(clip.visual.blocks) - 1)
    return build_cvf(config, clip, text, None, len(spec.classes), dino), config


def by_hand(step: int, base: float, warmup: int, iterations: int) -> float:
    """The rate of fusion and decoder at a step, typed from PolyWarmupAdamW: the base rate times
    ten, the warm-up from a millionth, then linear in the step.
    """
    if step < warmup:
        return base * 10 * (1 - (1 - step / warmup) * (1 - 1e-6))
    return base * 10 * (1 - step / iterations)


@pytest.mark.parametrize(
    ("recipe", "base", "warmup", "iterations"),
    [
        ("weclip_voc", 2e-4, 50, 30000),
        ("weclip_coco", 2e-4, 50, 80000),
        ("weclip_plus_voc", 2e-5, 50, 30000),
        ("weclip_plus_coco", 2e-5, 50, 80000),
        ("excel_voc", 1e-4, 50, 30000),
        ("excel_coco", 1e-4, 200, 100000),
    ],
)
@pytest.mark.parametrize("step", STEPS)
def test_every_trainable_tensor_has_its_authors_rate_and_decay(
    recipe: str, base: float, warmup: int, iterations: int, step: int
) -> None:
    model, config = weclip(recipe)
    stage = segmenter_stage(model, config)
    set_rate(stage.optimiser, stage.rate(step))

    found = {
        id(tensor): (group["lr"], group["weight_decay"])
        for group in stage.optimiser.param_groups
        for tensor in group["params"]
    }
    trained = {
        published_name(name): found.pop(id(tensor))
        for name, tensor in model.named_parameters()
        if tensor.requires_grad
    }
    assert not found  # nothing else is in the optimiser

    parts = {"decoder", "decoder_fts_fuse"}
    if config.dino_path:
        parts.add("dino_decoder_fts_fuse")
    assert {name.split(".")[0] for name in trained} == parts
    assert {"decoder_fts_fuse.linear_fuse.bias", "decoder.linear_pred.weight"} < set(trained)
    for name, (rate, decay) in trained.items():
        assert rate == pytest.approx(by_hand(step, base, warmup, iterations), rel=1e-12), name
        assert decay == 0.01, name


def test_five_steps_give_the_weights_of_a_loop_with_torchs_adamw() -> None:
    """Our step beside a plain loop: the same losses, torch's AdamW, rates typed by hand."""
    (ours, config), (theirs, _) = weclip("weclip_voc"), weclip("weclip_voc")
    stage = segmenter_stage(ours, config)
    torch.manual_seed(1)
    images = torch.randn(5, 2, 3, 64, 64)
    tags = torch.zeros(2, len(VOC.classes))
    tags[0, 3] = tags[1, 7] = tags[1, 9] = 1

    def losses(model: CVF, pixels: Tensor, step: int) -> Tensor:
        valid = torch.ones(2, 64, 64, dtype=torch.bool)
        batch = {"tags": tags, "valid": valid, "index": torch.tensor([step, 5])}
        return sum(stages.pseudo_label_losses(model, pixels, batch, step, config).values())

    trained = [tensor for tensor in theirs.parameters() if tensor.requires_grad]
    # fused as ours is: a key's bias has gradients of rounding alone, which Adam magnifies
    fused = stage.optimiser.param_groups[0]["fused"]
    options = {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01, "fused": fused}
    plain = torch.optim.AdamW(trained, lr=1.0, **options)
    start = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    for step, pixels in enumerate(images):
        set_rate(stage.optimiser, stage.rate(step))
        stage.optimiser.zero_grad()
        losses(ours, pixels, step).backward()
        stage.optimiser.step()

        plain.param_groups[0]["lr"] = (2e-9, 4.000196e-5, 8.000192e-5, 1.2000188e-4, 1.6000184e-4)[
            step
        ]
        plain.zero_grad()
        losses(theirs, pixels, step).backward()
        plain.step()

    moved = 0.0
    for name, tensor in ours.state_dict().items():
        torch.testing.assert_close(tensor, theirs.state_dict()[name], rtol=0, atol=2e-7)
        moved = max(moved, float((tensor - start[name]).abs().max()))
    assert moved > 1e-4
