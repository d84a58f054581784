"""Bad input to the entry scripts: one sentence on stderr, exit status 2, before any training, no
traceback.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from helpers import ROOT, run
from vit_files import as_v1, deit, mctformer_plus, saved

import test_msc_flip_voc
import train_coco
import train_voc
from clip.model import CLIP, VisionTransformer
from datasets.prepare import __main__ as prepare
from datasets.specs import COCO, VOC
from datasets.tags import Tags, write_tags
from utils.common import distributed
from utils.common.device import choose_device
from utils.common.entry import command
from utils.common.errors import UserError
from utils.tools import (
    download,
    export,
    figure,
    health,
    label,
    pretrain_toy_clip,
    report,
    score,
    shrink,
    throughput,
)
from utils.tools.benchmark import __main__ as benchmark
from utils.tools.compare_methods import __main__ as compare_methods
from utils.training import loop


def refused(
    capsys: pytest.CaptureFixture[str], main: Callable[[], None], said: str, *arguments: object
) -> None:
    """Asserts that the script exits with status 2, after one sentence on stderr that holds
    `said`.
    """
    assert run(main, *arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and said in lines[0], lines


def tags_file(folder: Path, change: Callable[[dict], object]) -> list[object]:
    names = tuple(f"toy_train_{number:06d}" for number in range(24))
    write_tags(folder / "tags.json", VOC, Tags(names, np.eye(24, 20, dtype=bool), "a test"))
    content = json.loads((folder / "tags.json").read_text())
    change(content["tags"])
    (folder / "tags.json").write_text(json.dumps(content))
    return ["--tags", folder / "tags.json"]


def cut(path: Path, target: Path) -> Path:
    """The first half of a file, under another name."""
    target.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return target


def text_file(folder: Path) -> Path:
    (folder / "notes.pt").write_text("not weights\n")
    return folder / "notes.pt"


def deit_file(folder: Path, state: dict[str, torch.Tensor]) -> list[object]:
    """Flags that start the ViT from these tensors."""
    return ["--init", "deit", "--deit_path", saved(folder / "deit.pth", state)]


def page(folder: Path) -> Path:
    (folder / "ViT-B-16.pt").write_text("<!DOCTYPE html>\n<html></html>\n")
    return folder / "ViT-B-16.pt"


def empty(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def bare_clip(folder: Path, patch: int = 16) -> Path:
    visual = VisionTransformer(64, 3, 32, patch, 4)
    torch.save(CLIP(visual, 32, 64, 1, vocabulary=9).state_dict(), folder / "bare.pt")
    return folder / "bare.pt"


BAD_TRAINING: dict[str, tuple[Callable[[Path], list[object]], str]] = {
    "wrong root": (lambda folder: ["--data_root", folder / "absent"], "absent is not a folder"),
    "unknown class": (
        lambda folder: tags_file(
            folder, lambda tags: tags.update(toy_train_000003=["bird", "hors"])
        ),
        "image toy_train_000003 has class 'hors', which voc has not; did you mean 'horse'?",
    ),
    "untagged image": (
        lambda folder: tags_file(folder, lambda tags: tags.pop("toy_train_000005")),
        "no tags for 1 of 24 images, first toy_train_000005",
    ),
    "crop size": (
        lambda _: ["--crop_size", 321],
        "--crop_size 321 is not a multiple of patch 16; use 320 or 336",
    ),
    "missing CLIP": (
        lambda folder: ["--clip_path", folder / "absent.pt"],
        "absent.pt does not exist",
    ),
    "text as CLIP": (lambda folder: ["--clip_path", text_file(folder)], "notes.pt cannot be read"),
    "page as CLIP": (lambda folder: ["--clip_path", page(folder)], "it is a web page"),
    "empty folder as CLIP": (
        lambda folder: ["--clip_path", empty(folder)],
        "folder without a weights file (it holds nothing)",
    ),
    "CLIP that is not in the cache": (
        lambda _: ["--clip_path", "laion/CLIP-ViT-B-16-laion2B-s34B-b88K"],
        "laion/CLIP-ViT-B-16-laion2B-s34B-b88K is no file, no folder and no model in the Hub's",
    ),
    "CLIP without a configuration": (
        lambda folder: ["--clip_path", bare_clip(folder)],
        "bare.pt does not tell its activation",
    ),
    "CLIP of another patch size": (
        lambda folder: ["--clip_path", bare_clip(folder, 32)],
        "patches of 32 px; this project needs patches of 16 px",
    ),
    "activation of another CLIP": (
        lambda _: ["--clip_path", "toy", "--clip_activation", "gelu"],
        "--clip_activation gelu is not that of",
    ),
    "missing DeiT": (
        lambda folder: ["--init", "deit", "--deit_path", folder / "absent.pth"],
        "--deit_path",
    ),
    "text as MCT": (lambda folder: ["--mct_path", text_file(folder)], "notes.pt cannot be read"),
    "V1 as MCT": (
        lambda folder: ["--mct_path", saved(folder / "v1.pth", as_v1(mctformer_plus()))],
        "v1.pth is MCTformer V1, which has no patch head",
    ),
    "DeiT as MCT": (
        lambda folder: ["--mct_path", saved(folder / "deit.pth", deit())],
        "deit.pth is a ViT with one class token, which --deit_path takes",
    ),
    "MCT of other classes": (
        lambda folder: ["--mct_path", saved(folder / "mct.pth", tiny.vit(streams=1).state_dict())],
        "mct.pth has 5 classes, this data set has 20",
    ),
    "MCT as DeiT": (
        lambda folder: deit_file(folder, mctformer_plus()),
        "deit.pth is a trained class-token ViT, which --mct_path takes",
    ),
    "distilled DeiT": (
        lambda folder: deit_file(folder, deit() | {"dist_token": torch.zeros(1, 1, 64)}),
        "deit.pth is a distilled DeiT, which has a second token; give DeiT-S",
    ),
    "DINOv2": (
        lambda folder: deit_file(folder, deit(patch=14) | {"blocks.0.ls1.gamma": torch.ones(64)}),
        "deit.pth is a ViT with LayerScale, as DINOv2 has; give DeiT-S",
    ),
    "DeiT of other patches": (
        lambda folder: deit_file(folder, deit(patch=8)),
        "deit.pth is a ViT with patches of 8 px, not 16; give DeiT-S",
    ),
    "DeiT as DINO": (
        lambda folder: ["--dino_path", saved(folder / "deit.pth", deit())],
        "deit.pth is a ViT without LayerScale, such as DeiT; give weights of a DINOv2 ViT-S/14",
    ),
    "missing DINO": (lambda folder: ["--dino_path", folder / "absent.pth"], "absent.pth does not"),
    "no DINO at all": (
        lambda _: ["--proxy", "dino", "--cam", "dense"],
        "--proxy dino compares patches of DINO, and there is no --dino_path",
    ),
    "DINO for nothing": (
        lambda folder: ["--dino_path", folder / "dino.pth", "--dino_use", "proxy"],
        "dino.pth to --proxy dino, but --proxy is none; use --proxy dino, or another --dino_use",
    ),
    "WeCLIP+ without DINO": (
        lambda _: ["--config", "toy_voc", "weclip_plus"],
        "--w_cross 0.1 needs two predictors, and --branches clip without features of DINO has one",
    ),
    "no such proxy block": (
        lambda _: ["--proxy", "clip", "--cam", "dense", "--proxy_block", -4],
        "--proxy_block -4 is not in this CLIP of 3 blocks; use -2 to -3",
    ),
    "no block left": (
        lambda _: ["--cam_skip", 2],
        "--cam_skip 2 leaves no block of this CLIP of 3 before --cam_block -1; use 0 to 1",
    ),
    "three streams": (lambda _: ["--mct_streams", 3], "--mct_streams 3 must be at most 2"),
    "work_dir is a file": (
        lambda folder: ["--work_dir", text_file(folder)],
        "notes.pt cannot be made",
    ),
    "missing config": (
        lambda folder: ["--config", folder / "absent.yaml"],
        "absent.yaml does not exist",
    ),
    "mistyped flag": (
        lambda _: ["--crop_sise", 64],
        "unknown flag --crop_sise, did you mean '--crop_size'?",
    ),
    "no such device": (lambda _: ["--device", "gpu"], "--device gpu"),
    "no map left": (
        lambda _: ["--skipped_maps", 3, "--branches", "clip"],
        "--skipped_maps 3 leaves no attention map",
    ),
    "no such block": (
        lambda _: ["--cam_block", -3],
        "--cam_block -3 is not in this CLIP of 3 blocks; use -1 to -2",
    ),
}


def test_pictures_and_pages_that_cannot_be_drawn_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(
        capsys,
        command(report.main),
        "--out a.html is for a comparison",
        tmp_path,
        "--out",
        "a.html",
    )
    flags = ["--model_path", ROOT / "model" / "toy_voc.pt", "--out", tmp_path / "a.jpg"]
    refused(capsys, command(figure.main), "--size 40 is too small", *flags, "--size", 40)
    refused(capsys, command(figure.main), "--pictures -1 is negative", *flags, "--pictures", -1)
    for name in ("a.xyz", "a.psd"):  # of these Pillow only reads the second
        said = f"{name} has no suffix of a picture"
        refused(capsys, command(figure.main), said, *flags[:2], "--out", tmp_path / name)
    monkeypatch.setattr(figure, "restore", lambda *_: (None, COCO))
    refused(
        capsys, command(figure.main), "knows the classes of coco; give one trained on VOC's", *flags
    )


@pytest.mark.parametrize("name", ["auto", "cuda", "cuda:2"])
def test_a_process_without_a_gpu_of_its_own_is_told(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_arch_list", list)
    assert choose_device(name.partition(":")[0], 1) == torch.device("cuda", 1)
    with pytest.raises(UserError, match=r"there is no GPU 2 \(2 seen\)"):
        choose_device(name, 2)


def test_a_pytorch_for_the_cpu_alone_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for built, said in ((False, "is a build for the CPU alone"), (True, r"no GPU 0 \(0 seen\)")):
        monkeypatch.setattr(torch.backends.cuda, "is_built", lambda built=built: built)
        with pytest.raises(UserError, match=said):
            choose_device("cuda")


def test_one_device_for_several_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    started = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost"}
    for name, value in {**started, "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="--device cuda:1 is one device for 2 processes; use auto"):
        distributed.start("cuda:1")


@pytest.mark.parametrize("case", BAD_TRAINING)
def test_bad_input_is_refused_before_any_training(
    case: str,
    start: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags, said = BAD_TRAINING[case]
    monkeypatch.setattr(loop, "train_step", lambda *_: pytest.fail("it trained"))
    refused(capsys, train_voc.main, said, *start, *flags(tmp_path))
    assert not list(tmp_path.rglob("checkpoints/*"))


SHIPPED = ROOT / "model" / "toy_voc.pt"
EXPORT: list[object] = ["--model_path", SHIPPED, "--device", "cpu"]
PREPARED = command(prepare.main)
MISTAKES: dict[str, tuple[Callable[[], None], Callable[[Path, Path], list[object]], str]] = {
    "folder as checkpoint": (
        test_msc_flip_voc.main,
        lambda folder, _: ["--model_path", folder],
        "is a folder, not a file; give the path of a checkpoint",
    ),
    "folder as configuration": (
        train_voc.main,
        lambda folder, _: ["--config", folder],
        "is a folder, not a file",
    ),
    "no tags file": (
        train_voc.main,
        lambda folder, toy: ["--data_root", toy, "--tags", folder / "absent.csv"],
        "absent.csv does not exist; give a table with the header image,tags",
    ),
    "toy that is not drawn": (
        train_voc.main,
        lambda folder, _: [
            *("--config", "toy_voc", "--work_dir", folder / "run"),
            *("--data_root", folder / "my data" / "toy_voc"),
        ],
        "toy_voc is not a folder; draw it with `python -m datasets.prepare toy --layout voc "
        "--root '",
    ),
    "folder around VOC": (
        train_voc.main,
        lambda _, toy: ["--data_root", toy.parent],
        "has no folder JPEGImages, as VOC 2012 has; name the folder VOC2012",
    ),
    "VOC as COCO": (
        train_coco.main,
        lambda _, toy: ["--data_root", toy],
        "instances_train2014.json does not exist; put COCO's instance annotations there",
    ),
    "a word too many": (
        command(label.main),
        lambda folder, toy: ["--classes", "cat", "dog", "--images", toy, "--out", folder],
        "the word 'dog' belongs to no flag; see --help",
    ),
    "folder as class list": (
        command(label.main),
        lambda folder, toy: ["--classes", folder, "--images", toy, "--out", folder / "out"],
        "is a folder, not a file; name a file that holds `classes: [cat, dog]`",
    ),
    "no folder of labels": (
        command(score.main),
        lambda folder, toy: ["--predictions", folder / "absent", "--masks", toy],
        "absent is not a folder; give a folder of label PNGs",
    ),
    "file as export": (
        command(export.main),
        lambda folder, toy: [*EXPORT, "--data_root", toy, "--out", text_file(folder)],
        "notes.pt cannot be made",
    ),
    "file as work_dir of a comparison": (
        command(compare_methods.main),
        lambda folder, toy: ["--data_root", toy, "--work_dir", text_file(folder)],
        "notes.pt cannot be made",
    ),
    "file as folder of weights": (
        command(download.main),
        lambda folder, _: ["clip", "--folder", text_file(folder)],
        "notes.pt cannot be made",
    ),
    "file as folder of lists": (
        PREPARED,
        lambda folder, toy: ["check", "--root", toy, "--fix_list", text_file(folder)],
        "notes.pt cannot be made",
    ),
    "no data set to check": (
        PREPARED,
        lambda folder, _: ["check", "--root", folder],
        "it has neither JPEGImages (VOC) nor annotations (COCO) nor index.json",
    ),
    "classes of VOC": (
        PREPARED,
        lambda folder, toy: ["check", "--root", toy, "--classes", "classes.yaml"],
        "--classes classes.yaml is for --dataset custom; voc has its own classes",
    ),
    "less than no toy picture": (
        PREPARED,
        lambda folder, _: ["toy", "--root", folder / "toy", "--train", -1],
        "--train -1 of the toy data set must be at least 0",
    ),
    "less than no process, where a toy set is already": (
        PREPARED,
        lambda _, toy: ["toy", "--root", toy, "--workers", -1],
        "--workers -1 must not be negative; 0 works in this process",
    ),
    "no crop": (
        command(throughput.main),
        lambda _, toy: ["--root", toy, "--crops", 320, 0],
        "--crops 0 must be at least 1",
    ),
    "no step": (
        command(pretrain_toy_clip.main),
        lambda folder, _: ["--out", folder / "new.safetensors", "--steps", 0],
        "--steps 0 must be at least 1",
    ),
    "no file for a toy CLIP": (
        command(pretrain_toy_clip.main),
        lambda _, __: ["--steps", 1],
        "the following arguments are required: --out",
    ),
    "no file for a picture": (
        command(figure.main),
        lambda _, __: ["--model_path", SHIPPED],
        "the following arguments are required: --out",
    ),
    "no multiple of heads": (
        command(pretrain_toy_clip.main),
        lambda folder, _: ["--out", folder / "new.safetensors", "--width", 100],
        "--width 100 is no multiple of 64; use e.g. 192",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_sentence_before_any_work(
    case: str, tmp_path: Path, toy_voc: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main, words, said = MISTAKES[case]
    refused(capsys, main, said, *words(tmp_path, toy_voc))
    assert {path.name for path in tmp_path.iterdir()} <= {"notes.pt"}


IDLE: dict[str, tuple[Callable[[], None], list[object], str]] = {
    "a way of the CRF without it": (
        test_msc_flip_voc.main,
        ["--model_path", SHIPPED, "--no_crf", "--crf_backend", "torch"],
        "--crf_backend torch is of the CRF, which --no_crf leaves out; give one of the two",
    ),
    "images of no seeds": (
        command(health.main),
        ["--no_seeds", "--images", 9],
        "--images 9 is of the seeds, which --no_seeds leaves out; give one of the two",
    ),
    "images of labels beside stage 2": (
        command(compare_methods.main),
        ["--labels_split", "val"],
        "--labels_split val is of --labels_only; add that, or leave it out",
    ),
    "seed of a given split": (
        PREPARED,
        [
            "custom",
            *("--images", "a", "--classes", "b", "--out", "c"),
            "--val_list",
            "d",
            "--seed",
            0,
        ],
        "--seed 0 is of a drawn split, and --val_list gives one; leave one of them out",
    ),
    "difficult objects of masks": (
        PREPARED,
        ["voc", "--tags_from", "masks", "--difficult", "true"],
        "--difficult true is of objects in the XML, and --tags_from masks reads none; leave one",
    ),
    "size of a CLIP that is there": (
        command(pretrain_toy_clip.main),
        ["--out", "new.safetensors", "--start", "toy", "--width", 192],
        "--width 192 is of a new CLIP, and --start brings its own; leave one of them out",
    ),
    "photographs for no CRF": (
        command(benchmark.main),
        ["--part", "step", "--images", "photos"],
        "--images photos is of --part crf; add one of these, or leave it out",
    ),
    "a list that is not measured": (
        command(benchmark.main),
        ["--names", 10],
        "--names 10 is of --part data; add one of these, or leave it out",
    ),
    "a second setting of nothing": (
        command(benchmark.main),
        ["--part", "crf", "data", "--against", "precision=fp32"],
        "--against precision=fp32 is of --part step, stage1, image, par, counts; add one of these",
    ),
    "repeats of what is counted": (
        command(benchmark.main),
        ["--part", "counts", "--repeats", 3],
        "--repeats 3 is of --part step, stage1, image, par, crf; add one of these",
    ),
    "a checkpoint for random regions": (
        command(benchmark.main),
        ["--model_path", SHIPPED],
        "is for the CRF on photographs; add --images DIR",
    ),
}


@pytest.mark.parametrize("case", IDLE)
def test_a_flag_that_would_do_nothing_is_refused(
    case: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    main, words, said = IDLE[case]
    refused(capsys, main, said, *words)
    assert not list(tmp_path.iterdir())


# flags that name a file, which stands at the end, and the rest of a command that works long for it
WORK: dict[str, tuple[Callable[[], None], list[object]]] = {
    "benchmark": (command(benchmark.main), ["--part", "step", "--json"]),
    "figure": (command(figure.main), ["--model_path", SHIPPED, "--out"]),
    "pretrain_toy_clip": (command(pretrain_toy_clip.main), ["--out"]),
    "report": (command(report.main), ["one", "two", "--out"]),
    "shrink": (command(shrink.main), ["--model_path", SHIPPED, "--out"]),
    "prepare tags": (PREPARED, ["tags", "--export_npy", "tags.json", "--out"]),
    "prepare submit": (PREPARED, ["submit", "voc", "--work_dir", "run", "--out"]),
    "prepare custom": (PREPARED, ["custom", "--images", "in", "--classes", "c.yaml", "--out"]),
}


@pytest.mark.parametrize("case", WORK)
def test_what_cannot_be_written_is_refused_before_the_work(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main, words = WORK[case]
    place = text_file(tmp_path) / "result.png"
    refused(capsys, main, "notes.pt is not a folder; name another file", *words, place)
    assert text_file(tmp_path).read_text() == "not weights\n"


def test_a_list_that_names_a_missing_image_is_refused(
    start: list[str], toy_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = (toy_voc / "ImageSets" / "Segmentation" / "train.txt").read_text()
    (tmp_path / "list.txt").write_text(names + "nowhere\n")
    flags = ["--train_split", tmp_path / "list.txt"]
    refused(capsys, train_voc.main, "1 of the 25 images", *start, *flags)


def test_weights_that_are_no_clip_are_refused(
    start: list[str], clip_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    half = cut(clip_file, tmp_path / "half.safetensors")
    refused(capsys, train_voc.main, "half.safetensors cannot be read", *start, "--clip_path", half)
    torch.save({"model": {"cls_token": torch.ones(1, 1, 384)}}, tmp_path / "deit.pth")
    refused(
        capsys,
        train_voc.main,
        "deit.pth is not a CLIP",
        *start,
        "--clip_path",
        tmp_path / "deit.pth",
    )


def test_a_run_folder_whose_name_is_no_text_is_refused(
    start: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / os.fsdecode(b"l\xfc")
    said = "holds bytes that are no UTF-8 text; name another folder"
    refused(capsys, train_voc.main, said, *start, "--work_dir", folder)
    assert not folder.exists()


def test_a_folder_that_holds_a_run_is_left_alone(
    trained: Path, start: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    flags = [*start, "--work_dir", trained]
    refused(capsys, train_voc.main, "already holds a run; add --resume", *flags)
    refused(
        capsys,
        train_voc.main,
        "was trained with lr 0.0002, not 0.001",
        *flags,
        "--lr",
        1e-3,
        "--resume",
    )
    assert {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()} == before


def test_checkpoints_that_cannot_be_tested_are_refused(
    trained: Path, toy_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = trained / "checkpoints" / "final.pt"
    other = torch.load(whole, weights_only=True)
    torch.save({**other, "classes": ["cat", "dog"]}, tmp_path / "other.pt")
    for path, said in (
        (cut(whole, tmp_path / "half.pt"), "half.pt cannot be read"),
        (text_file(tmp_path), "notes.pt cannot be read"),
        (tmp_path / "absent.pt", "absent.pt does not exist"),
        (tmp_path / "other.pt", "other classes (2) than voc"),
        (trained / "checkpoints" / "classifier.pt", "stage 1 alone, which has seeds"),
    ):
        refused(capsys, test_msc_flip_voc.main, said, "--model_path", path, "--data_root", toy_voc)
    stage_1 = [
        "--model_path",
        trained / "checkpoints" / "classifier.pt",
        "--out",
        tmp_path / "small.pt",
    ]
    refused(capsys, command(shrink.main), "stage 1 alone, which has seeds", *stage_1)
    onto_itself = ["--model_path", tmp_path / "other.pt", "--out", tmp_path / "other.pt"]
    refused(capsys, command(shrink.main), "is the checkpoint itself, with all that", *onto_itself)
    for flags, said in (
        (["--eval_set", "tset"], "tset.txt does not exist"),
        (["--resize_long", "0"], "--resize_long 0 must be at least 1"),
        (["--no_crff"], "unknown flag --no_crff, did you mean '--no_crf'?"),
    ):
        refused(capsys, test_msc_flip_voc.main, said, "--model_path", whole, *flags)


def test_preparing_data_refuses_as_training_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main = command(prepare.main)
    refused(
        capsys,
        main,
        "unknown flag --sizee, did you mean '--size'?",
        "toy",
        "--root",
        tmp_path / "a",
        "--sizee",
        64,
    )
    refused(
        capsys,
        main,
        "--size 8 of the toy data set must be at least 64",
        "toy",
        "--root",
        tmp_path / "a",
        "--size",
        8,
    )
    assert not list(tmp_path.iterdir())


def test_a_broken_picture_in_a_loading_process_is_one_sentence(
    start: list[str], without_masks: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for path in (without_masks / "JPEGImages").iterdir():
        cut(path, path)
    assert run(train_voc.main, *start, "--data_root", without_masks, "--workers", 1) == 2
    said = capfd.readouterr().err
    last = said.splitlines()[-1]
    assert "Traceback" not in said
    assert last.startswith("error: image ") and "cannot be read" in last


def test_a_script_runs_as_a_command_from_anywhere(tmp_path: Path) -> None:
    words = [sys.executable, ROOT / "test_msc_flip_coco.py", "--model_paht", "x"]
    ran = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, len(ran.stderr.splitlines())) == (2, "", 1)
    assert ran.stderr.startswith("error: ")


# Runs the scripts of argv with a wrong flag, each as if it were the first, and prints their exit
# statuses. PyTorch, which takes seconds to load, they share.
ONE_BY_ONE = """
import runpy, sys
usual = sys.path.copy()
for script in sys.argv[1:]:
    sys.path[:] = usual
    for name in [*sys.modules]:
        if name.partition(".")[0] in ("clip", "datasets", "model", "utils"):
            del sys.modules[name]
    sys.argv = [script, "--absent", "x"]
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as ended:
        print(ended.code)
"""


def test_scripts_find_their_packages_where_python_does_not_look_beside_them(
    tmp_path: Path,
) -> None:
    scripts = sorted(ROOT.glob("*.py"))
    ran = subprocess.run(
        [sys.executable, "-c", ONE_BY_ONE, *scripts],
        cwd=tmp_path,
        env={**os.environ, "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = ran.stderr.splitlines()
    assert ran.stdout.split() == ["2"] * len(scripts), ran.stderr
    assert len(lines) == len(scripts) == 4
    assert all(line.startswith("error: ") for line in lines)
