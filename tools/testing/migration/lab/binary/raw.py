# SPDX-License-Identifier: GPL-2.0
"""Reads an Image of arm64 or riscv64: a kernel as it is in memory, without any ELF headers.

At which address stands nowhere in it: it follows from that of the lowest symbol, which is in
kallsyms, or in the relocations of what is to be moved.  From 7.x on kallsyms is relative to its own
place, and then the usual address is taken: all that is asked of addresses is that they agree.
"""

import struct

from lab.binary import kallsyms
from lab.binary.image import Section, Symbol
from lab.errors import LabError

_USUAL = {"arm64": 0xffff800080000000, "riscv64": 0xffffffff80000000}
_RELATIVE = {"arm64": 0x403, "riscv64": 3}      # R_AARCH64_RELATIVE, R_RISCV_RELATIVE
_ALIGN = 2 << 20
# From here to there is code.
_CODE = (("_stext", "_etext"), ("_sinittext", "_einittext"), ("__inittext_begin", "__inittext_end"))


def read(data: bytes, arch: str, what: str) -> tuple[list[Section], list[Symbol]]:
    """Its code and the rest, and the symbols of its kallsyms."""
    table = kallsyms.read(data, 0)
    if table is None:
        raise LabError(f"{what} has no symbols: its CONFIG_KALLSYMS is off, or it is damaged; "
                       "name the vmlinux of the same build")
    symbols = table.symbols
    if table.moves:
        base, shift = _USUAL[arch], _USUAL[arch]
    elif table.base_at is None:
        base, shift = _start(data, arch, symbols[0].address), 0
    else:
        lowest = _relocated(data, arch, table.base_at)
        if lowest is None:
            raise LabError(f"{what} does not say at which address it runs: name the vmlinux of "
                           "the same build")
        base, shift = _start(data, arch, lowest), lowest
    symbols = [Symbol(one.name, one.address + shift, one.kind) for one in symbols]
    known: dict[str, int] = {}
    for one in symbols:
        known.setdefault(one.name, one.address)
    return _sections(data, base, known, what), symbols


def _start(data: bytes, arch: str, lowest: int) -> int:
    """The address of an Image whose lowest symbol is at `lowest`.

    The link puts an Image at a multiple of 2 MiB, and arm64's header says how far behind it.  The
    lowest symbol is one of the first 2 MiB: _text, or _stext without CONFIG_KALLSYMS_ALL.
    """
    offset = int(struct.unpack_from("<Q", data, 8)[0]) if arch == "arm64" else 0
    return lowest - (lowest - offset) % _ALIGN


def _relocated(data: bytes, arch: str, base_at: int) -> int | None:
    """What a relocation (RELA) puts at `base_at` in the Image: it holds the place and the value."""
    mark = struct.pack("<Q", _RELATIVE[arch])
    at = data.find(mark, 8)
    while at >= 0:
        if at % 8 == 0 and at + 16 <= len(data):
            place, _kind, value = struct.unpack_from("<QQQ", data, at - 8)
            if value >> 63 and place - base_at == _start(data, arch, value):
                return int(value)
        at = data.find(mark, at + 1)
    return None


def _sections(data: bytes, base: int, known: dict[str, int], what: str) -> list[Section]:
    cuts: list[tuple[int, int]] = []
    for begin, end in _CODE:
        if begin in known and end in known:
            low, high = known[begin] - base, known[end] - base
            if 0 <= low < high <= len(data) and not (cuts and low < cuts[-1][1]):
                cuts.append((low, high))
    if not cuts:
        raise LabError(f"{what} does not say where its code is (_stext, _etext): name the vmlinux "
                       "of the same build")
    found, at = [], 0
    for low, high in sorted(cuts):
        found += [Section(base + at, data[at:low], False),
                  Section(base + low, data[low:high], True)]
        at = high
    found.append(Section(base + at, data[at:], False))
    return [one for one in found if one.data]
