"""Nothing that is printed ends a run: odd names, closed pipes and terminals, full disks, slow
readers.
"""

import io
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from helpers import ROOT
from tqdm import tqdm

from utils.common.console import Lasting, begin_notices, lasting_streams, say_once
from utils.common.entry import command, make_room_for_sockets
from utils.common.errors import UserError
from utils.common.signals import StopRequest, interrupted_by_signals

NAMES = [
    "写真.jpg",
    "Küche.jpg",
    "K\udcfcche.jpg",
    "a\nb.jpg",
    "\x1b[31m.jpg",
    "🐈.jpg",
    "é" * 2000,
]


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8", "cp932", "utf-16"])
@pytest.mark.parametrize("name", NAMES)
def test_any_name_is_printed_on_any_stream(name: str, encoding: str) -> None:
    raw = io.BytesIO()
    stream = Lasting(io.TextIOWrapper(raw, encoding))
    print(name, file=stream)
    assert raw.getvalue().decode(encoding).splitlines()


def closed_pipe() -> io.TextIOWrapper:
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w")


def full_device() -> io.TextIOWrapper:
    return open("/dev/full", "w")


def closed_terminal() -> io.TextIOWrapper:
    master, terminal = pty.openpty()
    os.close(master)
    return os.fdopen(terminal, "w")


def closed_file() -> io.TextIOWrapper:
    reader, writer = os.pipe()
    stream = os.fdopen(writer, "w")
    os.close(reader)
    os.close(writer)
    return stream


def read_only() -> io.TextIOWrapper:
    return os.fdopen(os.open(os.devnull, os.O_RDONLY), "w")


def full_pipe() -> io.TextIOWrapper:
    """One that refuses rather than waits."""
    _, writer = os.pipe()
    os.set_blocking(writer, False)
    while True:
        try:
            os.write(writer, bytes(4096))
        except BlockingIOError:
            return os.fdopen(writer, "w")


@pytest.mark.parametrize(
    "make", [closed_pipe, full_device, closed_terminal, closed_file, read_only]
)
def test_an_end_that_is_gone_is_no_error(make: object) -> None:
    stream = Lasting(make())
    for _ in range(3):
        print("a line", file=stream)
        stream.write("x" * 10_000)
        stream.flush()
    tqdm.write("above the bar", file=stream)
    for _ in tqdm(range(3), file=stream):
        pass
    stream.close()


def test_a_reader_who_is_slow_is_waited_for_until_a_signal_asks_to_end() -> None:
    stream = Lasting(full_pipe())
    with interrupted_by_signals(), StopRequest() as stop:
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
        start = time.monotonic()
        print("a line", file=stream)
        assert stop.made and 0.2 < time.monotonic() - start < 5


def test_a_note_is_printed_once_per_command(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        for name in NAMES:
            say_once("kind", f"{name} is odd")
        say_once("other", "another")

    for _ in range(2):
        command(main)()
        assert capsys.readouterr().err == f"note: {NAMES[0]} is odd\nnote: another\n"
    begin_notices()


def test_streams_are_as_they_were_afterwards(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout, sys.stderr
    with pytest.raises(ZeroDivisionError), lasting_streams():
        assert sys.stdout is not before[0]
        print("printed")
        1 / 0  # noqa: B018
    assert (sys.stdout, sys.stderr) == before and capsys.readouterr().out == "printed\n"


# PyTorch takes seconds to load, and a line that is printed needs none of it.
PRINTING = """
import sys, types
for name in ("torch", "torch.utils", "torch.utils.data"):
    sys.modules[name] = types.ModuleType(name)
sys.modules["torch.utils.data"].get_worker_info = lambda: None
from utils.common.console import lasting_streams
with lasting_streams():
    for number in range(20000):
        print("写真.jpg", number)
    print("the end", file=sys.stderr)
open(sys.argv[1], "w").write("came to its end")
"""


@pytest.mark.parametrize(
    "shell",
    [
        '{} | head -1 >/dev/null; exit "${{PIPESTATUS[0]}}"',
        "{} >&-",
        "{} >&- 2>&- <&-",
        "{} >/dev/full 2>/dev/full",
        r"PYTHONIOENCODING=cp1252 {} | grep -qF '\u5199\u771f.jpg 19999'",
        r"PYTHONIOENCODING=ascii:strict {} | grep -qF '\u5199\u771f.jpg 19999'",
        '{} 2>&1 | true; exit "${{PIPESTATUS[0]}}"',
    ],
)
def test_a_command_comes_to_its_end_whatever_reads_it(shell: str, tmp_path: Path) -> None:
    script, trace = tmp_path / "printing.py", tmp_path / "trace"
    script.write_text(PRINTING)
    words = f"'{sys.executable}' '{script}' '{trace}'"
    ran = subprocess.run(
        ["bash", "-c", shell.format(words)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0 and "Error" not in ran.stderr, ran.stderr
    assert trace.read_text() == "came to its end"


@pytest.mark.parametrize("length", [30, 61, 90, 100, 200])
def test_sockets_find_room_whatever_the_temporary_folder(
    length: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begin_notices()
    usual = "/tmp/".ljust(length, "x")
    monkeypatch.setenv("TMPDIR", usual)
    monkeypatch.setattr("tempfile.tempdir", usual)
    make_room_for_sockets()
    moved = os.environ["TMPDIR"] != usual
    assert moved == (length > 60) == ("too long for sockets" in capsys.readouterr().err)
    assert len(os.environ["TMPDIR"]) <= 60
    monkeypatch.setattr("tempfile.tempdir", "/tmp/".ljust(90, "x"))
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UserError, match="set TMPDIR to a shorter folder"):
        make_room_for_sockets()


def test_without_any_temporary_folder_there_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr("tempfile.gettempdir", refuse)
    with pytest.raises(UserError, match="set TMPDIR to one that can"):
        make_room_for_sockets()
