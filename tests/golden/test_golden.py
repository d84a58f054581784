"""Parity with the published arithmetic, and with our own as it was frozen (tests/golden/README.md).

The files of this folder always run; those of the folder that CVF_GOLDEN names run in addition.
Every array of every file is an input or is compared: one that no check reads fails the test, and so
does a file of an unknown case. Sizes, class sets and seeds come from the files.
"""

import os
from pathlib import Path

import pytest
from golden_file import GoldenFile
from golden_parts import PARTS
from golden_toy import TOY
from golden_whole import WHOLE

FOLDERS = {"own": Path(__file__).resolve().parent}
if given := os.environ.get("CVF_GOLDEN"):
    FOLDERS["given"] = Path(given)
FILES = {
    f"{origin}-{path.stem}": path
    for origin, folder in FOLDERS.items()
    for path in sorted(folder.glob("*.npz"))
}


@pytest.mark.parametrize("origin", FOLDERS)
def test_there_are_golden_files(origin: str):
    assert any(FOLDERS[origin].glob("*.npz")), f"{FOLDERS[origin]} holds no .npz file"


@pytest.mark.parametrize("path", FILES.values(), ids=FILES.keys())
def test_parity(path: Path):
    golden = GoldenFile(path)
    check = {**PARTS, **WHOLE, **TOY}.get(golden.config["case"])
    assert check, f"no check for case {golden.config['case']!r}"
    check(golden)
    assert not golden.unread, f"no check reads {sorted(golden.unread)}"
