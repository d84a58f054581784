"""What the whole chain gives on toy pictures with random weights: every stage of a training step,
and a test picture.

Nothing here comes from the published code: `freeze_toy_reference.py` stored our own outputs once
parity with the full golden set had been seen, so that a machine without that set notices any change
of the arithmetic.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
from golden_file import GoldenFile, close, each_close, mostly_same, same
from golden_whole import whole_model
from torch import Tensor

from clip.resize import resize
from clip.text import text_features
from datasets.specs import SPECS
from datasets.transforms import STATISTICS, normalise
from model.cvf import CVF
from model.outputs import CVFOutput
from model.pseudo_labels import seed_labels
from utils.config import Config, load_config
from utils.inference.crf import crf
from utils.inference.multi_scale import multi_scale
from utils.training.stages import pseudo_label_losses

Compare = Callable[[Tensor, Tensor], None]
Named = Iterator[tuple[str, Tensor]]
EVERY = 5  # logits of single pixels are compared on every 5th row and column
CONTRAST = 10.0
VARIANTS = {"published": "published_step_voc", "ours": "voc"}  # configuration of each


def norms_close(actual: Tensor, expected: Tensor) -> None:
    """Each norm within 5e-3 of its own value; below a millionth of the largest there is rounding
    only.
    """
    floor = 1e-6 * expected.max()
    each_close(actual.clamp(min=floor), expected.clamp(min=floor), 5e-3)


COMPARE: dict[
    str, Compare
] = {  # by the last word of an array's name; tests/golden/README.md, "How close is close"
    "text": close,
    "logits": close,
    "affinity": close,
    "cams": close,
    "gradcams": partial(close, relative=0, absolute=1e-3),
    "boxes": same,
    "transition": partial(close, relative=1e-5),
    "refined": partial(close, relative=1e-5),
    "labels": mostly_same,
    "losses": partial(each_close, relative=1e-3),
    "gradients": norms_close,
}


def check_toy_forward(golden: GoldenFile) -> None:
    for name, value in measured(golden):
        try:
            COMPARE[name.rpartition("_")[2]](value, golden[name])
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from None


def measured(golden: GoldenFile) -> Named:
    """Names and values of all that is compared, from the pictures of a file, for each of its
    configurations.

    What no choice of method touches has the same name under each.
    """
    for variant, name in VARIANTS.items():
        config = replace(
            load_config(name),
            decoder_width=golden.config["head"]["embed_dim"],
            decoder_layers=golden.config["head"]["layers"],
            fusion_dropout=0.0,
        )
        text = text_features(golden.clip(), SPECS[config.dataset].texts())
        yield "text", text
        model = whole_model(golden, text, config)
        images = normalise(golden["pictures"].permute(0, 3, 1, 2), *STATISTICS[config.statistics])
        batch = {
            "tags": golden["tags"].float(),
            "valid": golden["valid"],
            "index": torch.arange(len(images)),
        }
        for stage, step in (("before", config.switch_iters - 1), ("after", config.switch_iters)):
            yield from training(model, images, batch, step, config, variant, f"{variant}_{stage}")
        yield from testing(model, golden["test_picture"], config, variant)


def training(
    model: CVF,
    images: Tensor,
    batch: dict[str, Tensor],
    step: int,
    config: Config,
    variant: str,
    stage: str,
) -> Named:
    """A training step's forward, losses and gradient norms."""
    outputs: list[CVFOutput] = []
    hook = model.register_forward_hook(lambda _module, _arguments, output: outputs.append(output))
    terms = pseudo_label_losses(model, images, batch, step, config)
    hook.remove()
    (out,) = outputs
    labels, seeds = out.labels, out.labels.seeds
    yield "logits", out.logits
    yield "affinity", out.affinity
    yield "patch_logits", out.patch_logits
    yield "gradcams", seeds.clip_cams
    yield "vit_cams", seeds.vit_cams
    yield f"{variant}_boxes", seeds.boxes
    yield f"{stage}_transition", seeds.transition
    yield f"{stage}_clip_refined", seeds.clip
    yield f"{stage}_vit_refined", seeds.vit
    for name, seed in seed_labels(seeds, images.shape[-2:], model.method).items():
        yield f"{stage}_{name}_seed_labels", seed
    for name in ("clip", "vit", "combined", "affinity"):
        if (label := getattr(labels, name)) is not None:
            yield f"{stage}_{name}_labels", label
    yield f"{stage}_losses", torch.stack([*terms.values(), sum(terms.values())])
    parts = ("fusion", "decoder", *(("vit", "wide", "alpha") if config.train_vit else ()))
    learned = [p for name, p in model.named_parameters() if name.split(".")[0] in parts]
    gradients = torch.autograd.grad(sum(terms.values()), learned, allow_unused=True)
    yield (
        f"{stage}_gradients",
        torch.stack([torch.zeros(()) if g is None else g.norm() for g in gradients]),
    )


@torch.no_grad()
def testing(model: CVF, picture: Tensor, config: Config, variant: str) -> Named:
    """Logits and labels of a picture (H, W, 3) uint8 at its own size, which is no whole number of
    patches at any scale.
    """
    image = normalise(picture.permute(2, 0, 1)[None], *STATISTICS[config.statistics])
    results = multi_scale(model.segment, image, config.scales, padded=config.pad_images)
    single, multi = (resize(logits, picture.shape[:2]) for logits in results)
    yield f"{variant}_single_scale_logits", single[..., ::EVERY, ::EVERY]
    yield f"{variant}_multi_scale_logits", multi[..., ::EVERY, ::EVERY]

    # Random weights see one label everywhere; taken from their means and stretched, the logits show
    # several.
    probs = (CONTRAST * (multi[0] - multi[0].mean(dim=(1, 2), keepdim=True))).softmax(0)
    yield f"{variant}_multi_scale_labels", probs.argmax(0)
    left, marginals = crf(picture, probs)
    yield f"{variant}_crf_labels", left[marginals.argmax(0)]


TOY: dict[str, Callable[[GoldenFile], None]] = {"toy_forward": check_toy_forward}
