"""Pickles read without importing or calling anything that they name.

A pickle is a small program that builds objects by calling functions. Here a name stands for a
stand-in that swallows whatever is done with it, but for the few names that the reader gives, which
build tensors and plain containers. So a training run's argparse.Namespace, NumPy scalar or path
does no harm and no good.
"""

import pickle
import pickletools
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

CONTAINERS = {
    "collections.OrderedDict": OrderedDict,
    "collections.defaultdict": lambda *_: {},
}
# what no weights need; stand-ins would make it harmless too, but the user should hear of it
_RUNNING_MODULES = {
    "os",
    "posix",
    "nt",
    "sys",
    "subprocess",
    "importlib",
    "runpy",
    "pty",
    "shutil",
    "socket",
    "ctypes",
    "marshal",
    "webbrowser",
}
_RUNNING_NAMES = {"eval", "exec", "execfile", "compile", "open", "__import__", "breakpoint"}
_BUILTINS = {"builtins", "__builtin__", "io", "_io"}


class HarmfulPickle(pickle.UnpicklingError):
    """The pickle names a function that runs code or opens files."""

    remedy = "it is not a weights file but an attack, delete it"


class StandIn:
    """An object of a class that is not looked up: it keeps its attributes and does nothing."""

    named = ""  # module and name of the class or function that it stands for
    attributes: Mapping[str, Any] = {}

    def __new__(cls, *_: Any, **__: Any) -> "StandIn":
        """Make the object, whatever it would be made from."""
        return object.__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        """Take whatever it would be made from."""

    def __setstate__(self, state: Any) -> None:
        """Keep the attributes, where there are any."""
        self.attributes = state if isinstance(state, dict) else {}

    def __call__(self, *_: Any, **__: Any) -> "StandIn":
        """Return itself, which stands for a result too."""
        return self

    def swallow(self, *_: Any) -> None:
        """Take an item and forget it."""

    append = extend = add = __setitem__ = swallow


class _InertUnpickler(pickle.Unpickler):
    def __init__(
        self, file: BinaryIO, known: Mapping[str, Any], persistent: Callable[[Any], Any]
    ) -> None:
        super().__init__(file, encoding="utf-8", errors="replace")
        self.known = {**CONTAINERS, **known}
        self.persistent = persistent
        self.stand_ins: dict[str, type[StandIn]] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Give what stands for a name of the pickle; HarmfulPickle for one that runs something."""
        full = f"{module}.{name}"
        if full in self.known:
            return self.known[full]

        root = module.partition(".")[0]
        if root in _RUNNING_MODULES or (module in _BUILTINS and name in _RUNNING_NAMES):
            raise HarmfulPickle(f"it would call {full} if it were unpickled")

        if full not in self.stand_ins:
            self.stand_ins[full] = type("StandIn", (StandIn,), {"named": full})
        return self.stand_ins[full]

    def persistent_load(self, identity: Any) -> Any:
        """Give what lies outside the pickle, as the reader of the file has it."""
        return self.persistent(identity)


def load_inert(
    file: BinaryIO, size: int, known: Mapping[str, Any], persistent: Callable[[Any], Any]
) -> Any:
    """Read the pickle that begins at the file's position, and leave the position at its end.

    Args:
        file: open for reading, seekable.
        size: of the file, in bytes; bounds what the pickle may ask to be kept.
        known: by "module.name", what stands for names that are needed.
        persistent: gives the object for an identity that the pickle points to.

    Raises any exception where the bytes are no whole pickle, or it holds a name that runs
    something.
    """
    start = file.tell()
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name.endswith("PUT") and int(argument or 0) > size:
            raise pickle.UnpicklingError("its memory has more places than the file has bytes")
    end = file.tell()

    file.seek(start)
    content = _InertUnpickler(file, known, persistent).load()
    file.seek(end)
    return content
