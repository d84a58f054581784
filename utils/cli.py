"""What the entry scripts do: read the command line, then train or test."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets.mask_signs import refuse_suspicious
from datasets.own_pictures import pictures
from datasets.tag_sources import tags_of_images
from utils.build import testing_script
from utils.common import distributed
from utils.common.device import prepare_torch, used_precision, usual_processes
from utils.common.errors import UserError
from utils.common.gpu import check_gpu
from utils.common.parser import Parser, parse_bool, refuse_idle
from utils.config import CONFIG_FILE, CONFIGS, add_config_flags, as_yaml, load_config
from utils.inference.crf import find_pydensecrf
from utils.inference.predict import Job, predict_split
from utils.inference.protocol import Outputs, protocol
from utils.inference.segmenter import Segmenter
from utils.inference.summary import report
from utils.run_folder.checkpoint import checkpoint_config, load_checkpoint
from utils.splits import split_items, split_masks
from utils.training.stages import train

PICTURES = "pictures"  # folder in a training's run folder for what is predicted of --images

# than pydensecrf, in every measurement (utils/tools/benchmark/README.md)
FASTER_CRF = "torch"


def add_config_choice(parser: Any, default: str) -> None:
    """Add the flag `--config` to a parser or a group of its flags; `default` is in configs/."""
    parser.add_argument(
        "--config",
        nargs="+",
        default=[str(CONFIGS / default)],
        metavar="FILE",
        help="YAML files, or names of those in configs/, of which later ones win; what they say "
        f"replaces the defaults below (default: {Path(default).stem})",
    )


def train_command(default_config: str, description: str) -> None:
    """Run `train_voc.py` or `train_coco.py`: every Config field is a flag on top of `--config`."""
    parser = Parser(
        description=description, usage="%(prog)s [--config FILE] [--work_dir DIR] [flags]"
    )
    first = parser.add_argument_group("this command")
    add_config_choice(first, default_config)
    first.add_argument(
        "--resume",
        type=parse_bool,
        nargs="?",
        const=True,
        default=False,
        metavar="true|false",
        help="continue the run in --work_dir where it stopped; a new run if there is none "
        "(default: false)",
    )
    first.add_argument(
        "--print_config", action="store_true", help="print the effective settings as YAML and stop"
    )
    first.add_argument(
        "--print_plan",
        action="store_true",
        help="print what run_voc.sh and run_coco.sh ask: run folder, device, stages, data and "
        "number of processes, one per line, and stop",
    )
    add_config_flags(parser)
    flags = vars(parser.parse_args())
    own = ("config", "resume", "print_config", "print_plan")
    given, resume, shown, planned = (flags.pop(name) for name in own)
    if len(given) > 1:
        flags.setdefault("work_dir", f"runs/{'_'.join(Path(each).stem for each in given)}")

    config = load_config(given, flags)
    if shown:
        print(as_yaml(config), end="")
        return
    if planned:
        print(config.work_dir, config.device, config.stages, config.data_root, sep="\n")
        batches = (config.batch_size, config.mct_batch_size)
        print(usual_processes(config.device, config.threads, *batches))
        return

    try:
        train(config, resume)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the same command with --resume goes on") from None


def evaluate_command(dataset: str, description: str) -> None:
    """Run `test_msc_flip_voc.py` or `test_msc_flip_coco.py`: the checkpoint brings its settings."""
    flags = vars(_evaluation_parser(description).parse_args())
    model_path, split, own, tags = (
        flags.pop(name) for name in ("model_path", "eval_set", "images", "tags")
    )
    _check_together(split, own, tags)
    options = _outputs(flags)
    if flags.pop("print_config"):
        stored = load_checkpoint(Path(model_path), "--model_path")["config"]
        print(as_yaml(checkpoint_config(stored, Path(model_path), flags)), end="")
        return

    rank, world, local = distributed.start(flags.get("device", "auto"))
    segmenter = Segmenter.from_checkpoint(model_path, options, local, **flags)
    config = segmenter.config
    if testing_script(config) != f"test_msc_flip_{dataset}.py":
        raise UserError(
            f"--model_path {model_path} was trained on {config.dataset}; test it with "
            f"{testing_script(config)}"
        )

    warning = check_gpu(config.device, config.full_size)
    prepare_torch(config.threads)
    split = split or config.val_split
    folder = Path(config.work_dir)
    if own and "work_dir" not in flags and (folder / CONFIG_FILE).is_file():
        folder /= PICTURES  # the training's own test stays as it is

    job = _job(segmenter, split, own, tags, folder)
    said = [warning, *_announced(segmenter, model_path, job, split, own)]
    if distributed.is_main():
        print("\n".join(filter(None, said)))

    try:
        with predict_split(segmenter, job, (rank, world)) as entries:
            if distributed.is_main():
                report(segmenter, job, entries, "" if own else split)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the same command goes on with the images that are left") from None

    distributed.stop()


def _outputs(flags: dict[str, Any]) -> Outputs:
    """Take the flags that say what is computed out of `flags`. Raises UserError where one is idle,
    or the CRF's library is not there.
    """
    crf = not flags.pop("no_crf")
    if not crf:
        idle = "is of the CRF, which --no_crf leaves out; give one of the two"
        refuse_idle(flags, ("crf_backend",), idle)

    backend = (flags.pop("crf_backend") or "auto").replace("auto", FASTER_CRF)
    if crf and backend == "pydensecrf":
        find_pydensecrf()
    return Outputs(crf, backend, flags.pop("save_logits"), flags.pop("sliding"))


def _job(
    segmenter: Segmenter, split: str, own: Sequence[str] | None, tags: str, folder: Path
) -> Job:
    """Find what is to be predicted: one's own pictures, or the images of a split."""
    if own:
        images = pictures(own)
    else:
        images = split_items(segmenter.config, split)
        stops = segmenter.config.on_bad_image == "stop"
        refuse_suspicious(images, len(segmenter.spec.classes), stops)

    known = tags_of_images(tags, segmenter.spec, images) if tags else {}
    return Job(images, folder, bool(own), known)


def _announced(
    segmenter: Segmenter, model_path: str, job: Job, split: str, own: Sequence[str] | None
) -> list[str]:
    """Say what the run will do, and of a split, which masks it is scored with."""
    if own:
        return [plan(segmenter, model_path, job, " ".join(own))]

    config = segmenter.config
    said = [
        plan(segmenter, model_path, job, f"{split} in {config.data_root}"),
        f"masks: {split_masks(config, split, job.images)}",
    ]
    if not job.images.masked.any():
        said.insert(0, "this test will give label maps and no score, for want of masks")
    return said


def _evaluation_parser(description: str) -> Parser:
    parser = Parser(
        description=description, usage="%(prog)s --model_path FILE [--images PATH ...] [flags]"
    )
    add = parser.add_argument_group("what to predict").add_argument
    add("--model_path", required=True, metavar="FILE", help="checkpoint that training wrote")
    add(
        "--eval_set",
        default="",
        metavar="SPLIT",
        help="split or list file (default: the checkpoint's)",
    )
    add(
        "--images",
        nargs="+",
        metavar="PATH",
        help="predict these pictures, folders and patterns ('photos/**/*.jpg') instead; needs no "
        "masks",
    )
    add(
        "--tags",
        default="",
        metavar="FILE",
        help="tags of --images, in any form that `datasets.prepare custom` takes: an image in it "
        "gets no other classes (default: none)",
    )
    add = parser.add_argument_group("how").add_argument
    add(
        "--sliding",
        action="store_true",
        help="for large pictures of small objects: at their own size, by windows of --resize_long "
        "px",
    )
    add("--no_crf", action="store_true", help="leave the dense CRF out")
    add(
        "--crf_backend",
        choices=("auto", "torch", "pydensecrf"),
        help=f"auto takes the faster one, {FASTER_CRF} (default: auto)",
    )
    add("--save_logits", action="store_true", help="also write multi-scale logits (float16 .npy)")
    add("--print_config", action="store_true", help="print the effective settings as YAML and stop")
    add_config_flags(parser, testing=True)

    return parser


def _check_together(split: str, own: Sequence[str] | None, tags: str) -> None:
    """Raise UserError where flags exclude each other: a split beside pictures of one's own, or tags
    without these, as scores would be made with them.
    """
    if own and split:
        raise UserError(
            f"--eval_set {split} and --images are two things to predict; leave one of them out"
        )
    if tags and not own:
        raise UserError(
            f"--tags {tags} restricts predictions of --images alone; results on a split are "
            "without tags"
        )


def plan(segmenter: Segmenter, model_path: str, job: Job, source: str) -> str:
    """Say what the run will do, before it does it."""
    config = segmenter.config
    options = segmenter.options
    precision = used_precision(segmenter.device, config.precision)
    tagged = ""
    if job.tags:
        tagged = f", {len(job.tags)} of them restricted to their tags"

    return (
        f"checkpoint {model_path}: {config.dataset}, {len(segmenter.classes) - 1} classes + "
        "background\n"
        f"{len(job.images)} images of {source}{tagged}; {protocol(config, options)}\n"
        f"on {segmenter.device} in {precision}; run folder {job.folder}"
    )
