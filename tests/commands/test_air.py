"""The report on how airy the source is, by values counted by hand."""

import sys

import pytest

from utils.tools.air import Air, air_of, main, report, total

DENSE = "\n".join(["def packed(a):", '    """Do.', "", '    More."""', "", *["    a += 1"] * 10])
AIRY = "\n".join(["def steps(a):", *["    a += 1"] * 7, "", *["    a += 1"] * 6])
SHORT = "\n".join(["def short(a):", "", *["    a += 1"] * 12])


@pytest.mark.parametrize(("text", "long", "airy"), [(DENSE, 1, 0), (AIRY, 1, 1), (SHORT, 0, 0)])
def test_air_is_an_empty_line_between_the_steps_of_a_long_function(
    text: str, long: int, airy: int
) -> None:
    found = air_of(text)
    assert (found.long, found.airy) == (long, airy)


def test_packed_assignments_conditional_expressions_and_wide_lines_are_counted() -> None:
    text = "\n".join(
        [
            "a, b = 1, 2",  # packed
            "a, b = divmod(7, 2)",
            "c = a if b else (b if a else 0)",  # two
            "if a:",
            "    c = (1, 2)",
            f"# {'x' * 98}",  # 100 characters
            f"# {'x' * 99}",  # wide
        ]
    )
    assert air_of(text) == Air(lines=7, packed=1, conditional=2, wide=1)


def test_rates_are_per_thousand_lines_and_shares_of_long_functions() -> None:
    one = Air(lines=300, long=3, airy=1, packed=1, conditional=3, wide=0)
    other = Air(lines=200, long=1, airy=1, packed=1, conditional=0, wide=2)
    assert total([one, other]) == Air(500, 4, 2, 2, 3, 2)

    row = report({"all": total([one, other])}).splitlines()[1]
    assert row.split() == ["all", "500", "4", "50%", "4.0", "6.0", "2"]
    assert report({"none": Air()}).splitlines()[1].split()[3] == "-"


def test_the_command_prints_a_row_of_each_package_and_of_all(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["air"])
    main()

    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:-1]]
    assert [row[0] for row in rows] == ["clip", "datasets", "model", "utils", "scripts", "all"]
    lines = [int(row[1].replace(",", "")) for row in rows]
    assert sum(lines[:-1]) == lines[-1] > 1000
