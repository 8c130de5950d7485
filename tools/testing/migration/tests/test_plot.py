# SPDX-License-Identifier: GPL-2.0
"""A picture of lines: each point is where its figures say, and nothing depends on colour alone."""

import math
import re
from xml.etree import ElementTree

import pytest

from lab.tell import plot

LINES = {"released": [(2, 1.0), (8, 7.0), (512, 511.0)], "series.flush": [(2, 0.0), (512, 0.0)]}


def points(svg: str) -> list[list[tuple[float, float]]]:
    return [[(float(x), float(y)) for x, y in (pair.split(",") for pair in one.split())]
            for one in re.findall(r'points="([^"]*)"', svg)]


def texts(svg: str) -> list[str]:
    return [one.text or "" for one in ElementTree.fromstring(svg).iter("text")]


def test_x_is_a_logarithm_and_0_has_a_place() -> None:
    svg = plot.draw("faults", LINES, "sharers")
    (three, two) = points(svg)
    x = [one for one, _y in three]
    assert math.isclose((x[1] - x[0]) / (x[2] - x[0]), 2 / 8, abs_tol=0.01)
    assert [one for one, _y in two] == [x[0], x[2]]
    floor = two[0][1]
    assert two[1][1] == floor > three[0][1] > three[1][1] > three[2][1]
    assert texts(svg)[0] == "faults" and {"0", "1", "10", "100", "1000"} <= set(texts(svg))
    assert {"2", "8", "512", "sharers", "released", "series.flush"} <= set(texts(svg))


@pytest.mark.parametrize("highest, ticks", [
    (100.0, ["0", "50", "100"]), (3.0, ["0", "1", "2", "3"]), (0.0, ["0", "1"]),
    (0.4, ["0", "0.1", "0.2", "0.3", "0.4"]), (7.0, ["0", "2", "4", "6", "8"])])
def test_what_is_small_is_linear(highest: float, ticks: list[str]) -> None:
    svg = plot.draw("x", {"a": [(2, highest / 2), (4, highest)]}, "n")
    assert texts(svg)[1:1 + len(ticks)] == ticks
    assert all(0 <= y <= 230 and 0 <= x <= 340 for one in points(svg) for x, y in one)


def test_lines_differ_by_more_than_colour() -> None:
    svg = plot.draw("x", {name: [(1, 1), (2, 2)] for name in ("a", "b", "c")}, "n")
    assert len(set(re.findall(r"stroke-dasharray", svg))) == 1
    kinds = [one.tag for one in ElementTree.fromstring(svg) if one.tag in ("rect", "circle", "path")]
    assert {"rect", "circle", "path"} == set(kinds) and len(kinds) == 9


def test_names_cannot_break_it_and_it_is_told_in_words() -> None:
    svg = plot.draw('<b>"x"</b>', {"<i>": [(2, 1), (4, 250)]}, "n")
    top = ElementTree.fromstring(svg)
    assert [one.text for one in top.iter("desc")] == ["<i>: 1 at 2, 250 at 4 (n)"]


def test_one_point_is_no_reason_to_fail() -> None:
    assert points(plot.draw("x", {"a": [(8, 3)]}, "n"))
