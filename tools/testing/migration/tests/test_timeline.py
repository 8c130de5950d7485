# SPDX-License-Identifier: GPL-2.0
"""Timelines: read from a log or not at all, kept in verdict.json, and what can be told from them.

golden/timeline-*.ktap are not of a boot: they were made up to hold what a log may.
"""

import re

import pytest
from runs import boot, golden, run, told as told_by

from lab.judge import ktap, timeline
from lab.judge.timeline import Pause, Timeline

SMALL, LARGE = (f"hugetlb_pmd_migrate.hugetlbfs_migrate_pages_{number}.lost_write"
                for number in (2, 4))
HEAD = ("timeline call=3 page=1 node=1->0 pfn=0x100->0x2f00 call_us=1000 hot=yes lost_words=7 "
        "writers=1")
WRITER = "timeline writer=1 cpu=2 faults=4 writes=900 kept=-50:10,0:20 lost=50:30,400:40"


def log(variant: str) -> str:
    return golden(f"timeline-{variant}.ktap")


def read(variant: str, test: str = LARGE) -> Timeline:
    [found] = [one for one in ktap.read(log(variant)).tests() if one.name == test]
    made = timeline.read(found.name, timeline.lines_of(found.notes))
    assert made
    return made


def test_every_field_is_read() -> None:
    made = timeline.read("t", [HEAD, WRITER])
    assert made
    assert (made.test, made.call, made.page, made.node_before, made.node_after) == ("t", 3, 1, 1, 0)
    assert (made.pfn_before, made.pfn_after, made.call_us) == ("0x100", "0x2f00", 1000)
    assert made.hot and made.lost_words == 7
    [writer] = made.writers
    assert (writer.number, writer.cpu, writer.faults, writer.writes) == (1, 2, 4, 900)
    assert [(one.us, one.number, one.lost) for one in writer.known] == \
        [(-50, 10, False), (0, 20, False), (50, 30, True), (400, 40, True)]
    assert made.window() == (50, 400) and made.span() == (-50, 1000)


@pytest.mark.parametrize("lines", [
    [], [HEAD], [WRITER], [HEAD, WRITER, WRITER], [WRITER, HEAD],
    [HEAD.replace("writers=1", "writers=0")],
    [HEAD.replace("writers=1", "writers=2"), WRITER, WRITER],           # number 1 twice
    [HEAD.replace("writers=1", "writers=9"), *[WRITER] * 9],
    [HEAD.replace(" hot=yes", ""), WRITER], [HEAD + " more=1", WRITER],
    [HEAD.replace("call_us=1000", "call_us=-1"), WRITER],
    [HEAD.replace("0x2f00", "<b>"), WRITER],
    [HEAD.replace("lost_words=7", "lost_words=0"), WRITER],             # but writes are lost
    [HEAD, WRITER[:-1]], [HEAD, WRITER[:-3]], [HEAD, WRITER.replace("lost=", "")],
    [HEAD, WRITER.replace("0:20", "0:31")],                             # later, but earlier
    [HEAD, WRITER.replace("50:30", "50:20")],                           # a write that is two
    [HEAD, WRITER.replace("writes=900", "writes=39")],
    [HEAD, WRITER.replace("-50:10", "-50:0")],
    [HEAD, "timeline writer=1 cpu=2 faults=4 writes=900 kept= lost="],
    [HEAD, WRITER.split(" kept=")[0] + " kept="
     + ",".join(f"{number}:{number}" for number in range(1, 66)) + " lost="],
])
def test_what_is_not_whole_is_no_timeline(lines: list[str]) -> None:
    assert timeline.read("t", lines) is None


def test_a_timeline_disturbs_no_result() -> None:
    """The lines are notes, and the figures of the test are still its figures."""
    for variant, outcome in (("vulnerable", "fail"), ("fixed", "pass")):
        transcript = ktap.read(log(variant))
        assert transcript.problems() == [] and len(transcript.tests()) == 2
        for test in transcript.tests():
            assert test.outcome == outcome and test.count("migrations") == 10
            assert len(timeline.lines_of(test.notes)) >= 2
        bare = re.sub(r"(?m)^# timeline .*\n", "", log(variant))
        for one, two in zip(transcript.tests(), ktap.read(bare).tests()):
            assert (one.name, one.outcome, one.figures) == (two.name, two.outcome, two.figures)


def test_pauses() -> None:
    made = read("fixed")
    assert [len(writer.pauses(400)) for writer in made.writers] == [1, 1, 1]
    for writer in made.writers:
        [pause] = writer.pauses(400)
        assert pause.begin < 600 and pause.end > 5000
    # The gaps between the marks of early writes are longer, and no pauses.
    steady = timeline.read("t", [HEAD, "timeline writer=1 cpu=2 faults=4 writes=9000 "
                                       "kept=0:4096,410:8192,436:8448,800:8464,801:8480 lost="])
    assert steady and steady.writers[0].pauses(300) == [Pause(436, 800)]
    single = timeline.read("t", [HEAD, WRITER.split(" kept=")[0] + " kept=0:1 lost="])
    assert single and single.writers[0].pauses(1) == []


def test_verdict_json_keeps_them() -> None:
    made = run([boot("vulnerable", text=log("vulnerable"))], [boot("fixed", text=log("fixed"))])
    told = told_by(made)
    assert made.verdict == "PROVED"
    for name in ("vulnerable", "fixed"):
        assert timeline.load(told["variants"][name]["timelines"]) == \
            [read(name, SMALL), read(name, LARGE)]
        assert told["variants"][name]["timelines"][0]["folder"] == f"out/{name}-1"
    assert timeline.load(None) == timeline.load([{"lines": 1}, 2, {"lines": [HEAD]}]) == []


def test_the_first_boot_that_lost_writes_is_kept() -> None:
    kept = log("fixed")
    boots = [boot("vulnerable", 1, ""), boot("vulnerable", 2, kept),
             boot("vulnerable", 3, log("vulnerable")), boot("vulnerable", 4, log("vulnerable"))]
    assert [told["folder"] for told in timeline.report(boots)] == ["out/vulnerable-3"] * 2
    assert [told["folder"] for told in timeline.report(boots[:2])] == ["out/vulnerable-2"] * 2
    assert timeline.report(boots[:1]) == []


def test_no_more_than_a_few_are_kept() -> None:
    many = "".join(f"#  RUN  t.{number} ...\n# {HEAD}\n# {WRITER}\nok {number} t.{number}\n"
                   for number in range(1, 20))
    one = boot("fixed", text=f"lab: start p\n1..19\n{many}lab: exit p 0\nlab: done\n")
    assert one.state == "DONE"
    assert [told["test"] for told in timeline.report([one])] == ["t.1", "t.2", "t.3", "t.4"]
