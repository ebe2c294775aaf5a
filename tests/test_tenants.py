"""The plot of fair shares is made as people make it, by a program; what it prints and draws is read."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from .programs import run

NAMES = ["crowd", "modest", "paying"]
OPTIONS: dict[str, Any] = {"env": {**os.environ, "PYTHONWARNINGS": "error"}, "stdin": subprocess.DEVNULL}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What the program has printed, and the folder in which it ran."""
    folder = tmp_path_factory.mktemp("tenants")
    done = run("tenants.py", "--work", "800", cwd=folder, **OPTIONS)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout, folder


def test_only_fair_shares_give_everybody_a_turn(made: tuple[str, Path]) -> None:
    """First come first served is the first one's alone; with FairShare, starts are shared by weight: 1 to 1 to 2."""
    alone, fair = (
        [float(share) for share in re.findall(r"([\d.]+) %", line)]
        for line in made[0].splitlines()
        if "Starts while all three had work" in line
    )
    assert alone == [100, 0, 0]
    assert fair == pytest.approx([25, 25, 50], abs=1.5)


def test_both_runs_have_a_table(made: tuple[str, Path]) -> None:
    """Each run has a row for each tenant, with its work, its weight, and four times."""
    for part in (made[0].partition("With FairShare")[0], made[0].partition("With FairShare")[2]):
        rows = [re.split(r"\s{2,}", line.strip()) for line in part.splitlines() if line.rstrip().endswith(" ms")]
        assert [row[:3] for row in rows] == [["crowd", "800", "1"], ["modest", "80", "1"], ["paying", "80", "2"]]
        assert all(len(row) == 7 for row in rows)


def test_the_plot_is_an_svg_file_with_everybody_in_it(made: tuple[str, Path]) -> None:
    """The plot is well-formed; it names the tenants, and has one area for each of them in both panels."""
    output, folder = made
    assert "The plot: tenants.svg" in output
    assert os.listdir(folder) == ["tenants.svg"]
    picture = ElementTree.parse(folder / "tenants.svg").getroot()
    svg = "{http://www.w3.org/2000/svg}"
    assert picture.tag == f"{svg}svg"
    words = [text.text or "" for text in picture.iter(f"{svg}text")]
    for name in NAMES:
        assert words.count(f"{name} done") == 2, "in each panel"
        assert sum(word.startswith(f"{name}, ") for word in words) == 1, "in the legend"
    assert [word for word in words if "share of the starts" in word] == [
        "First come, first served: share of the starts",
        "With FairShare: share of the starts",
    ]
    areas = list(picture.iter(f"{svg}polygon"))
    assert len(areas) == 2 * len(NAMES)
    for area in areas:
        points = [tuple(map(float, point.split(","))) for point in area.attrib["points"].split()]
        width, height = float(picture.attrib["width"]), float(picture.attrib["height"])
        assert all(0 <= x <= width and 0 <= y <= height for x, y in points)


@pytest.mark.parametrize("options", [["--work", "99"], ["--output", "nowhere/tenants.svg"]])
def test_bad_options_are_refused(tmp_path: Path, options: list[str]) -> None:
    """What cannot be done is refused at once, with the name of the option."""
    done = run("tenants.py", *options, cwd=tmp_path, **OPTIONS)
    assert done.returncode == 2
    assert options[0] in done.stderr


def test_a_plot_that_cannot_be_written_is_a_message(tmp_path: Path) -> None:
    """The table is printed all the same, and there is no stack trace."""
    done = run("tenants.py", "--work", "100", "--output", tmp_path, cwd=tmp_path, **OPTIONS)
    assert done.returncode == 1
    assert "With FairShare" in done.stdout
    assert done.stderr.startswith("tenants.py: the plot cannot be written to ")
    assert "Traceback" not in done.stderr
