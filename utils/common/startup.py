"""What goes wrong before a command has begun, while its packages are still imported: they are not
installed, as in a terminal where the environment was not activated, or too old, or Ctrl-C is
pressed.

This imports the standard library alone, so that it is there when nothing else is.
"""

from __future__ import annotations  # a Python that is too old shall get this far

import sys
from pathlib import Path
from types import TracebackType

from utils.common.errors import INTERRUPTED, MISTAKE
from utils.common.versions import too_old

ROOT = Path(__file__).resolve().parents[2]
OLDEST = (3, 10)  # Python


def answer_for_commands() -> None:
    """See that a command of this repository answers for such faults in one sentence, with the exit
    status of its other mistakes. Programs and notebooks that import it keep their tracebacks.
    """
    if sys.version_info < OLDEST:
        wanted = ".".join(map(str, OLDEST))
        print(
            f"error: {sys.executable} is Python {sys.version.split()[0]}, {wanted} or newer is "
            "needed; make the environment with one",
            file=sys.stderr,
        )
        sys.exit(MISTAKE)

    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = _answer


def _answer(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an uncaught exception; exits by itself where it can be put into a sentence."""
    if _is_command():
        if issubclass(kind, KeyboardInterrupt):
            print("interrupted", file=sys.stderr)
            sys.exit(INTERRUPTED)

        if isinstance(error, ModuleNotFoundError) and _is_ours(_last_file(trace)):
            print(f"error: {absent(str(error.name))}", file=sys.stderr)
            sys.exit(MISTAKE)

        # an old package may lack a name, or fail in a way of its own
        said = outdated()
        if said:
            print(f"error: {said}", file=sys.stderr)
            sys.exit(MISTAKE)

    sys.__excepthook__(kind, error, trace)


def absent(module: str) -> str:
    """Say of a module that cannot be imported what to do about it."""
    activate = ""
    if (ROOT / ".venv" / "bin" / "activate").is_file():
        activate = "`source .venv/bin/activate`, or "
    return (
        f"{sys.executable} has no module {module.partition('.')[0]}; activate the environment "
        f"that has it ({activate}see Install in README.md), or `pip install -r requirements.txt`"
    )


def outdated() -> str | None:
    """Say of a package that is older than it must be what to do about it; None where none is."""
    for said in too_old(ROOT / "requirements.txt"):
        return f"{sys.executable}: {said}; `pip install -r requirements.txt`"
    return None


def _is_command() -> bool:
    """Return whether the running program is one of this repository."""
    return _is_ours(getattr(sys.modules["__main__"], "__file__", None))


def _is_ours(file: str | None) -> bool:
    return file is not None and ROOT in Path(file).resolve().parents


def _last_file(trace: TracebackType | None) -> str | None:
    """Return the file in which an exception was raised, those of the import machinery apart."""
    file = None
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if not name.startswith("<frozen"):
            file = name
        trace = trace.tb_next
    return file
