# SPDX-License-Identifier: GPL-2.0
"""Draws a timeline as SVG, in HTML.

All that lies along the time has its place in percent, all else in pixels, and there is no viewBox:
a picture is as wide as the page, on a phone too, and its letters are as large as all others.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from lab.judge.timeline import Pause, Timeline, Write, Writer
from lab.tell.html import element, text
from lab.words import plural

# Heights in pixels.
_LABEL, _BAR, _TICK, _GAP, _AXIS = 17, 8, 11, 9, 26
# Parts of the picture: a pause that is shorter is left to the eye; one that has room on a phone for
# its length, and for more words.
_SHORTEST, _NUMBER, _SENTENCE = 0.03, 0.12, 0.33


@dataclass(frozen=True)
class Scale:
    """Microseconds of a picture as percent of its width."""

    begin: int
    end: int

    @classmethod
    def of(cls, timelines: Sequence[Timeline]) -> "Scale":
        """One that all of `timelines` go into."""
        spans = [timeline.span() for timeline in timelines]
        return cls(min(begin for begin, _ in spans), max(end for _, end in spans))

    def length(self) -> int:
        return max(self.end - self.begin, 1)

    def at(self, us: float) -> float:
        """Where on the picture, with room for half a line at both ends."""
        return 0.2 + 99.6 * (us - self.begin) / self.length()

    def x(self, us: float) -> str:
        return f"{self.at(us):.2f}%"

    def width(self, begin: float, end: float) -> str:
        return f"{max(self.at(end) - self.at(begin), 0.2):.2f}%"

    def shortest_pause(self) -> float:
        return _SHORTEST * self.length()


def ms(us: float) -> str:
    """A time for people."""
    return f"{us / 1000:.0f} ms" if abs(us) >= 99_500 else f"{us / 1000:.1f} ms"


def draw(timeline: Timeline, scale: Scale, name: str, title: str, description: str) -> str:
    """The picture of `timeline`; `name` is one that no other element of the page begins with."""
    lanes: list[str] = []
    y = 2
    for lane, height in (_call(timeline, scale, y), *_places(timeline, scale, y)):
        lanes.append(lane)
        y += height
    top = y
    window, height = _window(timeline, scale, y)
    lanes.append(window)
    y += height
    for writer in timeline.writers:
        lane, height = _writer(writer, timeline, scale, y)
        lanes.append(lane)
        y += height
    back = [_line(scale.x(us), top, scale.x(us), y, "edge") for us in (0, timeline.call_us)]
    if span := timeline.window():
        back.insert(0, _rect(scale, *span, top, y - top, "open"))
    lanes.append(_axis(scale, y))
    y += _AXIS
    return element(
        "svg", "\n".join([element("title", text(title), id=f"{name}-title"),
                          element("desc", text(description), id=f"{name}-desc"), *back, *lanes]),
        class_="timeline", width="100%", height=y, role="img",
        aria_labelledby=f"{name}-title {name}-desc")


def _line(x1: str, y1: float, x2: str, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>'


def _rect(scale: Scale, begin: float, end: float, y: float, height: float, kind: str) -> str:
    if end < begin or end == begin and kind not in ("open", "call"):
        return ""
    return (f'<rect class="{kind}" x="{scale.x(begin)}" y="{y}" '
            f'width="{scale.width(begin, end)}" height="{height}"/>')


def _words(x: str, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    return element("text", text(words), x=x, y=y, class_=kind or None,
                   text_anchor=None if anchor == "start" else anchor)


def _beside(scale: Scale, us: float, y: float, words: str, kind: str) -> str:
    """Words near a moment, on that side of it where there is room."""
    where = scale.at(us)
    anchor = "start" if where < 25 else "end" if where > 75 else "middle"
    return _words(f"{where:.2f}%", y, words, kind, anchor)


def _call(timeline: Timeline, scale: Scale, y: int) -> tuple[str, int]:
    begin, end = 0, timeline.call_us
    return (_words("0", y + 12, f"the call that moves the page: {ms(end)}")
            + _rect(scale, begin, end, y + _LABEL, _BAR, "call"), _LABEL + _BAR + _GAP)


def _places(timeline: Timeline, scale: Scale, y: int) -> list[tuple[str, int]]:
    """Two lanes: where the page was, where it is.  During the call neither is the whole truth."""
    y += _LABEL + _BAR + _GAP
    step = _LABEL + _BAR + _GAP
    old = (_words("0", y + 12, f"old place: node {timeline.node_before}, PFN {timeline.pfn_before}")
           + _rect(scale, scale.begin, 0, y + _LABEL, _BAR, "used")
           + _rect(scale, 0, timeline.call_us, y + _LABEL, _BAR, "between")
           + _rect(scale, timeline.call_us, scale.end, y + _LABEL, _BAR, "unread"))
    y += step
    new = (_words("0", y + 12, f"new place: node {timeline.node_after}, PFN {timeline.pfn_after}")
           + _rect(scale, 0, timeline.call_us, y + _LABEL, _BAR, "between")
           + _rect(scale, timeline.call_us, scale.end, y + _LABEL, _BAR, "used"))
    return [(old, step), (new, step)]


def _window(timeline: Timeline, scale: Scale, y: int) -> tuple[str, int]:
    span = timeline.window()
    if not span:
        # What was lost may be too little to be among the writes known of.
        words = ("writes are lost, but none of these", "loss") if timeline.lost_words else \
            ("no window: every write is found", "shut")
        return _words("0", y + 12, *words), _LABEL + _GAP // 2
    begin, end = span
    return (_beside(scale, (begin + end) / 2, y + 12, f"the window: {ms(end - begin)}", "loss"),
            _LABEL + _GAP // 2)


def _writer(writer: Writer, timeline: Timeline, scale: Scale, y: int) -> tuple[str, int]:
    """A lane with a line in the middle.  Above it are the writes that are in the page in use, below
    it those that are not; where it breaks off the process wrote nothing."""
    middle = y + _LABEL + _TICK + 3
    pauses = writer.pauses(scale.shortest_pause())
    parts = [_words("0", y + 12, f"process {writer.number}, CPU {writer.cpu}"),
             _words("100%", y + 12, f"{plural(writer.faults, 'page faults')}", "fine", "end")]
    for one, two in zip(writer.known, writer.known[1:]):
        if Pause(one.us, two.us) in pauses:
            continue
        if one.lost == two.lost:
            parts.append(_rect(scale, one.us, two.us, middle if one.lost else middle - 3, 3,
                               "lost" if one.lost else "kept"))
    for write in _marks(writer, pauses, scale):
        x = scale.x(write.us)
        if write.lost:
            parts.append(_line(x, middle, x, middle + _TICK, "lost")
                         + f'<circle class="lost" cx="{x}" cy="{middle + _TICK}" r="2.2"/>')
        else:
            parts.append(_line(x, middle - _TICK, x, middle, "kept"))
    for pause in pauses:
        parts.append(_line(scale.x(pause.begin), middle, scale.x(pause.end), middle, "pause"))
    if pauses:
        longest = max(pauses, key=lambda pause: pause.end - pause.begin)
        length = longest.end - longest.begin
        words = ("no write for " if length >= _SENTENCE * scale.length() else "") + ms(length)
        # On the side where there are no marks: after a lost write they are below the line.
        lost = any(write.lost for write in writer.known if write.us == longest.begin)
        if length >= _NUMBER * scale.length():
            parts.append(_beside(scale, (longest.begin + longest.end) / 2,
                                 middle - 5 if lost else middle + 14, words, "fine"))
    return "".join(parts), _LABEL + 2 * _TICK + 8 + _GAP


def _marks(writer: Writer, pauses: Sequence[Pause], scale: Scale) -> list[Write]:
    """The writes to mark: not closer than a phone can show, for more is known of late writes than
    of early ones, and that is not to look as if there were more; but all that begin or end
    something."""
    closest = 0.011 * scale.length()
    ends = {us for pause in pauses for us in (pause.begin, pause.end)}
    known = writer.known
    marks: list[Write] = []
    for place, write in enumerate(known):
        near = known[max(place - 1, 0):place + 2]
        if (place in (0, len(known) - 1) or write.us in ends
                or any(one.lost != write.lost for one in near)
                or write.us - marks[-1].us >= closest):
            marks.append(write)
    return marks


def _axis(scale: Scale, y: int) -> str:
    parts = [_line("0", y, "100%", y, "axis")]
    step = _step(scale.length())
    us = -(-scale.begin // step) * step
    while us <= scale.end:
        where = scale.at(us)
        anchor = "start" if where < 5 else "end" if where > 92 else "middle"
        number = f"{us / 1000:.{_digits(step)}f}"
        parts.append(_line(scale.x(us), y, scale.x(us), y + 4, "axis"))
        parts.append(_words(f"{where:.2f}%", y + 17,
                            f"{number} ms" if us + step > scale.end else number, "fine", anchor))
        us += step
    return "".join(parts)


def _step(length: int) -> int:
    """Between two figures of the axis, of which a phone has room for eight."""
    step = 1
    while length / step > 7:
        step = step * 5 // 2 if str(step).startswith("2") else step * 2
    return step


def _digits(step: int) -> int:
    """Of a time in milliseconds, behind the point, that tell steps of `step` microseconds apart."""
    return max(0, 4 - len(str(step)))
