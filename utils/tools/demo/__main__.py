"""A page on this machine to try the method on a photo: `python -m utils.tools.demo`, then open the
address that it prints.

Drop a photo or take a drawn example, tick or type what it shows, and see what each stage of the
method makes of it; sliders set opacity and threshold, a link saves the mask. Without --model_path
it is CLIP alone, without training; with a checkpoint also the ViT's branch, the fusion and the
decoder's prediction. Nothing leaves this machine, and no photo is kept on its disk.
"""

import argparse
import errno
import importlib.util
import os
import socket
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from utils.common.device import prepare_torch
from utils.common.entry import command
from utils.common.errors import UserError
from utils.common.options import options
from utils.common.parser import Parser
from utils.common.startup import ROOT
from utils.config import Config, add_config_flags
from utils.inference.labeller import Labeller
from utils.inference.protocol import Outputs
from utils.inference.segmenter import Segmenter
from utils.tools.demo.photos import examples
from utils.tools.demo.stages import ByCheckpoint, ByClip, Explorer

LIBRARY = "gradio"
HOST = "127.0.0.1"
PORT = 7860


def main() -> None:
    """Read the command line and do what it asks."""
    flags = vars(_parser().parse_args())
    port, model_path, classes = (flags.pop(name) for name in ("port", "model_path", "classes"))
    check_library()
    check_port(port)

    explorer, heading = explorer_of(model_path, classes, flags)
    with tempfile.TemporaryDirectory(prefix="cvf_demo_") as folder, suppress(KeyboardInterrupt):
        serve(explorer, heading, port, Path(folder))
    print("the page is closed, and nothing of it is kept")


def check_library() -> None:
    """Raise UserError where what makes the page is not installed."""
    if importlib.util.find_spec(LIBRARY) is None:
        needed = Path(__file__).with_name("requirements.txt").relative_to(ROOT)
        raise UserError(f"the page needs the package {LIBRARY}; `pip install -r {needed}`")


def check_port(port: int) -> None:
    """Raise UserError where no page can be served at a port of this machine."""
    if not 1 <= port <= 65535:
        raise UserError(f"--port {port} must lie between 1 and 65535")
    with socket.socket() as probe:
        if os.name == "posix":  # elsewhere this would share the port
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            reason = f"cannot be opened ({error.strerror})"
            if error.errno == errno.EADDRINUSE:
                reason = "is in use"
            raise UserError(f"--port {port} {reason}; give another, such as {port + 1}") from None


def explorer_of(
    model_path: str | None, classes: str | None, flags: dict[str, Any]
) -> tuple[Explorer, str]:
    """Load what makes the stages; return it with what is at work, in words.

    Raises UserError where a checkpoint, weights or classes cannot be used.
    """
    if model_path is not None:
        if classes is not None:
            raise UserError(
                f"--classes {classes} cannot be joined to --model_path, whose classes are its own; "
                "leave one out"
            )
        segmenter = Segmenter.from_checkpoint(model_path, Outputs(use_crf=False), **flags)
        prepare_torch(segmenter.config.threads)
        return ByCheckpoint(segmenter), f"Checkpoint {model_path}, on {segmenter.device}."

    usual = "toy"
    if Path(Config.clip_path).is_file():
        usual = Config.clip_path
    flags.setdefault("clip_path", usual)
    labeller = Labeller.from_clip(classes or "voc", **flags)
    prepare_torch(labeller.config.threads)
    return (
        ByClip(labeller),
        f"CLIP {labeller.config.clip_path} alone, without training, on {labeller.device}.",
    )


def serve(explorer: Explorer, heading: str, port: int, folder: Path) -> None:
    """Serve the page until this command is interrupted.

    folder: for what the library writes, such as photos before they are read.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    from utils.tools.demo.page import served  # the library reads these as it is imported

    drawn = examples(explorer.spec)
    with served(explorer, drawn, heading, (HOST, port), folder) as address:
        print(f"{heading}\nopen {address} in a browser of this machine; Ctrl-C closes the page")
        wait()


def wait() -> None:
    """Let other threads work until this command is interrupted."""
    while True:
        time.sleep(1)


def _parser() -> Parser:
    parser = Parser(description=__doc__)

    add = parser.add_argument
    add("--model_path", metavar="FILE", help="checkpoint that training wrote (default: none)")
    add(
        "--clip_path",
        default=argparse.SUPPRESS,
        help=f"{options(Config)['clip_path'].help} (default: the checkpoint's; without one "
        f"{Config.clip_path} if it is there, else toy)",
    )
    add(
        "--classes",
        metavar="FILE|NAMES",
        help="class list (YAML), names separated by commas, voc or coco (default: the "
        "checkpoint's, else voc)",
    )

    add("--port", type=int, default=PORT, help="of the page on this machine (default: %(default)s)")
    add_config_flags(parser, only=("device", "precision", "threads"))

    return parser


if __name__ == "__main__":
    command(main)()
