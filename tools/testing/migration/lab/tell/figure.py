# SPDX-License-Identifier: GPL-2.0
"""The figure of a test: what both kernels did to writes, in words, as pictures and in figures."""

from dataclasses import dataclass

from lab.judge.timeline import Timeline
from lab.tell import picture as drawing
from lab.tell.html import element, table, text
from lab.tell.picture import Scale, ms
from lab.words import plural

# Of processes, as a sentence begins with them.
_NUMBERS = ("No process", "One process", "Two processes", "Three processes", "Four processes")


@dataclass(frozen=True)
class Picture:
    """What a test saw of one migration on each of the two kernels, where it saw one."""

    test: str
    vulnerable: Timeline | None
    fixed: Timeline | None

    def timelines(self) -> list[Timeline]:
        return [one for one in (self.vulnerable, self.fixed) if one is not None]

    def processes(self) -> int:
        return max(len(one.writers) for one in self.timelines())

    def short(self) -> str:
        """The name of the test, which has three parts, by the part that says what it does."""
        return self.test.split(".")[1] if self.test.count(".") == 2 else self.test

    def kernels(self) -> list[tuple[str, Timeline | None]]:
        return [("vulnerable", self.vulnerable), ("fixed", self.fixed)]


def draw(name: str, picture: Picture) -> str:
    """The sentence that explains it, the signs, both kernels on one scale, and the figures."""
    scale = Scale.of(picture.timelines())
    parts = [f"<p>{text(explain(picture, scale))}</p>", _legend()]
    for kernel, timeline in picture.kernels():
        if timeline is None:
            parts.append(f'<p class="fine">The {kernel} kernel printed no timeline of it.</p>')
            continue
        parts.append(f'<p class="kernel"><b>The {kernel} kernel</b></p>')
        parts.append(drawing.draw(timeline, scale, f"{name}-{kernel}",
                                  f"Writes during a migration on the {kernel} kernel",
                                  _told(kernel, timeline, scale)))
    parts.append(
        '<p class="fine">Time is in milliseconds since the call began. Each mark is a write of '
        "which the test knows when it was made and whether the page in use holds it; between two "
        "marks a process made many others. When in the call the kernel copied the page cannot be "
        f"seen from outside. From the test {text(picture.short())}: {_calls(picture)}.</p>")
    return element("figure", "\n".join(parts) + _told_table(picture, scale))


def _calls(picture: Picture) -> str:
    return ", ".join(f"call {one.call} on the {kernel} kernel"
                     for kernel, one in picture.kernels() if one is not None)


def explain(picture: Picture, scale: Scale) -> str:
    """What is to be seen, in words; of the data, so that a picture of another thing says so."""
    count = picture.processes()
    who = _NUMBERS[count] if count < len(_NUMBERS) else f"{count} processes"
    begin = (f"{who} {'writes' if count == 1 else 'write'} to one huge page without a break, while "
             "another has the kernel move it to a new place.")
    return " ".join([begin, *(_told(kernel, one, scale)
                              for kernel, one in picture.kernels() if one is not None)])


def _told(kernel: str, timeline: Timeline, scale: Scale) -> str:
    """What happened on a kernel, in a sentence or two."""
    known = sum(len(writer.known) for writer in timeline.writers)
    lost = sum(len(writer.lost) for writer in timeline.writers)
    span = timeline.window()
    if span:
        return (f"On the {kernel} kernel the old page is still written to after its contents were "
                f"copied: from {ms(span[0])} to {ms(span[1])} writes fall into it, where nobody "
                f"will ever read them. Of {known} writes of which the test can tell, {lost} are "
                "lost.")
    # A process that was asleep for another reason has a pause as well, but takes no fault for it.
    waited = [max(pause.end - pause.begin for pause in pauses) for writer in timeline.writers
              if writer.faults and (pauses := [
                  pause for pause in writer.pauses(scale.shortest_pause())
                  if pause.begin < timeline.call_us and pause.end > 0])]
    why = ""
    if waited:
        count = len(timeline.writers)
        who = "it takes" if count == 1 else (
            "each of them takes" if len(waited) == count else f"{len(waited)} of {count} took")
        why = (f" {who} page faults, with no write for {ms(max(waited))} at most, until the page "
               "is in its new place;")
    words = f"all {known} writes of which the test can tell are found"
    if timeline.lost_words:
        words += f", though the page lacked {plural(timeline.lost_words, 'writes')} of others"
    return f"On the {kernel} kernel{why} {words}."


def _told_table(picture: Picture, scale: Scale) -> str:
    rows = []
    for kernel, timeline in picture.kernels():
        for writer in timeline.writers if timeline else ():
            pauses = [pause.end - pause.begin for pause in writer.pauses(scale.shortest_pause())]
            rows.append((
                f"{kernel}, process {writer.number}", str(writer.writes),
                f"{len(writer.known) - len(writer.lost)}", f"{len(writer.lost)}",
                f"{ms(writer.lost[0].us)} to {ms(writer.lost[-1].us)}" if writer.lost else "-",
                ms(max(pauses)) if pauses else "-", str(writer.faults)))
    head = ("", "writes", "known: found", "known: lost", "lost between", "longest pause",
            "page faults")
    return ("<details><summary>The same in figures</summary>"
            + table(head, rows, "What the picture shows") + "</details>")


def _legend() -> str:
    signs = (
        ('<rect class="used" x="1" y="5" width="26" height="8"/>', "the page in use"),
        ('<rect class="between" x="1" y="5" width="26" height="8"/>', "on its way"),
        ('<rect class="unread" x="1" y="5" width="26" height="8"/>', "nobody reads it any more"),
        ('<path class="kept" d="M5 14V3M12 14V3M19 14V3M26 14V3"/>', "a write that is found"),
        ('<path class="lost" d="M5 3V12M14 3V12M23 3V12"/>'
         + "".join(f'<circle class="lost" cx="{x}" cy="13" r="2.2"/>' for x in (5, 14, 23)),
         "a write that is lost"),
        ('<line class="pause" x1="1" y1="9" x2="27" y2="9"/>', "nothing is written"),
        ('<rect class="open" x="1" y="1" width="26" height="16"/>', "the window"))
    return '<ul class="legend">' + "".join(
        f'<li><svg class="timeline" width="28" height="18" aria-hidden="true">{sign}</svg> '
        f"{words}</li>" for sign, words in signs) + "</ul>"
