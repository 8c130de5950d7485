# SPDX-License-Identifier: GPL-2.0
"""Says what a run of selftests would do to a machine, and whether it should not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lab.host import needs
from lab.host.needs import Need
from lab.host.state import Node, State
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
    state, runs = one.state, one.runs()
    lines = [f"Linux {state.release or '(unknown)'}: {plural(len(state.nodes), 'nodes')} with "
             f"memory, huge pages of {state.huge_kib} KiB: "
             f"{sum(node.pool for node in state.nodes)}, {state.used()} used, "
             f"{state.reserved} reserved",
             f"{plural(len(runs), 'tests')} would run, for about {duration(one.seconds())}"]
    if not runs:
        lines.append("  nothing of this machine would change")
    else:
        lines.append("They would change, and put back:")
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
        lines.append("These would not run:")
        lines += [f"  {test.name}: " + (
            f"needs {test.nodes} nodes with memory" if test.nodes > len(state.nodes) else
            f"{test.dangerous} ({needs.DANGEROUS}=1 allows it)") for test in one.skipped]
    if not one.dangerous and (parts := [test for test in runs if test.leaves_out]):
        lines.append("These would run in part:")
        lines += [f"  {test.name} leaves out {test.leaves_out} ({needs.DANGEROUS}=1 allows it)"
                  for test in parts]
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """A time in words."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min"
