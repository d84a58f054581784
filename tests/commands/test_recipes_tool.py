"""The list of recipes: complete, and the same in configs/README.md."""

import pytest
import yaml
from helpers import ROOT, run

from utils.common.entry import command
from utils.config import CONFIGS, RECIPES
from utils.tools import recipes


def test_every_configuration_that_stands_on_a_recipe_is_listed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ours = {"recipes/best.yaml"}  # reproduces nobody
    fragments = {f"recipes/{file.name}" for file in RECIPES.glob("*.yaml")} - ours
    standing = set()
    for file in CONFIGS.glob("*.yaml"):
        base = yaml.safe_load(file.read_text()).get("base", [])
        if fragments.intersection([base] if isinstance(base, str) else base):
            standing.add(file.stem)
    assert standing == {recipe.name for recipe in recipes.RECIPES}

    assert run(command(recipes.main)) == 0
    said = capsys.readouterr().out
    for name in standing:
        assert f"--config {name}" in said
    assert max(map(len, said.splitlines())) < 150  # addresses are not broken


def test_the_page_of_configurations_has_the_same_table() -> None:
    page = (ROOT / "configs" / "README.md").read_text(encoding="utf-8")
    assert recipes.markdown() in page, "put what `recipes --markdown` prints into the page"


def test_every_recipe_has_numbers_of_its_authors_with_their_pages() -> None:
    for recipe in recipes.RECIPES:
        assert recipe.numbers
        assert all(each.address.startswith("https://") for each in recipe.numbers)
