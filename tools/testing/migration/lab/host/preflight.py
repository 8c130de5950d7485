# SPDX-License-Identifier: GPL-2.0
"""Says what a run of selftests would do to a machine, and whether it should not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lab import defect
from lab.host import needs
from lab.host.needs import Need
from lab.host.state import Node, State
from lab.paths import INSTALLED
from lab.words import plural

# Of the free memory of a node, huge pages are to take no more than a part of so many.
_PART = 2


@dataclass(frozen=True)
class Plan:
    """What a run would do."""

    state: State
    tests: tuple[Need, ...]
    skipped: tuple[Need, ...]           # of them, those that will not run
    offline: bool                       # memory blocks and page poison are allowed
    dangerous: bool                     # what may take the machine down is

    def runs(self) -> list[Need]:
        """The tests that may run."""
        return [one for one in self.tests if one not in self.skipped]

    def seconds(self) -> int:
        """About how long that takes."""
        return sum(one.seconds for one in self.runs())

    def adds(self, node: Node) -> int:
        """How many huge pages are made on a node at a time, at most."""
        wanted = max((one.pages for one in self.runs()), default=0)
        return max(0, wanted + self.state.reserved - node.free) if wanted else 0

    def nodes(self) -> tuple[Node, ...]:
        """Those that may be taken pages of."""
        return self.state.nodes[:2]

    def against(self) -> list[str]:
        """Why it should not run, in words; nothing where nothing is in the way."""
        state, why = self.state, []
        if state.used() or state.reserved:
            why.append(f"the pool of huge pages is in use: {state.used()} used, "
                       f"{state.reserved} reserved")
        for node in self.nodes():
            kib = self.adds(node) * state.huge_kib
            if kib * _PART > node.free_kib:
                why.append(f"node {node.number} has {node.free_kib >> 10} MiB of free memory, and "
                           f"the tests want {kib >> 10} MiB of it")
        if self.offline:
            why.append(f"{needs.OFFLINE}=1 takes memory offline")
        if self.dangerous:
            why.append(f"{needs.DANGEROUS}=1 can take the machine down")
        return why


def plan(state: State, tests: Sequence[Need], environment: Mapping[str, str]) -> Plan:
    """What the selftests `tests` would do with this environment."""
    def allowed(name: str) -> bool:
        return environment.get(name, "0") not in ("", "0")
    dangerous = allowed(needs.DANGEROUS)
    skipped = tuple(one for one in tests if one.nodes > len(state.nodes)
                    or one.dangerous and not dangerous)
    return Plan(state, tuple(tests), skipped, allowed(needs.OFFLINE), dangerous)


def told(one: Plan) -> str:
    """The plan for a person."""
    state, runs, shown = one.state, one.runs(), defect.shown()
    machine = (f"Linux {state.release or '(unknown)'}: {plural(len(state.nodes), 'nodes')} with "
               f"memory, huge pages of {state.huge_kib} KiB: "
               f"{sum(node.pool for node in state.nodes)}, {state.used()} used, "
               f"{state.reserved} reserved")
    if not runs:
        return "\n".join(_none(one, machine, shown))
    lines = [f"{plural(len(runs), 'tests')} would run, for about {duration(one.seconds())}, of "
             "these defects:", *(f"  {_named(test, shown)}" for test in runs), machine,
             "They would change, and put back:"]
    changed = [f"node {node.number}: up to {plural(one.adds(node), 'huge pages')} more, "
               f"{one.adds(node) * state.huge_kib >> 10} of {node.free_kib >> 10} MiB that "
               "are free" for node in one.nodes() if one.adds(node)]
    changed += [f"{needs.SETTINGS[name][1]} ({test.name})" for test in runs
                for name in test.settings if name in state.settings]
    if one.offline:
        changed += [f"{test.name} {test.offline}" for test in runs if test.offline]
    lines += [f"  {what}" for what in changed or ["nothing"]]
    if beyond := [test for test in runs if test.beyond]:
        lines.append("They would also do this:")
        lines += [f"  {test.name} {test.beyond}" for test in beyond]
    left = ["huge pages of other sizes, and those that others use or have reserved"]
    if not one.offline:
        left.append(f"memory blocks, and poison of pages ({needs.OFFLINE}=1 allows both)")
    lines += ["They would leave alone:", *(f"  {what}" for what in left)]
    if one.skipped:
        lines += ["These would not run:",
                  *(f"  {_named(test, shown)}: {_why_not(one, test)}" for test in one.skipped)]
    if not one.dangerous and (parts := [test for test in runs if test.leaves_out]):
        lines.append("These would run in part:")
        lines += [f"  {test.name} leaves out {test.leaves_out} ({needs.DANGEROUS}=1 allows it)"
                  for test in parts]
    return "\n".join(lines)


def _none(one: Plan, machine: str, shown: Mapping[str, Sequence[str]]) -> list[str]:
    """What is said where no test can run: why, and what to do instead."""
    why = dict.fromkeys(_why_not(one, test) for test in one.skipped)
    lines = ["none can run here: " + ("; ".join(why) if len(why) == 1 else "each for its own reason"
                                      if why else "there are no tests")]
    lines += [f"  {_named(test, shown)}" + (f": {_why_not(one, test)}" if len(why) > 1 else "")
              for test in one.skipped]
    lines += [machine, "nothing of this machine would change"]
    names = dict.fromkeys(name for test in one.skipped for name in shown.get(test.name, ()))
    if names and not INSTALLED:
        lines.append(f"in a guest they can: make kselftest BASE=6.12 DEFECT={next(iter(names))}"
                     + (", or another of these" if len(names) > 1 else ""))
    return lines


def _named(test: Need, shown: Mapping[str, Sequence[str]]) -> str:
    """A test, and in brackets the defects that it shows, as `list` and the audit name them."""
    names = shown.get(test.name)
    return f"{test.name} ({', '.join(names)})" if names else test.name


def _why_not(one: Plan, test: Need) -> str:
    have = len(one.state.nodes)
    if test.nodes > have:
        return (f"needs {plural(test.nodes, 'nodes')} with memory, and there "
                f"{'is' if have == 1 else 'are'} {have}")
    return f"{test.dangerous} ({needs.DANGEROUS}=1 allows it)"


def duration(seconds: float) -> str:
    """A time in words."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min"
