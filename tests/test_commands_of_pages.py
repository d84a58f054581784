"""Commands on the pages: what each calls is there and takes its words; those of seconds run."""

import contextlib
import importlib
import importlib.util
import inspect
import io
import re
import shutil
import sys
from argparse import ArgumentParser, Namespace, _SubParsersAction
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest
from helpers import ROOT, run
from pages import PAGES, Command, block_commands, blocks, commands, quoted_commands, section
from torch.distributed.run import get_args_parser

from datasets.toy.write import write_voc
from utils.common.errors import UserError
from utils.common.options import options
from utils.common.parser import Parser
from utils.config import Config, config_file, load_config
from utils.tools import launch
from utils.tools.compare_methods.rows import read_rows

PACKAGES = ("clip", "datasets", "model", "tests", "utils")
ENTRIES = [path.name for path in ROOT.glob("*.py")]
SCRIPTS = {"run_voc.sh": "voc", "run_coco.sh": "coco"}
OTHERS = ("bandit", "cd", "git", "pip", "shellcheck", "source")
MADE = ("data/", "runs/")  # where commands of the pages write what later ones read
README = ROOT / "README.md"
DATA = ROOT / "datasets/README.md"
CHANGES = ROOT / "utils/CHANGES.md"


class Understood(BaseException):  # no Exception, as commands answer these
    """What a parser made of the words, raised before the command acts on it."""


def optional(parser: ArgumentParser) -> None:
    """Let a parser and its sub-commands do without what they require."""
    for action in parser._actions:
        action.required = False
        if isinstance(action, _SubParsersAction):
            for kind in action.choices.values():
                optional(kind)
    for group in parser._mutually_exclusive_groups:
        group.required = False


def understood(main: Callable[[], None], words: Sequence[str], whole: bool) -> Namespace:
    """What a command's own parser makes of its words; nothing else of the command runs.

    Raises AssertionError with the parser's sentence where it refuses them.
    """

    def parse_args(self: Parser, *given: Any) -> NoReturn:
        if not whole:
            optional(self)
        raise Understood(ArgumentParser.parse_args(self, *given))

    said = io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stderr(said),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        patch.setattr(Parser, "parse_args", parse_args)
        patch.setattr(sys, "argv", ["command", *words])
        try:
            main()
        except Understood as found:
            return found.args[0]
        except SystemExit as stopped:  # after --help, or with a sentence
            assert not stopped.code, said.getvalue()
    return Namespace()


def main_of(name: str) -> Callable[[], None]:
    """What a script or module of this repository does, without answers to its errors."""
    module = importlib.import_module(name.removesuffix(".py"))
    if hasattr(module, "__path__"):
        module = importlib.import_module(f"{name}.__main__")
    return inspect.unwrap(module.main)


def check_settings(given: Namespace) -> None:
    """Load the configurations that a command names, and its settings on top of them."""
    compares = hasattr(given, "rows")
    named = getattr(given, "data" if compares else "config", [])
    named = [named] if isinstance(named, str) else named
    ready = [config_file(name) for name in named if not name.startswith(MADE)]

    settings = {name: value for name, value in vars(given).items() if name in options(Config)}
    if named:
        load_config(ready, settings)
    if compares:
        read_rows(given.rows, named, settings)


def check_python(words: Sequence[str], whole: bool) -> None:
    """Check what follows the word `python`."""
    is_module = words[0] == "-m"
    name, *rest = words[1:] if is_module else words
    if name == "torch.distributed.run":
        launched = get_args_parser().parse_args(rest)
        module = ["-m"] if launched.module else []
        check_python([*module, launched.training_script, *launched.training_script_args], whole)
    elif name == "utils.tools.launch":
        check_python(launch.read(rest).words, whole)
    elif name in ENTRIES or (is_module and name.partition(".")[0] in PACKAGES):
        check_settings(understood(main_of(name), rest, whole))
    elif is_module:
        assert importlib.util.find_spec(name), f"there is no module {name}"
    else:
        assert (ROOT / name).is_file(), f"there is no script {name}"


def check_script(words: Sequence[str], whole: bool) -> None:
    """Check what follows the word `bash`: training takes the flags of run_voc.sh, pytest those of
    tests/run.sh.
    """
    name, *rest = words
    assert (ROOT / name).is_file(), f"there is no script {name}"
    if name in SCRIPTS:
        data = SCRIPTS[name]
        check_python([f"train_{data}.py", "--config", f"configs/{data}.yaml", *rest], whole)


def read_variables() -> set[str]:
    """Variables of the environment that scripts and tests of this repository read."""
    files = [*ROOT.glob("*.sh"), *(ROOT / "utils").rglob("*.sh"), *(ROOT / "tests").rglob("*.py")]
    text = "".join(file.read_text(encoding="utf-8") for file in files)
    return set(re.findall(r'(?:\$\{?|environ(?:\.get\(|\[)")(\w+)', text))


def check(command: Command) -> None:
    """Raise AssertionError or UserError where a command calls what is not there, or calls it by
    words that it refuses.
    """
    words = list(command.words)
    while match := re.match(r"(\w+)=", words[0]):
        assert match[1] in read_variables() or "$(" in words[0], f"nothing reads {match[1]}"
        if "$(" in words[0]:  # what another command says
            return
        del words[0]

    # files of this repository, whoever is to read them
    for word in words[1:]:
        if word.partition("/")[0] in (*PACKAGES, "configs") and "/" in word:
            assert (ROOT / word.partition("::")[0]).exists(), f"{word} does not exist"

    if words[0] == "srun":
        del words[0]
    program, *rest = words
    if program in ("python", "python3"):
        check_python(rest, command.whole)
    elif program == "bash":
        check_script(rest, command.whole)
    else:
        assert program in OTHERS, f"{program} is no command that this test knows"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_a_page_is_one_that_its_parser_takes(page: Path) -> None:
    faults = []
    for command in commands(page.read_text(encoding="utf-8")):
        try:
            check(command)
        except (AssertionError, UserError, ImportError) as error:
            faults.append(f"{command}\n  {error}")
    assert not faults, "\n".join(faults)


def test_commands_are_found_in_blocks_in_tables_and_in_text() -> None:
    text = (
        "```bash\ngit clone x cvf && cd cvf\n# a word\nNPROC=4 bash run_voc.sh \\\n  --lr 1  # or"
        "\n```\n| try `python -m utils.tools.export\n--sweep` and `config.yaml` |\n"
    )
    assert [(str(command), command.whole) for command in commands(text)] == [
        ("git clone x cvf", True),
        ("cd cvf", True),
        ("NPROC=4 bash run_voc.sh --lr 1", True),
        ("python -m utils.tools.export --sweep", False),
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("python train_voc.py --crop_sise 320", "unknown flag --crop_sise, did you mean"),
        ("python train_voc.py --crop_size 321", "multiple of patch 16"),
        ("python train_voc.py --config configs/vok.yaml", "configs/vok.yaml does not exist"),
        ("bash run_voc.sh --config weclip_vok", "weclip_vok does not exist"),
        ("bash run_vok.sh", "no script run_vok.sh"),
        ("NPROCS=4 bash run_voc.sh", "nothing reads NPROCS"),
        ("python -m utils.tools.ablation", "No module named 'utils.tools.ablation'"),
        ("python -m utils.tools.export --model_path a.pt", "required: --out"),
        ("python -m datasets.prepare toy --root a --layout vok", "invalid choice: 'vok'"),
        ("python -m datasets.prepare voc --root a --sbt b", "unknown flag --sbt"),
        ("python -m torch.distributed.run -m utils.tools.report a --img", "unknown flag --img"),
        ("python -m utils.tools.compare_methods --rows weklip", "no recipe weklip"),
        ("python test_msc_flip_voc.py --model_path model/toy.pt", "model/toy.pt does not exist"),
        ("bash tests/run.sh tests/test_page.py", "tests/test_page.py does not exist"),
        ("conda install torch", "conda is no command"),
    ],
)
def test_a_wrong_command_is_told(line: str, said: str) -> None:
    (command,) = block_commands(line)
    with pytest.raises((AssertionError, UserError, ImportError), match=re.escape(said)):
        check(command)


def test_a_command_in_running_text_may_be_cut_short_but_not_wrong() -> None:
    cut, wrong = quoted_commands(
        "`python -m utils.tools.export --sweep`, `bash run_voc.sh --no ...`"
    )
    check(cut)
    with pytest.raises(AssertionError, match="unknown flag --no"):
        check(wrong)


def test_the_line_that_keeps_earlier_defaults_names_each_of_them() -> None:
    (command, *_) = block_commands(blocks(section(CHANGES, "Defaults"), "bash")[0])
    given = vars(understood(main_of("train_voc.py"), command.words[2:], True))
    for name, meaning in options(Config).items():
        if meaning.before is not None:
            assert given[name] == meaning.before, name


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of work like that of a new checkout, in which the test runs."""
    for name in (*PACKAGES, "configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_section(page: Path, heading: str) -> None:
    """Run all Python commands below a heading, as they stand."""
    given = [
        each for block in blocks(section(page, heading), "bash") for each in block_commands(block)
    ]
    assert len(given) > 3
    for command in given:
        program, *words = command.words
        assert program == "python", command
        name, *rest = words[1:] if words[0] == "-m" else words
        assert run(main_of(name), *rest) == 0, command


def test_what_the_front_page_has_to_try_runs(fresh: Path) -> None:
    run_section(README, "Try it")
    assert (fresh / "runs" / "test_toy_voc" / "report.html").is_file()


@pytest.mark.heavy
def test_the_worked_example_of_own_pictures_runs(fresh: Path) -> None:
    run_section(DATA, "Your own photographs and tags")
    assert (fresh / "runs" / "own" / "results.json").is_file()


def test_python_on_the_pages_runs(fresh: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_voc(fresh / "data" / "few", 0, 1, 96, seed=0)  # as the front page has drawn them before
    shutil.copy(fresh / "data" / "few" / "JPEGImages" / "toy_val_000000.jpg", "photo.jpg")
    (fresh / "weights").mkdir()
    (fresh / "weights" / "ViT-B-16.pt").symlink_to(ROOT / "clip" / "toy_clip.safetensors")

    given = [
        block for page in PAGES for block in blocks(page.read_text(encoding="utf-8"), "python")
    ]
    assert len(given) > 2
    for block in given:
        exec(compile(block, "page", "exec"), {})
        assert "background" in capsys.readouterr().out
