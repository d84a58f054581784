"""List the recipes: `python -m utils.tools.recipes`.

For each: what it yields, what its authors have, the time and memory to expect, what pins it, and
what nobody has tried. `--markdown` prints the table of configs/README.md.
"""

import textwrap
from dataclasses import dataclass

from utils.common.entry import command
from utils.common.parser import Parser
from utils.config import Config, load_config
from utils.references import Reference, of_recipe, read_references

WIDTH = 100
YIELDS = {
    "all": "checkpoints/final.pt and its test results",
    "classifier": "checkpoints/classifier.pt, for --mct_path",
    "seeds": "pseudo_labels/, one PNG per image",
}


@dataclass(frozen=True)
class Recipe:
    """What cannot be read off a recipe's settings and reference numbers.

    time, memory: each says whether it was measured or computed, and on what. pinned: tests.
    open: what is not reproduced, or was never run.
    """

    name: str
    reproduces: str
    time: str
    memory: str
    pinned: str
    open: str

    @property
    def config(self) -> Config:
        """Return its effective settings."""
        return load_config(self.name)

    @property
    def numbers(self) -> tuple[Reference, ...]:
        """Return what its authors have at the end, and what others got from their code."""
        return tuple(each for each in of_recipe(self.name, read_references()) if each.step is None)


SAVED = (
    "for the backward pass, computed on a CPU with random weights in bf16; the peak on a GPU was "
    "not measured"
)
WECLIP_PINNED = (
    "every constant, with file and line; rate and decay of each tensor at seven steps; five steps "
    "against torch's AdamW; the whole training step, with gradients, by the golden files"
)
WECLIP_OPEN = "tags come from annotations, not from masks; no run on real pictures yet"
PLUS_MEMORY = "not measured; weights 0.4 GB of CLIP and 0.1 GB of DINO"
PLUS_PINNED = (
    "every constant, with file and line; rate and decay of each tensor at seven steps; the whole "
    "training step and its losses before and after self-training, with gradients, by the golden "
    "files"
)
PLUS_OPEN = (
    "tags come from annotations, not from masks; CLIP ViT-L, of which the best numbers are most "
    "likely, is not supported; no run on real pictures yet"
)
EXCEL_PINNED = (
    "every constant, with file and line; rate and decay of each tensor at seven steps; the whole "
    "training step in three stages, with gradients, by the golden files, where means over the "
    "batch and features changed in place are put in by the test"
)
EXCEL_OPEN = (
    "texts are plain prompts, as attribute sentences are not encoded here; means are per image; "
    "no run on real pictures yet"
)
CDCLIP_PINNED = (
    "by formula alone, as there is no code: divergences against SciPy's, by hand, symmetric"
)
CDCLIP_OPEN = (
    "product, tau, read-out and spreading are ours, as the notes on the paper leave them open "
    "(recipes/cdclip.yaml); no run on real pictures yet"
)

RECIPES = (
    Recipe(
        "weclip_voc",
        "WeCLIP (CVPR 2024) on PASCAL VOC 2012",
        "not measured; ExCEL's log, an RTX 3090 and the same decoder and batch: 1.6 h for 30,000 "
        "iterations, validations left out",
        f"0.3 GB for 4 images {SAVED}; weights 0.4 GB",
        WECLIP_PINNED,
        WECLIP_OPEN,
    ),
    Recipe(
        "weclip_coco",
        "WeCLIP (CVPR 2024) on MS COCO 2014",
        "not measured; ExCEL's log, an RTX 3090 and the same decoder and batch: 0.28 s per "
        "iteration, which makes 6 h of 80,000, validations left out",
        f"0.4 GB for 4 images {SAVED}; weights 0.4 GB",
        WECLIP_PINNED,
        WECLIP_OPEN,
    ),
    Recipe(
        "weclip_plus_voc",
        "WeCLIP+ (TPAMI 2025) on PASCAL VOC 2012, with DINOv2 ViT-S/14",
        "not measured on a GPU",
        PLUS_MEMORY,
        PLUS_PINNED,
        PLUS_OPEN,
    ),
    Recipe(
        "weclip_plus_coco",
        "WeCLIP+ (TPAMI 2025) on MS COCO 2014, with DINOv2 ViT-S/14",
        "not measured on a GPU",
        PLUS_MEMORY,
        PLUS_PINNED,
        PLUS_OPEN,
    ),
    Recipe(
        "excel_voc",
        "ExCEL (CVPR 2025) on PASCAL VOC 2012, without text attributes",
        "not measured; their log, an RTX 3090: 1.6 h for 30,000 iterations, validations left out",
        "not measured; what is kept for the backward pass is WeCLIP's and a twelfth layer's",
        EXCEL_PINNED,
        EXCEL_OPEN,
    ),
    Recipe(
        "excel_coco",
        "ExCEL (CVPR 2025) on MS COCO 2014, without text attributes",
        "not measured; their log, an RTX 3090: 0.28 s per iteration, which makes 8 h of 100,000, "
        "validations left out",
        "not measured; what is kept for the backward pass is WeCLIP's and a twelfth layer's",
        EXCEL_PINNED,
        EXCEL_OPEN,
    ),
    Recipe(
        "cdclip_voc",
        "CD-CLIP (CVPR 2026) on PASCAL VOC 2012: our reading of its affinity, without its "
        "super-classes and its boundary loss on DINO",
        "not measured",
        "not measured; what is kept for the backward pass is WeCLIP's",
        CDCLIP_PINNED,
        CDCLIP_OPEN,
    ),
    Recipe(
        "cdclip_coco",
        "CD-CLIP (CVPR 2026) on MS COCO 2014: our reading, as on VOC",
        "not measured",
        "not measured; what is kept for the backward pass is WeCLIP's",
        CDCLIP_PINNED,
        CDCLIP_OPEN,
    ),
    Recipe(
        "mctformer_plus_voc",
        "MCTformer+ (TPAMI 2024) on PASCAL VOC 2012, its class-token ViT alone",
        "not measured",
        f"7 GB for 32 images at 448 px {SAVED}; weights and AdamW 0.35 GB",
        "constants that are ours to set, with file and line; weights and forward of MCTformer+ by "
        "tests/golden and tests/model",
        "its second stage (PSA, ResNet38) is not here; no run on real pictures yet",
    ),
    Recipe(
        "clip_es_voc",
        "CLIP-ES (CVPR 2023) on PASCAL VOC 2012, up to its pseudo labels",
        "not measured on a GPU; nothing is trained",
        "not measured",
        "every constant, with file and line; the CRF call and the stretching of pictures by "
        "tests/utils/test_seeds.py",
        "its CRF sees BGR pictures less a mean, wrapped to bytes, ours sees RGB; its DeepLab is "
        "not here; no run on real pictures yet",
    ),
)


def about(number: Reference) -> str:
    """Tell what a number is of, what is special about it, and what others got."""
    text = f"on {number.split}"
    if number.note:
        text += f" ({number.note})"
    if number.others:
        text += f", others {' '.join(f'{value:g}' for value in number.others)}"
    if number.quoted_by:
        text += f", as quoted by {number.quoted_by}"
    return text


def authors(recipe: Recipe) -> str:
    """Tell the recipe's numbers in one line each, with where they stand."""
    return "\n".join(
        f"{each.name} {each.value:g} {about(each)}: {each.address}" for each in recipe.numbers
    )


def facts(recipe: Recipe) -> dict[str, str]:
    """Return what is told of a recipe, by what it is."""
    return {
        "reproduces": recipe.reproduces,
        "run": f"bash run_{recipe.config.dataset}.sh --config {recipe.name}",
        "yields": YIELDS[recipe.config.stages],
        "authors have": authors(recipe),
        "time": recipe.time,
        "memory": recipe.memory,
        "pinned by": recipe.pinned,
        "open": recipe.open,
    }


def listing() -> str:
    """Return all recipes as text."""
    parts = []
    for recipe in RECIPES:
        parts.append(f"--config {recipe.name}")
        for title, text in facts(recipe).items():
            for line in text.splitlines():
                head = f"  {title:14}"
                title = ""  # before the first line alone
                parts.append(
                    textwrap.fill(
                        line,
                        WIDTH,
                        initial_indent=head,
                        subsequent_indent=" " * len(head),
                        break_long_words=False,
                        break_on_hyphens=False,
                    )
                )
        parts.append("")

    return "\n".join(parts).rstrip()


def markdown() -> str:
    """Return the table of configs/README.md: what each yields, and its authors' numbers."""
    rows = ["| recipe | reproduces | yields | authors have |", "|---|---|---|---|"]
    for recipe in RECIPES:
        numbers = [
            f"[{each.name} {each.value:g}]({each.address}) {about(each)}" for each in recipe.numbers
        ]
        given = YIELDS[recipe.config.stages]
        rows.append(f"| `{recipe.name}` | {recipe.reproduces} | {given} | {'<br>'.join(numbers)} |")
    return "\n".join(rows)


def main() -> None:
    """Read the command line and do what it asks."""
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--markdown", action="store_true", help="print the table of configs/README.md"
    )
    if parser.parse_args().markdown:
        print(markdown())
    else:
        print(listing())


if __name__ == "__main__":
    command(main)()
