"""Parity of the family's parts with their authors' arithmetic: CVF_GOLDEN_FAMILY names the folder.

Small files of our own folder always run. An array that no check reads must stand in NOT_OURS.
"""

import os
from pathlib import Path

import pytest
from golden_dino import check_dino
from golden_excel import check_excel
from golden_family import FAMILY, NOT_OURS
from golden_file import GoldenFile
from golden_weclip import check_weclip
from golden_weclip_plus import check_step, check_weclip_plus

OWN = Path(__file__).resolve().parent / "family"
FOLDERS = {"own": OWN}
if given := os.environ.get("CVF_GOLDEN_FAMILY"):
    FOLDERS["given"] = Path(given)
FILES = {
    f"{origin}-{path.stem}": path
    for origin, folder in FOLDERS.items()
    for path in sorted(folder.glob("*.npz"))
}
CHECKS = {
    **FAMILY,
    "dinov2": check_dino,
    "excel_forward": check_excel,
    "weclip_forward": check_weclip,
    "weclip_forward_coco": check_weclip,
    "weclip_plus_forward": check_weclip_plus,
    "weclip_plus_forward_coco": check_weclip_plus,
    "weclip_plus_step": check_step,
}


def case_of(path: Path) -> str:
    """The case a file belongs to: its name without the seed."""
    return path.stem.rpartition("_s")[0]


@pytest.mark.parametrize("path", FILES.values(), ids=FILES.keys())
def test_parity(path: Path) -> None:
    case = case_of(path)
    golden = GoldenFile(path)
    CHECKS[case](golden)
    foreign = NOT_OURS.get(case, {})
    unread = {name for name in golden.unread if not any(part in name for part in foreign)}
    assert not unread, f"no check reads {sorted(unread)}"
    for part in foreign:
        assert any(part in name for name in golden.unread), f"NOT_OURS names {part} for nothing"
