# SPDX-License-Identifier: GPL-2.0
"""What the audit asks of single instructions, in words that are the same for each architecture.

x86_64.py, arm64.py and riscv64.py answer, each for its own."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from lab.errors import NotInstalled


@dataclass(frozen=True)
class Instruction:
    """One instruction, and where it leads."""

    address: int
    size: int
    text: str                       # "lock inc dword ptr [rax + 0x34]"
    name: str                       # its first word that is no prefix
    operands: str
    target: int | None = None       # of a direct call or jump
    calls: bool = False
    falls: bool = True              # the next instruction can come after it
    indirect: bool = False          # it jumps to where a register says
    traps: bool = False             # ud2, brk: a BUG() or a WARN()
    makes: int | None = None        # the address that it, or the last of several, makes of its own


class Reader(Protocol):
    """What takes code to pieces."""

    def disasm_lite(self, code: bytes, start: int) -> Iterator[tuple[int, int, str, str]]:
        """Address, size, name and operands of each instruction; what is none is a ".byte"."""


# What a store may store.
ZERO = "zero"


@dataclass(frozen=True)
class Touch:
    """Bytes of a struct that an instruction loads or stores, an int or a part of one."""

    first: int                      # how far from a register
    size: int
    loads: bool
    stores: bool


@dataclass(frozen=True)
class Table:
    """Where a kernel keeps what it patches in its own code when it boots."""

    start: str                      # the symbols of its ends
    stop: str
    layout: str                     # of an entry; two distances from themselves come first
    size: int                       # which of the rest is the size of the new code; 0: a function
                                    # makes it, and then it is a nop


@dataclass(frozen=True)
class Set:
    """The instructions of an architecture."""

    reader: Callable[[], Reader]    # NotInstalled where there is none
    first: tuple[str, ...]          # registers of the first argument, the whole one first
    arguments: tuple[str, ...]      # whole registers of the first arguments
    decode: Callable[[int, int, str, str], Instruction]
    # Whether it adds to or subtracts from an int so that no other CPU comes between, and where: by
    # which register, and how far from that.  What follows it may have to be seen, too.
    counts: Callable[[Instruction, Instruction | None], tuple[str, int] | None]
    # Of one that does so, by the same two: 1 where it adds, -1 where it subtracts, 0 where that
    # cannot be told.
    adds: Callable[[Instruction, Instruction | None], int]
    # How far from a register the int of a struct is that it loads or compares.
    reads: Callable[[Instruction], int | None]
    # What of a struct it loads or stores, if that is no more than an int.
    touches: Callable[[Instruction], Touch | None]
    # How far from registers all is that it loads or stores, but for the stack and for variables;
    # None where it cannot be told.
    looks: Callable[[Instruction], frozenset[int] | None]
    # Where in code, which begins at an address, something may lead to one of some addresses, or
    # takes it.  What does not may be among them.
    leads: Callable[[bytes, int, frozenset[int]], list[int]]
    # What gives the register of what a function returns another value, by its operands; and what
    # has the same operands and only reads it, by its name.
    forgets: re.Pattern[str]
    only_reads: re.Pattern[str]
    # What brings it back from where it may have been kept.
    restores: re.Pattern[str]
    # The half of it that an int is in; and what extends the sign of that, or None where an int that
    # is returned is extended by who returns it.
    narrow: re.Pattern[str]
    widens: re.Pattern[str] | None
    # What asks for the value that it has, of which a jump may be made.
    decides: re.Pattern[str]
    # The same of any register: the names of such instructions.
    asks: re.Pattern[str]
    # What stores 8 bytes where a pointer leads to that is not the stack: ZERO or "word", or "".
    stores_word: Callable[[Instruction], str]
    padding: frozenset[str]
    marks: frozenset[bytes]         # where an indirect jump may come in
    # An instruction, and what is known of addresses that are made by several; it may note more.
    follow: Callable[[Instruction, dict[str, int]], Instruction] = lambda one, _known: one
    # The names of functions begin so: what jumps to one returns, or goes where a register says.
    returns: tuple[str, ...] = ()
    indirect: tuple[str, ...] = ()
    whole_numbers: bool = True      # a number that is used is an operand of one instruction
    counts_all: bool = False        # there is no other way to count than is known here
    patched: Table | None = None
    # In memory a jump that was made or taken away when the kernel booted, and the nops behind it,
    # have so many bytes; 0 where that is not known.
    jump: int = 0

    def forgotten(self, part: Instruction) -> bool:
        """Whether what a function returned is no more in its register behind an instruction."""
        return bool(self.forgets.match(part.operands)) and not self.only_reads.fullmatch(part.name)


def capstone(arch: str, mode: str) -> Callable[[], Reader]:
    """What makes a reader of Capstone, by its own words for an architecture."""
    def made() -> Reader:
        # Only who disassembles needs it.
        try:
            import capstone as library  # type: ignore[import]
            reader: Reader = library.Cs(getattr(library, arch), getattr(library, mode))
        # AttributeError: an empty folder of that name is a module, too.
        except (ImportError, AttributeError) as err:
            raise NotInstalled("python3-capstone is not installed: apt install python3-capstone") \
                from err
        # Data between code: what it cannot read is then a ".byte".
        reader.skipdata = True      # type: ignore[attr-defined]
        return reader
    return made


_OPERAND = re.compile(r"#?(-?(?:0x[0-9a-f]+|\d+))")


def number(text: str) -> int | None:
    """The number that an operand is, or None."""
    match = _OPERAND.fullmatch(text)
    return int(match[1], 0) if match else None


def signed(value: int, bits: int) -> int:
    """What a field of so many bits says, if its highest one is the sign."""
    return value - (1 << bits) if value >> (bits - 1) else value


_NUMBER = re.compile(r"(?<![\w])(-?)(0x[0-9a-f]+|\d+)(?![\w])")


def values(one: Instruction) -> set[int]:
    """The numbers of an instruction, and the address that it makes of its own."""
    found: set[int] = set() if one.makes is None else {one.makes}
    for sign, digits in _NUMBER.findall(one.operands):
        value = int(digits, 0) * (-1 if sign else 1)
        found |= {value, value % (1 << 64)}
        # It may be extended by its sign.
        if value >> 31 == 1:
            found.add(value | 0xffffffff << 32)
    return found
