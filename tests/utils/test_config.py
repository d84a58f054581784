"""Settings: which source wins, what is refused, what scales, and what the ready files say."""

import errno
import sys
from argparse import ArgumentParser
from dataclasses import asdict, fields, replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

from model.method import Method
from utils.common.errors import UserError
from utils.common.options import options
from utils.common.parser import Parser
from utils.config import (
    CONFIGS,
    Config,
    add_config_flags,
    from_dict,
    load_config,
    read_yaml,
    save_config,
)

# What the published step switches back on (model/README.md, "Departures with a switch"), beside
# the folder of its runs.
PUBLISHED = {
    "label_fusion": "max_id",
    "propagation_mask": "last_class",
    "vit_map": "summed",
    "map_selection": "mass",
    "clip_box_edges": True,
    "affinity_labels": "clip",
    "ignore_padding": False,
    "schedule": "published",
    "train_vit": False,
    "pad_images": False,
}


def written(folder: Path, text: str, name: str = "own.yaml") -> Path:
    (folder / name).write_text(text)
    return folder / name


def flags(*arguments: str) -> dict[str, Any]:
    parser = Parser(allow_abbrev=False)
    add_config_flags(parser)
    return vars(parser.parse_args(list(arguments)))


def test_help_shows_a_module_as_it_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", ModuleSpec("a.b.__main__", None))
    assert Parser().prog == "python -m a.b"
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    monkeypatch.setattr(sys, "argv", ["folder/train_voc.py"])
    assert Parser().prog == "train_voc.py"


def test_defaults_then_base_then_yaml_then_flags(tmp_path: Path) -> None:
    written(tmp_path, "crop_size: 64\nradius: 3\nlr: 1e-3\n", "base.yaml")
    path = written(tmp_path, "base: base.yaml\nradius: 4\nlr: 0.5\n")
    config = load_config(path, {"lr": 0.25})
    assert (config.crop_size, config.radius, config.lr) == (64, 4, 0.25)
    assert config.max_iters == Config().max_iters
    assert load_config(tmp_path / "base.yaml").lr == 1e-3  # YAML reads 1e-3 as text


def test_of_several_bases_later_ones_win(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    written(tmp_path, "radius: 1\nkeep: 1\nseed: 1\nlr: 0.1\n", "first.yaml")
    written(tmp_path / "in", "base: [../first.yaml]\nkeep: 2\nseed: 2\n", "second.yaml")
    path = written(tmp_path, "base: [first.yaml, in/second.yaml]\nseed: 3\n")
    config = load_config(path)
    assert (config.radius, config.keep, config.seed, config.lr) == (1, 2, 3, 0.1)


def test_every_field_is_a_flag_and_absent_flags_change_nothing() -> None:
    assert flags() == {}
    for f in fields(Config):
        default = getattr(Config(), f.name)
        words = [str(item) for item in default] if isinstance(default, list) else [str(default)]
        assert flags(f"--{f.name}", *words) == {f.name: default}
    assert flags("--eval_seeds") == {"eval_seeds": True}
    assert flags("--train_vit", "false", "--scales", "1", "1.5") == {
        "train_vit": False,
        "scales": [1.0, 1.5],
    }


def test_a_path_may_begin_with_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    found = flags("--data_root=~/VOC", "--work_dir", "~/runs", "--tags", "~other")
    assert found == {
        "data_root": f"{tmp_path}/VOC",
        "work_dir": f"{tmp_path}/runs",
        "tags": "~other",
    }
    (tmp_path / "c.yaml").write_text("data_root: ~/VOC\nwork_dir: a/~/b\n")
    read = read_yaml(tmp_path / "c.yaml")
    assert read == {"data_root": f"{tmp_path}/VOC", "work_dir": "a/~/b"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--lerning_rate", "1"], "unknown flag --lerning_rate"),
        (["--crop_sise", "64"], "unknown flag --crop_sise, did you mean '--crop_size'?"),
        (["--crop", "64"], "unknown flag --crop"),  # no abbreviations
        (["--local-rank=0"], "--local-rank=0 comes from torch.distributed.launch; start several"),
        (["--local_rank", "0"], "utils.tools.launch --processes N`, or by torchrun"),
        (["--lr", "fast"], "argument --lr: invalid float value: 'fast'"),
        (["--branches", "both"], "argument --branches: invalid choice: 'both'"),
        (["--eval_seeds", "maybe"], "'maybe' is not true or false"),
        (["--lr"], "argument --lr: expected one argument"),
    ],
)
def test_a_bad_flag_is_one_sentence_and_status_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        flags(*arguments)
    lines = capsys.readouterr().err.splitlines()
    assert stopped.value.code == 2
    assert len(lines) == 1 and lines[0].startswith("error: ") and said in lines[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('"\\r\\n": 64\n', r"unknown key '\\r\\n'; remove it"),
        ("crop_sise: 64\n", "unknown key crop_sise, did you mean 'crop_size'?"),
        ("qqq: 64\n", "unknown key qqq; remove it"),
        ("max_iters: many\n", "max_iters is 'many'; it must be of type int"),
        ("max_iters: 1.5\n", "max_iters is 1.5"),
        ("max_iters: true\n", "max_iters is True"),
        ("eval_seeds: 1\n", "eval_seeds is 1; it must be of type bool"),
        ("mct_path:\n", "mct_path is None"),
        ("scales: 1\n", "scales is 1"),
        ("scales: [true]\n", "scales is .True.; it must be of type list"),
        ("scales: '12'\n", "scales is '12'; it must be of type list"),
        ("branches: both\n", "branches is 'both'; choose from clip, vit, fusion"),
        ("crop_size: 321\n", "--crop_size 321 is not a multiple of patch 16; use 320 or 336"),
        ("mct_crop_size: 40\n", "--mct_crop_size 40 .* use 32 or 48"),
        ("mct_crop_size: 16\n", "--mct_crop_size 16 must be at least 32"),
        ("eval_every: 0\n", "--eval_every 0 must be at least 1"),
        ("max_iters: 0\n", "--max_iters 0 must be at least 1"),
        ("decoder_layers: 1000000000\n", "--decoder_layers 1000000000 must be at most 100"),
        ("workers: -2\n", "--workers -2 must be at least -1"),
        ("lr: -0.1\n", "--lr -0.1 must not be negative"),
        ("skipped_maps: -1\n", "--skipped_maps -1 must not be negative"),
        ("wide_width: 0\n", "--wide_width 0 must be at least 1"),
        ("box_threshold: 40\n", "--box_threshold 40 must be at most 1"),
        ("scales: []\n", "--scales"),
        ("scales: [1, 0]\n", "--scales"),
        ("scale_min: 3\n", "--scale_min 3 must be positive and at most --scale_max 2"),
        ("decoder_width: 100\n", "--decoder_width 100 is not a multiple of the decoder's 8 heads"),
        ("a: [\n", "own.yaml, line 2 is not YAML"),
        ("lr: 1\nseed: 2\nlr: 3\n", "own.yaml, line 3 has the key 'lr' a second time; keep one"),
        ("- 1\n", "must hold `key: value` lines"),
        ("base: absent.yaml\n", "absent.yaml does not exist"),
        ("base: [absent.yaml]\n", "absent.yaml does not exist"),
        ("base: own.yaml\n", "own.yaml is its own base"),
        ("base: [{}]\n", "has the base .* name a file, or a list"),
    ],
)
def test_bad_values_are_refused(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said) as caught:
        load_config(written(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_max_iters_brings_the_schedule_along(tmp_path: Path) -> None:
    path = written(
        tmp_path, "max_iters: 30000\nwarmup_iters: 1500\nswitch_iters: 20000\neval_every: 3000\n"
    )
    short = load_config(path, {"max_iters": 300})
    assert (short.warmup_iters, short.switch_iters, short.eval_every) == (15, 200, 100)
    assert [
        load_config(path, {"max_iters": 6000, **own}).eval_every for own in ({}, {"eval_every": 7})
    ] == [600, 7]
    assert load_config(path, {"max_iters": 300, "switch_iters": 7}).switch_iters == 7
    often = written(tmp_path, "max_iters: 30000\neval_every: 30\n")
    assert load_config(often, {"max_iters": 1}).eval_every == 30
    assert load_config(often, {"lr": 1.0}).eval_every == 30


def test_settings_say_what_is_done_with_them() -> None:
    known = options(Config)
    assert {name for name in known if known[name].scaled} == {
        "warmup_iters",
        "switch_iters",
        "self_train_iters",
        "eval_every",
    }
    assert {name for name in known if known[name].decides} == {
        "statistics",
        "resize_long",
        "scales",
        "pad_images",
        "crf_iterations",
        "crf_pos_xy_std",
        "crf_pos_w",
        "crf_bi_xy_std",
        "crf_bi_rgb_std",
        "crf_bi_w",
    }
    for name, meaning in known.items():
        assert meaning.before is None or type(meaning.before) is meaning.kind, name


def test_a_config_is_a_method_and_cannot_be_made_of_what_does_not_work() -> None:
    config = Config(box_threshold=0.7)
    assert isinstance(config, Method) and config.box_threshold == 0.7
    with pytest.raises(UserError, match="--radius 0 must be at least 1"):
        replace(config, radius=0)
    with pytest.raises(UserError, match="--classes own.yaml is for --dataset custom"):
        Config(classes="own.yaml")


def test_affinity_is_selected_from_the_switch_over_on() -> None:
    config = Config(switch_iters=3)
    assert [config.after_switch(step) for step in (2, 3, 4)] == [False, True, True]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"distribution": "matrix", "boxes": True}, "--boxes true acts on boxes, which --distr"),
        ({"distribution": "elements", "box_threshold": 0.5}, "--box_threshold 0.5 acts on boxes"),
    ],
)
def test_boxes_and_distributions_are_refused_when_both_are_given(
    flags: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        load_config("voc", flags)
    with pytest.raises(UserError, match="--boxes true acts on boxes"):
        load_config("cdclip_voc", {"boxes": True})


def test_boxes_give_way_to_distributions_where_one_of_them_is_given() -> None:
    assert load_config("voc").uses_boxes
    assert not load_config("voc", {"distribution": "matrix"}).uses_boxes
    assert not load_config("cdclip_voc").uses_boxes
    assert not load_config("cdclip_voc", {"box_threshold": 0.5}).uses_boxes
    assert load_config("cdclip_voc", {"boxes": True, "distribution": "none"}).uses_boxes


def test_a_saved_config_reloads_to_the_same(tmp_path: Path) -> None:
    config = load_config(
        CONFIGS / "toy_voc.yaml", {"max_iters": 77, "scales": [0.5], "tags": "a: #b", "lr": 3e-7}
    )
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config
    assert from_dict(asdict(config), "checkpoint") == config


def test_a_config_that_cannot_be_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_config(Config(), tmp_path / "config.yaml")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "disk full")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        with pytest.raises(UserError, match="config.yaml cannot be written"):
            save_config(Config(seed=1), tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == Config()


def test_a_ready_configuration_is_found_by_name_and_a_path_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_config("weclip_voc") == load_config(CONFIGS / "weclip_voc.yaml")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "voc").mkdir()  # a folder is no configuration
    assert load_config("voc").batch_size == 4
    written(tmp_path, "batch_size: 7\n", "voc_of_mine")
    assert load_config("voc_of_mine").batch_size == 7
    with pytest.raises(UserError, match="--config weclp_voc does not exist, did you mean 'weclip_"):
        load_config("weclp_voc")
    with pytest.raises(UserError, match="--config zzz does not exist; ready ones are best, "):
        load_config("zzz")


def test_of_several_configurations_later_ones_win() -> None:
    toy, recipe = load_config("toy_voc"), load_config(["toy_voc", "weclip"])
    assert (recipe.branches, recipe.lr, recipe.decay_vectors) == ("clip", 2e-3, True)
    assert (recipe.crop_size, recipe.early_maps, recipe.max_iters) == (192, 3, toy.max_iters)
    assert load_config(["toy_voc", "weclip"], {"max_iters": 48}).warmup_iters == 6


def difference(one: str, other: str) -> dict[str, Any]:
    a, b = (asdict(load_config(name)) for name in (one, other))
    return {key: b[key] for key in a if a[key] != b[key]}


@pytest.mark.parametrize("data", ["voc", "coco"])
def test_the_published_step_differs_in_the_published_switches_alone(data: str) -> None:
    assert difference(data, f"published_step_{data}") == {
        **PUBLISHED,
        "work_dir": f"runs/published_step_{data}",
    }


def test_the_ready_files_hold_the_protocol() -> None:
    voc, coco = load_config("voc"), load_config("coco")
    assert (voc.max_iters, voc.switch_iters, voc.batch_size, voc.warmup_iters) == (
        30000,
        1_000_000,
        4,
        1500,
    )
    assert (coco.max_iters, coco.switch_iters, coco.batch_size, coco.warmup_iters) == (
        80000,
        1_000_000,
        8,
        1500,
    )
    assert (voc.box_threshold, coco.box_threshold) == (0.4, 0.7)
    assert set(difference("toy_voc", "toy_coco")) <= set(difference("voc", "coco"))


def test_help_shows_every_default(capsys: pytest.CaptureFixture[str]) -> None:
    parser: ArgumentParser = Parser()
    add_config_flags(parser)
    with pytest.raises(SystemExit) as stopped:
        parser.parse_args(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert stopped.value.code == 0
    assert all(f"--{f.name}" in shown for f in fields(Config))
    assert shown.count("(default: ") == len(fields(Config))
