"""What tests of pictures, masks and tags share."""

from pathlib import Path

import pytest
from exported import FILES, HEIGHT, WIDTH
from PIL import Image

from utils.common.console import begin_notices


@pytest.fixture(autouse=True)
def notices() -> None:
    """Let every test hear every notice."""
    begin_notices()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Make the pictures of FILES."""
    for file in FILES:
        (tmp_path / "photos" / file).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (WIDTH, HEIGHT), (90, 20, 0)).save(tmp_path / "photos" / file)
    return tmp_path / "photos"
