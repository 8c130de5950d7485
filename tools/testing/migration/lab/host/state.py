# SPDX-License-Identifier: GPL-2.0
"""Reads what a machine has and how it is set: huge pages, nodes, memory blocks, settings."""

import os
from dataclasses import dataclass
from pathlib import Path

from lab.host import needs

# Where /sys and /proc are.
ROOT = Path("/")


@dataclass(frozen=True)
class Node:
    """A NUMA node with memory, and its pool of huge pages."""

    number: int
    free_kib: int           # of memory
    pool: int               # persistent huge pages, which a write to nr_hugepages sets
    free: int               # huge pages that nobody uses
    used: int


@dataclass(frozen=True)
class State:
    """A machine at a moment."""

    release: str
    huge_kib: int                   # size of a huge page of the pools
    nodes: tuple[Node, ...]
    reserved: int                   # huge pages that are free and promised to somebody
    settings: dict[str, str]        # by the names of needs.SETTINGS, those that the kernel has
    blocks: dict[str, str]          # state of each memory block

    def used(self) -> int:
        """Huge pages that somebody uses."""
        return sum(node.used for node in self.nodes)

    def kept(self) -> dict[str, str]:
        """All that has to be afterwards as it was before."""
        pools = {f"huge pages of node {node.number}": str(node.pool) for node in self.nodes}
        blocks = {f"memory block {name}": state for name, state in self.blocks.items()}
        return pools | {needs.SETTINGS[name][1]: value for name, value in self.settings.items()} \
            | blocks


def read() -> State:
    """The machine as it is now.  What it does not have is 0, or not there."""
    page = os.sysconf("SC_PAGESIZE")
    huge = page * (page // 8) // 1024
    nodes = []
    top = ROOT / "sys/devices/system/node"
    for folder in sorted(top.glob("node[0-9]*"), key=lambda path: int(path.name[4:])):
        memory = _memory(folder / "meminfo")
        if not memory.get("MemTotal"):
            continue
        pool = folder / f"hugepages/hugepages-{huge}kB"
        total, free = _number(pool / "nr_hugepages"), _number(pool / "free_hugepages")
        nodes.append(Node(int(folder.name[4:]), memory.get("MemFree", 0),
                          total - _number(pool / "surplus_hugepages"), free, total - free))
    settings = {name: _text(ROOT / file) for name, (file, _what) in needs.SETTINGS.items()
                if (ROOT / file).is_file()}
    blocks = {folder.name[6:]: _text(folder / "state") for folder in
              sorted((ROOT / "sys/devices/system/memory").glob("memory[0-9]*"))}
    return State(_text(ROOT / "proc/sys/kernel/osrelease"), huge, tuple(nodes),
                 _number(ROOT / f"sys/kernel/mm/hugepages/hugepages-{huge}kB/resv_hugepages"),
                 settings, blocks)


def changes(before: State, after: State) -> list[str]:
    """What is not as it was, in words."""
    now = after.kept()
    return [f"{name} was {value or 'empty'} and is {now.get(name, 'gone')}"
            for name, value in before.kept().items() if now.get(name) != value]


def _memory(path: Path) -> dict[str, int]:
    """Of the lines "Node 0 MemFree: 1234 kB"."""
    words = [line.split() for line in _text(path).splitlines()]
    return {line[2].rstrip(":"): int(line[3]) for line in words
            if len(line) > 3 and line[3].isdecimal()}


def _number(path: Path) -> int:
    text = _text(path)
    return int(text) if text.isdecimal() else 0


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
