"""Parity with the published arithmetic: CVF_GOLDEN names a folder of .npz files; some are kept in
tests/data/golden.

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

FOLDER = Path(os.environ.get("CVF_GOLDEN") or Path(__file__).resolve().parent)
FILES = sorted(FOLDER.glob("*.npz"))


def test_there_are_golden_files():
    assert FILES, f"{FOLDER} holds no .npz file"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_parity(path: Path):
    golden = GoldenFile(path)
    check = {**PARTS, **WHOLE, **TOY}.get(golden.config["case"])
    assert check, f"no check for case {golden.config['case']!r}"
    check(golden)
    assert not golden.unread, f"no check reads {sorted(golden.unread)}"
