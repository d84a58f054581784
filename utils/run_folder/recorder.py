"""What a run leaves behind while it goes: log lines, metrics.csv, pictures, TensorBoard events."""

import csv
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import numpy as np
import torch
from PIL import Image
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from utils.common import distributed
from utils.common.device import describe_environment
from utils.common.files import write_whole
from utils.config import CONFIG_FILE, Config, save_config


class Recorder:
    """Writes into a run folder from the main process; silent elsewhere."""

    def __init__(self, folder: Path, config: Config, device: torch.device) -> None:
        """Make the folder, and write config.yaml and environment.txt there.

        Args:
            folder: of the run.
            config: its settings.
            device: where it executes.
        """
        self.folder = folder
        self.active = distributed.is_main()
        self.quiet = config.quiet
        if not self.active:
            return

        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        save_config(config, folder / CONFIG_FILE)
        (folder / "environment.txt").write_text(describe_environment(device), encoding="utf-8")
        self.board = SummaryWriter(str(folder / "tensorboard"))

    def say(self, line: str) -> None:
        """Keep a line in train.log and, unless quiet, print it above the progress bar."""
        if not self.active:
            return
        if not self.quiet:
            tqdm.write(line)
        with self._append("train.log") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")

    def _append(self, name: str) -> TextIO:
        """Open a file of the run folder to append to; the folder is made again if somebody deleted
        it.
        """
        # whose thread would die without
        (self.folder / "tensorboard").mkdir(parents=True, exist_ok=True)
        return (self.folder / name).open("a", newline="", encoding="utf-8")

    def scalars(self, stage: str, iteration: int, values: dict[str, float]) -> None:
        """Append values to metrics.csv (stage, iteration, name, value) and TensorBoard."""
        if not self.active:
            return
        with self._append("metrics.csv") as stream:
            writer = csv.writer(stream)
            if not stream.tell():
                writer.writerow(("stage", "iteration", "name", "value"))
            writer.writerows(
                (stage, iteration, name, f"{value:.6g}") for name, value in values.items()
            )

        def add(board: SummaryWriter) -> None:
            """Add every value to the board."""
            for name, value in values.items():
                board.add_scalar(f"{stage}/{name}", value, iteration)

        self._show(add)

    def picture(self, name: str, iteration: int, picture: Image.Image) -> None:
        """Write panels/NAME.png, over that of an earlier iteration, and keep every one in
        TensorBoard.
        """
        if not self.active:
            return

        path = self.folder / "panels" / f"{name}.png"
        stream = io.BytesIO()
        picture.save(stream, "PNG")
        write_whole(path, stream.getvalue())
        self._show(
            lambda board: board.add_image(
                f"panels/{name}", np.asarray(picture), iteration, dataformats="HWC"
            )
        )

    def _show(self, add: Callable[[SummaryWriter], None]) -> None:
        """Add to TensorBoard. Its thread dies where it cannot write, as in a deleted folder; then a
        new file begins.
        """
        try:
            add(self.board)
        except OSError as error:
            tqdm.write(f"TensorBoard begins a new file, as the last could not be written ({error})")
            self.board = SummaryWriter(str(self.folder / "tensorboard"))
            add(self.board)

    def rewind(self, stage: str, iteration: int) -> None:
        """Drop from metrics.csv what a killed run logged of a stage after the iteration it is
        resumed from.
        """
        file = self.folder / "metrics.csv"
        if not self.active or not file.is_file():
            return

        with file.open(newline="", encoding="utf-8") as stream:
            lines = [line for line in stream if line.endswith("\n")]  # the last line may be torn
        later = {
            line
            for line in lines
            if line.startswith(f"{stage},") and int(line.split(",")[1]) > iteration
        }
        write_whole(file, "".join(line for line in lines if line not in later).encode())

    def has(self, stage: str, iteration: int) -> bool:
        """Return whether metrics.csv has values of a stage at an iteration; the same in every
        process.
        """
        file = self.folder / "metrics.csv"
        if not file.is_file():
            return False
        with file.open(newline="", encoding="utf-8") as stream:
            return any(line.startswith(f"{stage},{iteration},") for line in stream)

    def close(self) -> None:
        """Flush TensorBoard."""
        if self.active:
            self._show(SummaryWriter.close)
