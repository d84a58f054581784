"""Make a checkpoint small enough to share: `python -m utils.tools.shrink --model_path CKPT --out
model/toy_voc.pt`.

Keeps what testing needs, in half precision: trained tensors, text features, configuration, class
names. CLIP is left out; testing finds it by its checksum.
"""

from pathlib import Path

from utils.common.entry import command
from utils.common.errors import UserError
from utils.common.files import require_place
from utils.common.parser import Parser
from utils.run_folder.checkpoint import load_checkpoint, refuse_stage_1, save_checkpoint

KEPT = (
    *("classes", "text", "step", "config"),
    *("clip_sha256", "clip_identity", "clip_activation", "dino_sha256", "dino_identity"),
)


def main() -> None:
    """Read the command line and do what it asks."""
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--model_path", required=True, metavar="FILE", help="final checkpoint of a run"
    )
    parser.add_argument("--out", required=True, metavar="FILE", help="file to write")
    args = parser.parse_args()
    require_place(args.out, "--out")

    content = load_checkpoint(Path(args.model_path), "--model_path")
    refuse_stage_1(content, f"--model_path {args.model_path}")
    if Path(args.out).exists() and Path(args.out).samefile(args.model_path):
        raise UserError(
            f"--out {args.out} is the checkpoint itself, with all that resuming needs; name "
            "another file"
        )

    model = {name: tensor.half() for name, tensor in content["model"].items()}
    kept = {key: content[key] for key in KEPT if key in content}
    save_checkpoint({**kept, "model": model}, Path(args.out))
    print(f"{args.out}: {Path(args.out).stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    command(main)()
