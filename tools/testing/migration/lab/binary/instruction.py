# SPDX-License-Identifier: GPL-2.0
"""What single instructions of an architecture do, as far as the audit asks: where they lead, and
what they read and write, in words that are the same for all of them."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from lab.binary.objdump import Objdump
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


class Reader(Protocol):
    """What takes code to pieces."""

    def disasm_lite(self, code: bytes, start: int) -> Iterator[tuple[int, int, str, str]]:
        """Address, size, name and operands of each instruction; what is none is a ".byte"."""


@dataclass(frozen=True)
class Set:
    """The instructions of an architecture."""

    reader: Callable[[], Reader]    # NotInstalled where there is none
    first: tuple[str, ...]          # registers of the first argument, the whole one first
    decode: Callable[[int, int, str, str], Instruction]
    padding: frozenset[str]
    marks: frozenset[bytes]         # where an indirect jump may come in


def _capstone(arch: str, mode: str) -> Callable[[], Reader]:
    """What makes a reader of Capstone, by its own words for an architecture."""
    def made() -> Reader:
        # Only who disassembles needs it.
        try:
            import capstone  # type: ignore[import]
            reader: Reader = capstone.Cs(getattr(capstone, arch), getattr(capstone, mode))
        # AttributeError: an empty folder of that name is a module, too.
        except (ImportError, AttributeError) as err:
            raise NotInstalled("python3-capstone is not installed: apt install python3-capstone") \
                from err
        # Data between code: what it cannot read is then a ".byte".
        reader.skipdata = True      # type: ignore[attr-defined]
        return reader
    return made


_NUMBER = re.compile(r"#?(-?(?:0x[0-9a-f]+|\d+))")


def number(text: str) -> int | None:
    """The number that an operand is, or None."""
    match = _NUMBER.fullmatch(text)
    return int(match[1], 0) if match else None


def _x86(address: int, size: int, name: str, operands: str) -> Instruction:
    text = f"{name} {operands}".strip()
    *_prefixes, base = name.split()
    target = number(operands)
    if base == "call":
        return Instruction(address, size, text, base, operands, target, calls=True)
    if base == "jmp":
        return Instruction(address, size, text, base, operands, target, falls=False,
                           indirect=target is None)
    if base.startswith("j") or base.startswith("loop"):
        return Instruction(address, size, text, base, operands, target)
    if base in ("ret", "retf", "iretq", "sysretq", "hlt"):
        return Instruction(address, size, text, base, operands, falls=False)
    return Instruction(address, size, text, base, operands, traps=base in ("ud2", "ud1", "ud0"))


def _arm64(address: int, size: int, name: str, operands: str) -> Instruction:
    text = f"{name} {operands}".strip()
    last = number(operands.rpartition(",")[2].strip())
    if name == "bl":
        return Instruction(address, size, text, name, operands, last, calls=True)
    if name in ("blr", "blraa", "blraaz", "blrab", "blrabz"):
        return Instruction(address, size, text, name, operands, calls=True)
    if name == "b":
        return Instruction(address, size, text, name, operands, last, falls=False)
    if name.startswith("b.") or name in ("cbz", "cbnz", "tbz", "tbnz"):
        return Instruction(address, size, text, name, operands, last)
    if name in ("br", "braa", "braaz", "brab", "brabz"):
        return Instruction(address, size, text, name, operands, falls=False, indirect=True)
    if name in ("ret", "retaa", "retab", "eret"):
        return Instruction(address, size, text, name, operands, falls=False)
    return Instruction(address, size, text, name, operands, traps=name in ("brk", "udf"))


# objdump says where a jump by a register goes, if the instruction before it has the other half.
_FAR = re.compile(r" # (0x[0-9a-f]+)")
_OFFSET = re.compile(r"(\w+),(-?\d+)\((\w+)\)")
_BRANCH = re.compile(r"b(?:eq|ne|lt|ge|gt|le)[uz]?")


def _riscv64(address: int, size: int, name: str, operands: str) -> Instruction:
    text = f"{name} {operands}".strip()
    words = operands.partition(" # ")[0]
    last = words.rpartition(",")[2]
    far = _FAR.search(operands)
    target = int(far[1], 16) if far else None
    if name == "jal":
        return Instruction(address, size, text, name, operands, number(last), calls=True)
    if name == "jalr":
        return Instruction(address, size, text, name, operands, target, calls=True)
    if name == "j":
        return Instruction(address, size, text, name, operands, number(last), falls=False)
    if name == "jr":
        return Instruction(address, size, text, name, operands, target, falls=False,
                           indirect=target is None)
    if _BRANCH.fullmatch(name):
        return Instruction(address, size, text, name, operands, number(last))
    if name in ("ret", "mret", "sret"):
        return Instruction(address, size, text, name, operands, falls=False)
    # As the others write it: "ldr a0, [s1 + 0x10]", "mov a0, s1".
    if match := _OFFSET.fullmatch(words):
        offset = int(match[2])
        operands = f"{match[1]}, [{match[3]} {'-' if offset < 0 else '+'} {abs(offset):#x}]"
    else:
        operands = words.replace(",", ", ")
    name = {"ld": "ldr", "sd": "str", "mv": "mov", "addi": "add"}.get(name, name)
    return Instruction(address, size, text, name, operands, traps=name in ("ebreak", "unimp"))


SETS = {
    "x86_64": Set(_capstone("CS_ARCH_X86", "CS_MODE_64"),
                  ("rdi", "edi"), _x86,
                  frozenset(("int3", "nop", "ud2")),
                  # endbr64, and what the kernel puts there where no jump may come in.
                  frozenset((b"\xf3\x0f\x1e\xfa", b"\x66\x0f\x1f\x00", b"\x0f\x1f\x40\xd6"))),
    "arm64": Set(_capstone("CS_ARCH_ARM64", "CS_MODE_ARM"),
                 ("x0", "w0"), _arm64,
                 frozenset(("nop", "udf")),
                 # bti c, bti jc, paciasp
                 frozenset((b"\x5f\x24\x03\xd5", b"\xdf\x24\x03\xd5", b"\x3f\x23\x03\xd5"))),
    "riscv64": Set(Objdump, ("a0",), _riscv64, frozenset(("nop", "unimp")), frozenset()),
}
