# SPDX-License-Identifier: GPL-2.0
"""Where a kernel patches its own code, so that the image does not say whether it jumps there."""

import struct
from collections.abc import Sequence

from lab.binary.image import Section, Symbol
from lab.binary.instruction import Table


def table(symbols: Sequence[Symbol], sections: Sequence[Section], start: str,
          stop: str) -> tuple[int, bytes]:
    """Where the table between two symbols is, and what is in it; 0 and b"" if it is not known."""
    ends = {one.name: one.address for one in symbols if one.name in (start, stop)}
    return (ends[start], between(sections, ends[start], ends[stop])) if len(ends) == 2 else (0, b"")


def between(sections: Sequence[Section], first: int, last: int) -> bytes:
    """What a section has from one address to another; b"" if none has both."""
    for one in sections:
        if one.address <= first < last <= one.address + len(one.data):
            return one.data[first - one.address:last - one.address]
    return b""


def _is_code(sections: Sequence[Section], address: int) -> bool:
    return any(one.address <= address < one.address + len(one.data) for one in sections
               if one.executable)


def branches(start: int, data: bytes, sections: Sequence[Section]) -> dict[int, int]:
    """Where static branches are, which the kernel patches as it runs, and where they lead.

    `data`, at the address `start`, has an entry of each: two addresses, and that of the key; since
    4.19 they are relative to where they are.  {} where it is no such table.
    """
    for layout, relative in (("<iiq", True), ("<QQQ", False)):
        size = struct.calcsize(layout)
        if not data or len(data) % size:
            continue
        # Code that only a module has to have, .exit.text, is none that is known as such.
        found, others = {}, 0
        for number, (at, to, _key) in enumerate(struct.iter_unpack(layout, data)):
            here = start + number * size if relative else 0
            # The second follows the first.
            at, to = here + at, to + (here + 4 if relative else 0)
            if _is_code(sections, at) and _is_code(sections, to):
                found[at] = to
            elif (others := others + 1) * 8 > number:
                break
        else:
            return found
    return {}


def faults(start: int, data: bytes) -> list[int]:
    """Which instructions may fault and go on elsewhere, sorted; [] where it is no such table.

    `data`, at the address `start`, has an entry of each, which begins with how far it is from there
    and where it goes on; since 4.6 one has an int more.  The kernel sorts it.
    """
    for size in (12, 8):
        if data and len(data) % size == 0:
            found = [start + at + struct.unpack_from("<i", data, at)[0]
                     for at in range(0, len(data), size)]
            if found == sorted(found):
                return found
    return []


def alternatives(symbols: Sequence[Symbol], sections: Sequence[Section],
                 where: Table) -> dict[int, int]:
    """Where there is other code for some CPUs, and where that is; 0 where it is a nop.

    {} where the image does not say where the table is.
    """
    start, data = table(symbols, sections, where.start, where.stop)
    size = struct.calcsize(where.layout)
    if len(data) % size:
        return {}
    found = {}
    for number, entry in enumerate(struct.iter_unpack(where.layout, data)):
        here = start + number * size
        found[here + entry[0]] = here + 4 + entry[1] if entry[where.size] else 0
    return found
