"""A pickle of dicts, lists, NumPy arrays and PyTorch tensors, read without unpickling.

Unpickling runs whatever a file says. Here the few instructions that such values need are followed
by hand: nothing that the file names is imported or called, and memory is bounded by the file's
size. Source of the instructions: Python's `pickletools`; protocols 2 to 5, as NumPy writes them.
"""

import math
import pickletools
import re
from typing import Any

import numpy as np

from utils.common.torch_files import pickled_array, pickled_storage

_FIRST = object()  # the mark below the items that belong together
_MISFIT = "an array of another shape than its content"
_CONSTANTS = {
    "NONE",
    "BININT",
    "BININT1",
    "BININT2",
    "LONG1",
    "BINFLOAT",
    "BINSTRING",
    "SHORT_BINSTRING",
    "BINBYTES",
    "SHORT_BINBYTES",
    "BYTEARRAY8",
    "BINUNICODE",
    "SHORT_BINUNICODE",
}
_VALUES = {"NEWTRUE": True, "NEWFALSE": False, "MARK": _FIRST}
_HEADER = re.compile(
    rb"\x93NUMPY[\x01-\x03]\x00..(?:\x00\x00)?\{[^{}]*'descr': *'\|O'[^{}]*\}[ \n]*\n", re.DOTALL
)
_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}


def read_npy_dict(content: bytes) -> dict[str | int, Any]:
    """Read the dict in a .npy file that `np.save(path, {...})` wrote, as `read_plain` reads it.

    Raises:
        ValueError: it is no such file, or holds anything else, in words that follow "it".
    """
    header = _HEADER.match(content)
    if header is None:
        raise ValueError("is no .npy file of a dict")

    try:
        held = read_plain(content[header.end() :])
    except ValueError as error:
        raise ValueError(f"holds, after {header.end()} bytes of header {error}") from error

    if isinstance(held, list) and len(held) == 1:
        (held,) = held
    if not isinstance(held, dict):
        raise ValueError("does not hold one dict")
    return held


def read_plain(content: bytes) -> Any:
    """Read the value of a pickle. Arrays and tensors come as NumPy arrays, an array of objects as
    the list of them.

    Raises:
        ValueError: it is broken, or holds anything else; `at byte N` says where.
    """
    stack = _Stack()
    place: int | None = 0
    try:
        for code, argument, position in pickletools.genops(content):
            place = position
            if code.name == "STOP":
                return _plain(stack.items.pop())
            stack.follow(code.name, argument)
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        raise ValueError(f"at byte {place}: {error}") from error

    raise ValueError("it ends without a value")


class _Stack:
    """What the instructions have put down so far."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self.memo: dict[int, Any] = {}

    def follow(self, name: str, argument: Any) -> None:
        """Carry out one instruction. Raises ValueError for one that plain values do not need."""
        push = self.items.append

        match name:
            case "PROTO" | "FRAME":
                pass
            case _ if name in _CONSTANTS:
                push(argument)
            case _ if name in _VALUES:
                push(_VALUES[name])
            case _ if name in _EMPTY:
                push(_EMPTY[name]())

            case "TUPLE":
                push(tuple(self.take_marked()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                push(tuple(self.take(int(name[-1]))))

            case "SETITEM" | "SETITEMS":
                pairs = self.take(2) if name == "SETITEM" else self.take_marked()
                _fill(self.top(dict), pairs)
            case "APPEND" | "APPENDS":
                new = self.take(1) if name == "APPEND" else self.take_marked()
                self.top(list).extend(new)

            case "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = self.items[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = self.items[-1]
            case "BINGET" | "LONG_BINGET":
                push(self.memo[argument])

            case "GLOBAL":
                push(_Name(argument))
            case "STACK_GLOBAL":
                push(_Name(" ".join(self.take(2))))
            case "REDUCE":
                push(_made(*self.take(2)))
            case "BUILD":
                (state,) = self.take(1)
                self.top((_Array, _Kind)).build(*state)

            case _:
                raise ValueError(f"instruction {name} is not one of plain values")

    def take(self, count: int) -> list[Any]:
        """Remove the last `count` items."""
        found = self.items[-count:]
        if len(found) < count or any(item is _FIRST for item in found):
            raise ValueError("values are missing")
        del self.items[-count:]
        return found

    def take_marked(self) -> list[Any]:
        """Remove everything down to the last mark."""
        found = []
        while (item := self.items.pop()) is not _FIRST:
            found.append(item)
        return found[::-1]

    def top(self, kind: type | tuple[type, ...]) -> Any:
        """Return the last item, which must be of a kind."""
        if not isinstance(self.items[-1], kind):
            raise ValueError(f"a {type(self.items[-1]).__name__} cannot be filled so")
        return self.items[-1]


class _Name(str):
    """A function or class that the file names, `module name`: a text, nothing more."""

    __slots__ = ()


class _Kind:
    """The type of an array's elements: a NumPy type code, or O for objects."""

    def __init__(self, code: str, *_: Any) -> None:
        if not re.fullmatch(r"[?biuf][1248]?|[US][1-9][0-9]{0,3}|O8?", code):
            raise ValueError(f"an array of type {code!r:.40}")
        self.code = code
        if code.startswith("O"):
            self.code = "O"
        self.order = "|"

    def build(self, _version: int, order: str, *_: Any) -> None:
        """Take the byte order out of the state of a NumPy type."""
        if order not in ("<", ">", "=", "|"):
            raise ValueError("a byte order is unknown")
        self.order = order

    def read(self, raw: bytes | str) -> np.ndarray:
        """Return all elements (n,) in these bytes; Python 2 wrote bytes as text."""
        if isinstance(raw, str):
            raw = raw.encode("latin-1")
        return np.frombuffer(raw, self.order + self.code)


class _Array:
    """An array that is being read: a NumPy array, or of objects the list of them."""

    def __init__(self) -> None:
        self.values: list | np.ndarray | None = None

    def build(
        self, _version: int, shape: tuple, kind: _Kind, fortran: bool, raw: bytes | str | list
    ) -> None:
        """Take the content out of the state of a NumPy array. Raises ValueError where its parts do
        not fit.
        """
        if (kind.code == "O") != isinstance(raw, list):
            raise ValueError("an array's content is not of its type")
        if not isinstance(raw, list):
            self.values = _shaped(kind.read(raw), shape, "F" if fortran else "C")
            return
        if shape not in ((len(raw),), ()) or (shape == () and len(raw) != 1):
            raise ValueError(_MISFIT)
        self.values = raw


def _shaped(values: np.ndarray, shape: tuple, order: str, *axes: tuple) -> np.ndarray:
    """Return elements (n,) as an array of a shape, whose axes lie in memory in an order: C, F, or K
    with the axes to be transposed to, as NumPy's `_frombuffer` takes them.
    """
    if math.prod(shape) != len(values):
        raise ValueError(_MISFIT)
    if order == "K":
        return values.reshape(shape).transpose(*axes)
    if order == "F":
        return values.reshape(shape, order="F")
    return values.reshape(shape)


def _plain(value: Any) -> Any:
    """Return the array in an `_Array`, anything else as it is."""
    if isinstance(value, _Array):
        return value.values
    return value


def _fill(target: dict, pairs: list[Any]) -> None:
    """Add key, value, key, value, ...; only texts, bytes (as text) and whole numbers are keys."""
    for key, value in zip(pairs[::2], pairs[1::2], strict=True):
        if type(key) not in (str, int, bytes):
            raise ValueError(f"a {type(key).__name__} is a key")
        if isinstance(key, bytes):
            key = key.decode()
        target[key] = _plain(value)


def _made(name: _Name, arguments: tuple) -> Any:
    """Return what a call of a constructor of NumPy or PyTorch would give. Raises ValueError for any
    other.
    """
    if not isinstance(name, _Name):
        raise ValueError("something else than a function is called")

    match name.replace("numpy._core.", "numpy.core."):
        case "numpy.core.multiarray _reconstruct" | "numpy ndarray":
            return _Array()
        case "numpy.core.multiarray scalar":
            kind, raw = arguments
            (value,) = kind.read(raw)
            return value.item()
        case "numpy dtype":
            return _Kind(*arguments)
        case "numpy.core.numeric _frombuffer":
            raw, kind, *form = arguments
            return _shaped(kind.read(raw), *form)
        case "torch.storage _load_from_bytes":
            return pickled_storage(*arguments)
        case "torch._utils _rebuild_tensor_v2":
            return pickled_array(*arguments)
        case "collections OrderedDict" if arguments == ():
            return {}
        case "_codecs encode":  # how Python 3 writes bytes for Python 2
            return arguments[0].encode("latin-1")
        case "__builtin__ bytes" if arguments == ():
            return b""
    raise ValueError(f"a call of {name!r:.80}")
