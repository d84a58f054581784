"""The class list of one's own data: a YAML file of names and, if wanted, prompt wordings and
background words.
"""

import json
import os
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml

from datasets.specs import BACKGROUND, SPECS, TEMPLATE, DatasetSpec
from utils.common.errors import UserError, nearest
from utils.common.files import require_file
from utils.common.yaml_files import yaml_nodes

CLASSES = "classes.yaml"
SEPARATOR = ";"  # between the tags of a CSV cell
_MOST = 254  # labels are 0 for the background, 1..254, and 255 for pixels that do not count
_KEYS = ("classes", "prompts", "background", "template")
_FIT = (
    f"use names without {SEPARATOR!r}, line breaks or signs that cannot be seen, each once "
    "whatever its case, none of them 'background'"
)
# within words of Persian, Malayalam and others they tell how letters join
_JOINERS = dict.fromkeys(map(ord, "\u200c\u200d"))


def spec_of(dataset: str, root: str | Path, classes: str | Path = "") -> DatasetSpec:
    """Return the classes of "voc", "coco" or "custom"; the last from the file `classes`, or
    classes.yaml in `root` if empty.

    Raises:
        UserError: the file is missing or malformed.
    """
    if dataset != "custom":
        return SPECS[dataset]
    return read_classes(Path(classes or Path(root) / CLASSES))


def given_classes(given: str) -> DatasetSpec:
    """Read classes as the flag `--classes` takes them.

    Args:
        given: "voc", "coco", a class list file as of `read_classes`, or names separated by
            commas.

    Raises:
        UserError: the file is missing or malformed, or a name cannot stand for a class.
    """
    path = Path(given)
    if given in SPECS and not path.exists():
        return SPECS[given]
    is_folder = os.sep in given and path.is_dir()  # without a separator it may be a class as well
    if path.suffix.lower() in (".yaml", ".yml") or path.is_file() or is_folder:
        return read_classes(path)

    return named_classes([name for part in given.split(",") if (name := part.strip())], given)


def named_classes(names: Sequence[str], given: str = "") -> DatasetSpec:
    """Describe the classes of some names, each taken as it stands.

    Args:
        names: none of them is the name of a data set or file, or split at a comma.
        given: what `--classes` was, for errors; by default the names.

    Raises:
        UserError: a name cannot stand for a class, or there are too few or too many.
    """
    classes = [_spaced(name) for name in names_in(names, "classes")]
    given = given or ", ".join(classes)

    unfit = _first_unfit(classes)
    if unfit is not None:
        raise UserError(f"--classes {given} has the class {classes[unfit]!r}; {_FIT}")
    if not 1 <= len(classes) <= _MOST:
        raise UserError(
            f"--classes {given!r} lists {len(classes)} classes; give 1 to {_MOST} names "
            f"separated by commas, a file such as {CLASSES}, or {' or '.join(SPECS)}"
        )
    return _described(classes, {}, BACKGROUND, TEMPLATE)


def names_in(given: object, what: str) -> list[str]:
    """Return the names of a list, tuple, set or other iterable that a program gave as its classes
    or as the tags of a picture.

    Raises:
        UserError: it is none, or holds something else; says `what` names were asked for.
    """
    if isinstance(given, Iterable):
        names = list(given)
        if all(isinstance(name, str) for name in names):
            return names
    raise UserError(f"{given!r:.80} is no list of {what}; give names, such as ['cat', 'dog']")


def read_classes(path: Path) -> DatasetSpec:
    """Read the spec that a class list file describes.

    `classes` is a list of names; `prompts` maps some of them to the wording for CLIP (default: the
    name); `background` lists words of things that are no class (default: those of VOC); `template`
    is the prompt around a wording, with {} in its place. A background word that names a class is
    dropped. Every scalar is text as it stands, so that a class may be called `no` or 7.

    Raises:
        UserError: names file, line and fix.
    """
    sections = _sections(path)
    if "classes" not in sections:
        raise UserError(f"{path} has no list `classes`; write one, such as `classes: [cat, dog]`")

    classes = _words(path, sections["classes"])
    _check_classes(path, classes, sections["classes"])
    prompts: dict[str, str] = {}
    if "prompts" in sections:
        prompts = _prompts(path, sections["prompts"], classes)

    words: Sequence[str] = BACKGROUND
    if "background" in sections:
        words = _words(path, sections["background"])

    template = TEMPLATE
    if "template" in sections:
        template = _text(path, sections["template"])
    if (template.count("{}"), template.count("{"), template.count("}")) != (1, 1, 1):
        raise UserError(
            f"{_place(path, sections['template'])} has the template {template!r}; write {{}} in "
            "it once"
        )

    return _described(classes, prompts, words, template)


def classes_text(spec: DatasetSpec) -> str:
    """Return the text of a class list file, which `read_classes` reads as classes of one's own with
    the words of a spec.
    """
    sections = {
        "classes": spec.classes,
        "prompts": dict(zip(spec.classes, spec.prompts)),
        "background": spec.background,
        "template": spec.template,
    }
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in sections.items()]
    return "\n".join([*lines, ""])


def _described(
    classes: Sequence[str], prompts: dict[str, str], words: Sequence[str], template: str
) -> DatasetSpec:
    """Describe classes of one's own; words of the background that name one of them are dropped."""
    wordings = tuple(prompts.get(name, name) for name in classes)
    taken = {part.strip().casefold() for text in (*classes, *wordings) for part in text.split(",")}
    kept: list[str] = []
    dropped: list[str] = []

    for word in words:
        if word.casefold() in taken:
            dropped.append(word)
        else:
            kept.append(word)

    return DatasetSpec("custom", tuple(classes), wordings, tuple(kept), template, tuple(dropped))


def _sections(path: Path) -> dict[str, yaml.Node]:
    """Return the value of each key as YAML nodes, which know their line."""
    require_file(path, "class list", "name a file that holds `classes: [cat, dog]`")
    root = yaml_nodes(path)
    if not isinstance(root, yaml.MappingNode):
        raise UserError(
            f"{path} must hold `classes: [...]` and may hold {', '.join(_KEYS[1:])}; write "
            f"{_as_list(root)}"
        )

    sections = {}
    for key, value in root.value:
        name = _text(path, key)
        if name not in _KEYS:
            names = next((v for k, v in root.value if k.value == "names"), None)
            rest = f"; of a list of another tool, write {_as_list(names)} alone" if names else ""
            hint = nearest(name, _KEYS) or rest or "; remove it"
            raise UserError(f"{_place(path, key)} has the key {name!r}{hint}")
        sections[name] = value

    return sections


def _as_list(node: yaml.Node | None) -> str:
    """Return the line that says what a list of another form means: of names, of numbers and names,
    or of a name per line.
    """
    values: list[object] = []
    if isinstance(node, yaml.SequenceNode):
        values = [entry.value for entry in node.value]
    elif isinstance(node, yaml.MappingNode):
        values = [entry.value for _, entry in node.value]
    elif isinstance(node, yaml.ScalarNode):
        values = node.value.split()
    names = [value for value in values if isinstance(value, str)]
    return f"`classes: [{', '.join(names[:3]) or 'cat, dog'}{', ...' * (len(names) > 3)}]`"


def _check_classes(path: Path, classes: list[str], node: yaml.Node) -> None:
    if not 1 <= len(classes) <= _MOST:
        raise UserError(f"{_place(path, node)} lists {len(classes)} classes; give 1 to {_MOST}")
    unfit = _first_unfit(classes)
    if unfit is not None:
        entry = node.value[unfit]
        raise UserError(f"{_place(path, entry)} has the class {classes[unfit]!r}; {_FIT}")


def _first_unfit(classes: Sequence[str]) -> int | None:
    """Return the place of the first name that cannot stand for a class; None if all can."""
    seen = {"background"}  # label 0
    for place, name in enumerate(classes):
        key = unicodedata.normalize("NFC", name).casefold()
        visible = name.translate(_JOINERS)
        if not visible or not visible.isprintable() or key in seen or SEPARATOR in name:
            return place
        seen.add(key)
    return None


def _spaced(text: str) -> str:
    """Return a text with plain spaces in place of others, such as no-break ones of a text editor,
    and none at its ends.
    """
    return "".join(" " if unicodedata.category(sign) == "Zs" else sign for sign in text).strip()


def _prompts(path: Path, node: yaml.Node, classes: list[str]) -> dict[str, str]:
    if not isinstance(node, yaml.MappingNode):
        raise UserError(
            f"{_place(path, node)}: `prompts` must hold `class: wording` lines; write them so"
        )

    prompts = {}
    for key, value in node.value:
        name = _text(path, key)
        if name not in classes:
            hint = nearest(name, classes) or "; name one of the classes"
            raise UserError(
                f"{_place(path, key)} words the class {name!r}, which is not listed{hint}"
            )
        prompts[name] = _text(path, value)

    return prompts


def _words(path: Path, node: yaml.Node) -> list[str]:
    if not isinstance(node, yaml.SequenceNode):
        raise UserError(
            f"{_place(path, node)} should be a list; write `[one, two]` or `- one` lines"
        )
    return [_text(path, entry) for entry in node.value]


def _text(path: Path, node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode) or not node.value.strip():
        raise UserError(
            f"{_place(path, node)} should be a name or text; write one, in quotes if it has signs "
            "like : #"
        )
    return _spaced(node.value)


def _place(path: Path, node: yaml.Node) -> str:
    return f"{path}, line {node.start_mark.line + 1}"
