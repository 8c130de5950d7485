# SPDX-License-Identifier: GPL-2.0
"""A kernel image as a disassembler wants it: code at its address, and names.

Nothing of the image is executed.  All addresses are those of the link: no KASLR is in them.
"""

import bisect
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Symbol:
    """A name of the kernel; `kind` is the letter of /proc/kallsyms (t T d D ...)."""

    name: str
    address: int
    kind: str


@dataclass(frozen=True)
class Section:
    """Bytes of the kernel at an address."""

    address: int
    data: bytes
    executable: bool
    name: str = ""          # "" where the image has no section names

    @property
    def end(self) -> int:
        """The first address behind it."""
        return self.address + len(self.data)


@dataclass(frozen=True)
class Image:
    """A kernel."""

    path: str                       # what was read, as the user named it
    arch: str                       # "x86_64", "arm64" or "riscv64"
    banner: str                     # "Linux version ...", one line
    build_id: str                   # hex digits, or ""
    sections: tuple[Section, ...]   # sorted by address, none of them empty
    symbols: tuple[Symbol, ...]     # sorted by address
    symbols_from: str               # "kallsyms", "System.map", "symbol table", ...
    config: str | None              # the text of IKCONFIG
    missing: str = ""               # why there is no code, where only names are known
    live: bool = False              # out of memory, where the kernel has patched its code

    @property
    def release(self) -> str:
        """The third word of the banner: "6.1.0-56-amd64"."""
        return self.banner.split()[2]

    @cached_property
    def by_name(self) -> dict[str, tuple[Symbol, ...]]:
        """The symbols of each name: static functions of one name are several."""
        found: dict[str, list[Symbol]] = {}
        for symbol in self.symbols:
            found.setdefault(symbol.name, []).append(symbol)
        return {name: tuple(same) for name, same in found.items()}

    @cached_property
    def _starts(self) -> list[int]:
        return sorted({symbol.address for symbol in self.symbols})

    def section_at(self, address: int) -> Section | None:
        """The section that holds `address`."""
        at = bisect.bisect_right(self.sections, address, key=lambda one: one.address) - 1
        if at >= 0 and address < self.sections[at].end:
            return self.sections[at]
        return None

    def end_of(self, address: int) -> int:
        """Where what starts at `address` ends at the latest: the next symbol, or the section's end.

        Padding may stand before it.
        """
        section = self.section_at(address)
        end = section.end if section else address
        at = bisect.bisect_right(self._starts, address)
        return min(end, self._starts[at]) if at < len(self._starts) else end

    def code(self, address: int) -> bytes:
        """The bytes from `address` to end_of(address); none where no section has it."""
        section = self.section_at(address)
        if section is None:
            return b""
        return section.data[address - section.address:self.end_of(address) - section.address]
