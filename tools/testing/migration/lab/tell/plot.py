# SPDX-License-Identifier: GPL-2.0
"""Draws figures that grow with something as lines in an SVG picture.

Along x is the logarithm.  Along y it is too, of one more than the figure, so that 0 has a place;
but not where nothing is above 100, as percents.  Lines differ by their colour, dashes and marks,
so that the picture can be read in grey.
"""

import math
from collections.abc import Mapping, Sequence

from lab.tell.html import element, text

# Pixels: the whole, and around the field.
_WIDTH, _HEIGHT = 340, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 18, 30, 58
# Colours that people tell apart who see few of them.
_STYLES = (("#555555", "2 3", "square"), ("#0072b2", "", "circle"), ("#d55e00", "7 3", "triangle"),
           ("#009e73", "9 3 2 3", "circle"))
_MOST_ON_LINEAR = 100

Points = Sequence[tuple[float, float]]


def draw(title: str, lines: Mapping[str, Points], along: str) -> str:
    """The picture of `lines`, by their names; `along` says what x is.  x is above 0, y not below."""
    across = sorted({x for points in lines.values() for x, _y in points})
    highest = max(y for points in lines.values() for _x, y in points)
    linear = highest <= _MOST_ON_LINEAR
    ticks = _linear(highest) if linear else _logarithmic(highest)
    span = math.log2(across[-1] / across[0]) or 1

    def at_x(x: float) -> float:
        return round(_LEFT + (_WIDTH - _LEFT - _RIGHT) * math.log2(x / across[0]) / span, 1)

    def at_y(y: float) -> float:
        part = y / ticks[-1] if linear else math.log1p(y) / math.log1p(ticks[-1])
        return round(_HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * part, 1)

    parts = [element("title", text(title)), element("desc", text(_said(lines, along))),
             _words(_LEFT, 16, title, "start", weight="bold")]
    for tick in ticks:
        parts += [_line(_LEFT, at_y(tick), _WIDTH - _RIGHT, at_y(tick), "#cccccc"),
                  _words(_LEFT - 5, at_y(tick) + 4, f"{tick:g}", "end")]
    floor = _HEIGHT - _BOTTOM
    for x in across:
        parts += [_line(at_x(x), floor, at_x(x), floor + 4, "#888888"),
                  _words(at_x(x), floor + 17, f"{x:g}", "middle")]
    parts.append(_words(_WIDTH - _RIGHT, floor + 33, along, "end"))
    left = float(_LEFT)
    for number, (name, points) in enumerate(lines.items()):
        colour, dashes, mark = _STYLES[number % len(_STYLES)]
        places = [(at_x(x), at_y(y)) for x, y in points]
        parts.append(element("polyline", points=" ".join(f"{x},{y}" for x, y in places),
                             fill="none", stroke=colour, stroke_width=2,
                             stroke_dasharray=dashes or None))
        parts += [_mark(mark, x, y, colour) for x, y in places]
        parts += [_mark(mark, left + 5, _HEIGHT - 10, colour),
                  _words(left + 13, _HEIGHT - 6, name, "start")]
        left += 25 + 6.5 * len(name)
    return element("svg", "".join(parts), viewBox=f"0 0 {_WIDTH} {_HEIGHT}", width=_WIDTH,
                   height=_HEIGHT, role="img", font_family="sans-serif", font_size=11)


def _linear(highest: float) -> list[float]:
    """From 0 on, in four or five steps of 1, 2 or 5 of a power of ten."""
    rough = max(highest, 1e-9) / 4
    power = 10 ** math.floor(math.log10(rough))
    step = min((size * power for size in (1, 2, 5, 10) if size * power >= rough), default=rough)
    return [number * step for number in range(math.ceil(highest / step - 1e-9) + 1)] \
        if highest > 0 else [0, 1]


def _logarithmic(highest: float) -> list[float]:
    return [0, *(10.0 ** power for power in range(math.ceil(math.log10(highest)) + 1))]


def _said(lines: Mapping[str, Points], along: str) -> str:
    """For those who do not see it."""
    return "; ".join(f"{name}: " + ", ".join(f"{y:.3g} at {x:g}" for x, y in points)
                     for name, points in lines.items()) + f" ({along})"


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, stroke=colour)


def _words(x: float, y: float, words: str, anchor: str, weight: str | None = None) -> str:
    return element("text", text(words), x=x, y=y, text_anchor=anchor, font_weight=weight,
                   fill="#222222")


def _mark(kind: str, x: float, y: float, colour: str) -> str:
    if kind == "circle":
        return element("circle", cx=x, cy=y, r=3.5, fill=colour)
    if kind == "square":
        return element("rect", x=x - 3, y=y - 3, width=6, height=6, fill=colour)
    return element("path", d=f"M{x - 4},{y + 3}L{x + 4},{y + 3}L{x},{y - 4}Z", fill=colour)
