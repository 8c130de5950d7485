# SPDX-License-Identifier: GPL-2.0
"""What a run says, computed once from its boots: every form of it is made of this.

It is data and nothing else.  verdict.json is a Summary as JSON, and a record is a part of that.
"""

import dataclasses
import re
import shlex
import types
import typing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from lab import arch as arches
from lab.judge import klog, timeline
from lab.judge.klog import Complaint
from lab.judge.ktap import Test
from lab.judge.verdict import Boot, keeps_writes, loses_writes, suffers_from_it, worst
from lab.wanted import KERNELS

_COUNTED = ("calls", "lost_migrations", "hot_calls", "hot_moved")
# What some tests have done besides migrating: programs run, THPs that were in the way and those
# that were moved, writes of a device.
_ALSO = ("execs", "thps", "moved", "device_writes")
# Not a sum: how long it took until a test saw the defect, in milliseconds.
_FIRST = "first_ms"
_EXAMPLE = re.compile(
    r"lost: page (?P<page>\d+) offset (?P<offset>\S+) wrote (?P<wrote>\S+) found (?P<found>\S+) "
    r"node (?P<node_before>-?\d+)->(?P<node_after>-?\d+) "
    r"pfn (?P<pfn_before>\S+)->(?P<pfn_after>\S+) (?P<ms_after>\d+(?:\.\d+)?) ms after the call")
# What differs between two boots that say the same: CPUs, processes, seconds, addresses.  A line of
# a source file does not.
_DIFFERS = re.compile(r"(?<!\.[chS]:)\b(?:0x)?[0-9a-f]*\d[0-9a-f]*s?\b")


@dataclass(frozen=True)
class Said:
    """What is said in so many boots; no text where none was recorded."""

    text: str | None
    boots: int


@dataclass(frozen=True)
class Trouble:
    """Boots that went wrong in the same way: how they ended, what was wrong first in each, and the
    folder of the first of them."""

    state: str
    text: str
    boots: int
    folder: str


@dataclass(frozen=True)
class Trace:
    """What a kernel said of itself first, without registers, and the boot in which it did."""

    lines: list[str]
    folder: str = ""


@dataclass(frozen=True)
class Result:
    """A test in one boot.  `told` are its figures and what it printed; not its timeline, which is
    elsewhere if it is among those that are kept."""

    name: str
    outcome: str
    reason: str
    lost: int
    told: list[str]


@dataclass(frozen=True)
class BootSummary:
    """One boot.  `evident` is one that is a piece of evidence: of a vulnerable kernel, that it has
    the defect, of a fixed one, that a test could have seen it and did not."""

    folder: str
    state: str
    seconds: float
    accel: str
    guest_exit: int | None
    timed_out: bool
    tests: int
    failed: int
    migrations: int
    lost_migrations: int
    complaints: list[Complaint]
    problems: list[str]
    ended_early: bool = False
    skipped: int = 0
    inconclusive: int = 0
    first_ms: int | None = None
    symptoms: list[Complaint] = field(default_factory=list)
    evident: bool = False
    results: list[Result] = field(default_factory=list)

    def wrong(self) -> str:
        """What was wrong first; "" for a boot that did as it should, be it to die of the defect."""
        if said := worst(self.complaints):
            bare = said.text.removeprefix("BUG: ").startswith(said.kind)
            return said.text if bare else f"{said.kind}: {said.text}"
        if self.state == "DONE" or self.state == "ENDED" and self.symptoms:
            return ""
        return (self.problems or ["the guest did not come to its end"])[0]


@dataclass(frozen=True)
class TestSummary:
    """The sums of one test over all boots of a kernel; None is what was not recorded.  `counted` is
    of a record from when it was not told whether the test can show the defect."""

    lost_migrations: int | None
    runs: int | None = None
    failed: int | None = None
    skipped: int | None = None
    inconclusive: int | None = None
    calls: int | None = None
    migrations: int | None = None
    control_migrations: int | None = None
    hot_calls: int | None = None
    hot_moved: int | None = None
    counted: int | None = None
    also: dict[str, int] = field(default_factory=dict)

    def of(self) -> int:
        """What it lost something of, also where it cannot show the defect."""
        return self.counted or self.migrations or self.control_migrations or 0

    def idle(self) -> bool:
        return self.runs is not None and self.skipped == self.runs


@dataclass(frozen=True)
class KernelSummary:
    """One of the two kernels: how it was made, and the sums over its boots.

    A test whose result cannot be believed counts as failed, so that what is left after failed,
    skipped and inconclusive did pass.  Calls and migrations of the tests that cannot show the
    defect are left out, or the share of those that lost writes would say little.  Hot calls are
    those with writers at full speed, before any call that had to be made again.  `boot_seconds` and
    `first_seconds`, until the defect was seen, are the least and the most of a boot.  `symptoms` is
    what it said of itself that was to be expected of it: of each boot the first, as what comes
    after that is often its consequence.  `trace` is the first of these, or what was wrong, in full.
    """

    how: str
    places: list[str]
    boots: int
    tests: int
    failed: int
    skipped: int
    migrations: int
    lost_migrations: int
    control_migrations: int
    by_test: dict[str, TestSummary]
    diff: str = ""
    image: str = ""
    initrd: str = ""
    config: str = ""
    failed_boots: int | None = None
    inconclusive: int | None = None
    calls: int | None = None
    hot_calls: int = 0
    hot_moved: int = 0
    seconds: float | None = None
    boot_seconds: list[float] | None = None
    first_seconds: list[float] | None = None
    symptoms: list[Said] = field(default_factory=list)
    trouble: list[Trouble] = field(default_factory=list)
    skips: list[Said] | None = None
    example: dict[str, Any] | None = None
    trace: Trace | None = None
    timelines: list[dict[str, Any]] = field(default_factory=list)
    runs: list[BootSummary] = field(default_factory=list)


@dataclass(frozen=True)
class Provenance:
    """What of this repository, and of the machine, a run was made with; None was not recorded.

    `lab` is a commit, and `dirty` whether there was more than that.  `selftests` and `queue` are
    hashes: of the sources of the tests, and of the rules and patches that made the kernels.  The
    lists of the patches are named in `series`: "queue/6.1/series", or, where only the first of them
    were used, "queue/6.1/series, patches 1 to 3".
    """

    lab: str | None = None
    dirty: bool | None = None
    qemu: str | None = None
    selftests: str | None = None
    queue: str | None = None
    series: list[str] = field(default_factory=list)


def _words(command: str) -> list[str]:
    """The words of a command that a shell would see; those between blanks, if it is none."""
    try:
        return shlex.split(command)
    except ValueError:
        return command.split()


def form(command: str) -> str:
    """The form of the queue that a run was asked for, by its command; "" for the usual one."""
    return next((word.removeprefix("FORM=") for word in _words(command)
                 if word.startswith("FORM=")), "")


def witness(command: str) -> bool:
    """Whether a run was asked for the kernel's own check alone; DEBUG=1 has it with all others."""
    words = _words(command)
    return "WITNESS=1" in words and "DEBUG=1" not in words


def special(arch: str, debug: bool, command: str = "") -> list[str]:
    """What of a configuration does not go without saying; `command` is what asked for it."""
    asked = form(command)
    return [*([arch] if arches.tag(arch) else []), *([f"FORM={asked}"] if asked else []),
            *(["WITNESS=1"] if witness(command) else []), *(["DEBUG=1"] if debug else []),
            *(arches.load(arch).unusual(command) if arch in arches.names() else [])]


@dataclass(frozen=True)
class Summary:
    """A whole run.

    `command` repeats it; `source` is the identity that lab.source gives; `seconds` is all of it,
    builds included, and `cpu_seconds` what the processors did for it; `harm` is what such a one of
    `counts` did that shows the defect.
    """

    defect: str
    title: str | None
    base: str | None
    arch: str
    accel: str
    verdict: str
    why: str
    debug: bool
    started: str
    command: str
    source: dict[str, str]
    compiler: str
    variants: dict[str, KernelSummary]
    seconds: float | None = None
    cpu_seconds: float | None = None
    harm: str = "lost writes"
    counts: str = "migrations"
    provenance: Provenance = Provenance()
    # Whose tests they are that ran, where not the selftests.
    tests: str = ""

    def name(self) -> str:
        return ", ".join([f"{self.defect} on {self.source['version']}", *self.special()])

    def special(self) -> list[str]:
        """What of its configuration does not go without saying."""
        return special(self.arch, self.debug, self.command)

    def form(self) -> str:
        """The form of the queue that it was asked for; "" for the usual one."""
        return form(self.command)

    def both(self) -> list[KernelSummary]:
        return [self.variants[name] for name in KERNELS]

    def report(self) -> dict[str, Any]:
        """As JSON holds it."""
        return dataclasses.asdict(self)

    def record(self) -> dict[str, Any]:
        """What of it outlives its logs and its machine."""
        told = self.report()
        told["command"] = command(self.command, self.source["version"])
        # Only proofs by the selftests are recorded.
        del told["seconds"], told["tests"]
        for variant in told["variants"].values():
            for key in ("diff", "image", "initrd", "config", "runs", "trouble", "timelines"):
                del variant[key]
            for key in ("example", "trace"):
                if variant[key]:
                    variant[key].pop("folder", None)
        return told

    @classmethod
    def load(cls, told: Any) -> Self:
        """From JSON; LookupError, TypeError or ValueError where that is not what a lab wrote."""
        made: Self = _load(cls, told)
        variants = {name: made.variants[name] for name in KERNELS}
        for name, one in variants.items():
            runs = [dataclasses.replace(run, state=_renamed(run.state)) for run in one.runs]
            # An older lab did not tell them.
            more = _of_boots(runs) if one.failed_boots is None else {}
            variants[name] = dataclasses.replace(one, runs=runs, **more)
        return dataclasses.replace(made, verdict=_renamed(made.verdict), variants=variants)


def command(given: str, version: str) -> str:
    """A command, with paths that are nobody's own."""
    for name, path in (("KERNEL", version), ("HARNESS", "linux"), ("LTP", "ltp")):
        given = re.sub(rf"\b{name}=(?:'[^']*'|\S)+", f"{name}=/path/to/{path}", given)
    return given


def kernel(how: str, places: Sequence[str], boots: Sequence[Boot],
           **files: Path) -> KernelSummary:
    """The summary of the boots of one kernel."""
    runs = [boot(one) for one in boots]
    tests = [test for one in boots for test in one.tests()]
    by_name: dict[str, list[Test]] = {}
    for test in tests:
        by_name.setdefault(test.name, []).append(test)
    return KernelSummary(
        how=how, places=list(places), boots=len(boots), tests=len(tests), **_counts(tests),
        seconds=round(sum(one.seconds for one in boots), 1), runs=runs,
        by_test={name: TestSummary(runs=len(same), also=_also_counted(same), **_counts(same))
                 for name, same in by_name.items()},
        skips=_each((test.reason, test.reason) for one in boots for test in
                    {test.reason: test for test in one.tests() if test.outcome == "skip"}.values()),
        example=example(boots), trace=_trace(boots), timelines=timeline.report(boots),
        **_of_boots(runs),
        **dict[str, Any]({name: str(path) for name, path in files.items()}))


def boot(one: Boot) -> BootSummary:
    """The summary of one boot."""
    tests = one.tests()
    counts = _counts(tests)
    del counts["calls"], counts["hot_calls"], counts["hot_moved"], counts["control_migrations"]
    evident = loses_writes(one) or suffers_from_it(one) if one.variant == "vulnerable" else \
        any(keeps_writes(test) for test in tests)
    return BootSummary(
        folder=one.folder, state=one.state, seconds=round(one.seconds, 1), accel=one.accel,
        guest_exit=one.guest_exit, timed_out=one.timed_out, ended_early=one.ended_early,
        tests=len(tests), **counts, problems=one.transcript.problems(),
        complaints=one.complaints, symptoms=one.symptoms, evident=evident,
        first_ms=min((test.count(_FIRST) for test in tests if test.count(_FIRST)), default=None),
        results=[Result(test.name, test.outcome, test.reason, test.count("lost_migrations"),
                        _told(test)) for test in tests])


def boot_report(one: Boot) -> dict[str, Any]:
    """One boot as JSON, without what each of its tests said."""
    told = dataclasses.asdict(boot(one))
    del told["results"]
    return told


def example(boots: Iterable[Boot]) -> dict[str, Any] | None:
    """The first lost write that a test told of, field by field; None where there is none.

    A "lost:" line that does not have the known form still gives its boot, test and text.
    """
    for one in boots:
        for test in one.tests():
            for note in test.notes:
                if note.startswith("lost:"):
                    match = _EXAMPLE.match(note)
                    return {"folder": one.folder, "test": test.name, "text": note} | {
                        key: int(value) if key in ("page", "node_before", "node_after") else
                        float(value) if key == "ms_after" else value
                        for key, value in (match.groupdict() if match else {}).items()}
    return None


def _trace(boots: Sequence[Boot]) -> Trace | None:
    """The first complaint of all boots, or else the first symptom of a vulnerable kernel."""
    said = [(worst(one.complaints), one) for one in boots if one.complaints] \
        + [(one.symptoms[0], one) for one in boots if one.symptoms and one.variant == "vulnerable"]
    return next((Trace(klog.excerpt(first), one.folder) for first, one in said if first), None)


def _of_boots(runs: Sequence[BootSummary]) -> dict[str, Any]:
    """What is told of all boots of a kernel together."""
    first = [run.first_ms / 1000 for run in runs if run.first_ms]
    wrong = [(run, said) for run in runs if (said := run.wrong())]
    same: dict[tuple[str, str], list[tuple[BootSummary, str]]] = {}
    for run, said in wrong:
        same.setdefault((run.state, _DIFFERS.sub("", said)), []).append((run, said))
    return {
        "failed_boots": sum(run.failed > 0 for run in runs),
        "boot_seconds": [min(all_of_them), max(all_of_them)]
        if (all_of_them := [run.seconds for run in runs]) else None,
        "first_seconds": [min(first), max(first)] if first else None,
        "symptoms": _each((_DIFFERS.sub("", run.symptoms[0].text), run.symptoms[0].text)
                          for run in runs if run.symptoms),
        "trouble": [Trouble(state, some[0][1], len(some), some[0][0].folder)
                    for (state, _said), some in same.items()]}


def _each(said: Iterable[tuple[str, str]]) -> list[Said]:
    """Each of the texts once, with how often it came, the most frequent first; those whose key is
    the same are the same."""
    count: dict[str, list[str]] = {}
    for key, text in said:
        count.setdefault(key, []).append(text)
    return [Said(same[0], len(same)) for same in
            sorted(count.values(), key=lambda same: -len(same))]


def _counts(tests: Sequence[Test]) -> dict[str, Any]:
    outcomes = [test.outcome for test in tests]
    counts = {"failed": outcomes.count("fail") + outcomes.count("error"),
              "skipped": outcomes.count("skip"), "inconclusive": outcomes.count("inconclusive")}
    for key in _COUNTED:
        counts[key] = sum(test.count(key) for test in tests if not test.is_control())
    for key, control in (("migrations", False), ("control_migrations", True)):
        counts[key] = sum(test.tries() for test in tests if test.is_control() == control)
    # What cannot happen, and must be seen if it does.
    counts["lost_migrations"] += sum(test.count("lost_migrations") for test in tests
                                     if test.is_control())
    return counts


def _also_counted(tests: Sequence[Test]) -> dict[str, int]:
    """Sums of what else the tests counted, of those things that say how much was done."""
    return {key: sum(test.count(key) for test in tests) for key in _ALSO
            if any(key in test.figures for test in tests)}


def _told(test: Test) -> list[str]:
    figures = " ".join(f"{key}={value}" for key, value in test.figures.items())
    timed = set(timeline.lines_of(test.notes))
    return [*([figures] if figures else []), *(note for note in test.notes if note not in timed)]


# ---- from JSON -----------------------------------------------------------------------------


def _renamed(word: str) -> str:
    """A verdict or state of an older lab, in the words of today."""
    return "INCOMPLETE" if word == "LOST" else word


def _load(kind: Any, told: Any) -> Any:
    """What `told` says, as a `kind`; what a lab did not write yet is what its class says."""
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        # Where neither is given both are MISSING: such a field must be there.
        return kind(**{one.name: _load(hints[one.name], told[one.name])
                       for one in dataclasses.fields(kind)
                       if one.name in told or one.default is one.default_factory})
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        return None if told is None else _load(inner[0], told)
    if origin in (list, tuple):
        return origin(_load(inner[0], one) for one in _must(list, told))
    if origin is dict:
        return {_must(str, key): _load(inner[1], one) for key, one in _must(dict, told).items()}
    return told if kind is Any else _must((int, float) if kind is float else kind, told)


def _must(kind: Any, told: Any) -> Any:
    if not isinstance(told, kind):
        raise TypeError(f"{told!r} is no {kind}")
    return told
