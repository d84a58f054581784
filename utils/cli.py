"""What the entry scripts do: read the command line, then train or test."""

from dataclasses import fields
from pathlib import Path

from datasets.layouts import Item, pictures
from datasets.specs import DatasetSpec
from utils.build import restore, split_items, testing_script
from utils.checkpoint import PATHS, load_checkpoint
from utils.config import (
    CONFIGS,
    Config,
    Parser,
    add_config_flags,
    from_dict,
    load_config,
    parse_bool,
    read_yaml,
    validated,
)
from utils.errors import UserError
from utils.evaluation import ConfusionMatrix, format_table
from utils.recorder import add_result, read_results
from utils.report.page import report_line
from utils.runtime import choose_device, prepare_torch
from utils.testing import Outputs, predict_split
from utils.training import train


def train_command(default_config: str, description: str) -> None:
    """`train_voc.py` and `train_coco.py`: every Config field is a flag on top of `--config`."""
    parser = Parser(description=description, allow_abbrev=False)
    parser.add_argument("--config", default=str(CONFIGS / default_config), help="YAML file (default: %(default)s)")
    parser.add_argument("--resume", type=parse_bool, nargs="?", const=True, default=False, metavar="true|false",
                        help="continue the run in --work_dir where it stopped; a new run if there is none")  # fmt: skip
    add_config_flags(parser)
    flags = vars(parser.parse_args())
    path, resume = flags.pop("config"), flags.pop("resume")
    train(load_config(path, flags), resume)


def evaluate_command(dataset: str, description: str) -> None:
    """`test_msc_flip_voc.py` and `test_msc_flip_coco.py`: the checkpoint brings its configuration along."""
    flags = vars(_evaluation_parser(description).parse_args())
    model_path = Path(flags.pop("model_path"))
    options = Outputs(not flags.pop("no_crf"), flags.pop("crf_backend"), flags.pop("save_logits"))
    split, own = flags.pop("eval_set"), flags.pop("images")
    checkpoint = load_checkpoint(model_path, "--model_path")
    config = checkpoint_config(checkpoint["config"], model_path, flags)
    if testing_script(config) != f"test_msc_flip_{dataset}.py":
        raise UserError(
            f"--model_path {model_path} was trained on {config.dataset}; test it with {testing_script(config)}"
        )
    prepare_torch(config.threads)
    device, folder = choose_device(config.device), Path(config.work_dir)
    images = pictures(own) if own else split_items(config, split or config.val_split)
    model, spec = restore(checkpoint, config, flags.get("clip_path"))
    matrices = predict_split(model.to(device), images, config, options, folder)
    if not own:
        summarise(folder, matrices, images, split or config.val_split, config, spec)
    print(report_line(folder))
    print(f"label PNGs: {folder / 'prediction'}, in colour: {folder / 'prediction_cmap'}")


def _evaluation_parser(description: str) -> Parser:
    parser = Parser(description=description, allow_abbrev=False)
    add = parser.add_argument
    add("--model_path", required=True, metavar="FILE", help="checkpoint that training wrote")
    add("--eval_set", default="", metavar="SPLIT", help="split or list file (default: the checkpoint's)")
    add("--images", nargs="+", metavar="PATH", help="predict these files and folders instead; no masks, no tags")
    add("--no_crf", action="store_true", help="leave the dense CRF out")
    add("--crf_backend", default="torch", choices=("torch", "pydensecrf"), help="default: %(default)s")
    add("--save_logits", action="store_true", help="also write multi-scale logits (float16 .npy)")
    add_config_flags(parser)
    return parser


def checkpoint_config(stored: dict, model_path: Path, flags: dict) -> Config:
    """The checkpoint's configuration, its paths from the run folder it lies in (if whole), flags on top.

    Results go to the run folder, or for a checkpoint that lies elsewhere to runs/test_NAME.
    """
    values = {key: value for key, value in stored.items() if key in {f.name for f in fields(Config)}}
    run = model_path.resolve().parent.parent
    if (run / "config.yaml").is_file():
        saved = read_yaml(run / "config.yaml")
        values |= {key: saved[key] for key in PATHS if key in saved}
        values["work_dir"] = str(run)
    else:
        values["work_dir"] = str(Path("runs") / f"test_{model_path.stem}")
    for key in ("device", "precision", "workers", "threads"):  # where it runs is not the checkpoint's business
        values[key] = getattr(Config(), key)
    return validated(from_dict({**values, **flags}, str(model_path)))


def summarise(
    folder: Path, matrices: dict[str, ConfusionMatrix], images: list[Item], split: str, config: Config,
    spec: DatasetSpec,
) -> None:  # fmt: skip
    """Keep the results and print one table of the run: seeds and pseudo labels of training, then the test results."""
    for title, matrix in matrices.items():
        add_result(folder, title, split, len(images), matrix, spec.classes)
    rows = []
    for title, result in read_results(folder).items():
        matrix = ConfusionMatrix.from_counts(result["counts"])
        rows.append((f"{title} ({result['split']}, {result['images']})", matrix))
    if rows:
        print(format_table(rows, spec.label_names))
        print("mIoU over the classes in the truth, 255 ignored, at original size; brackets: split, number of images")
        print("seeds and pseudo labels use image-level tags and are scored with training masks; segmentations use none")
    print(f"long side {config.resize_long} px, scales {' '.join(f'{scale:g}' for scale in config.scales)}")
