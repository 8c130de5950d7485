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
    # Whether it adds to or subtracts from an int so that no other CPU comes between, and where: by
    # which register, and how far from that.  What follows it may have to be seen, too.
    counts: Callable[[Instruction, Instruction | None], tuple[str, int] | None]
    # How far from a register the int of a struct is that it loads or compares.
    reads: Callable[[Instruction], int | None]
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


# The rest of an x86 operand: "[rax + rdx*4 + 0x34]".
AT = r"(?: \+ [a-z]\w*(?:\*\d)?)?(?: \+ (0x[0-9a-f]+|\d+))?\]"
_LOCKED = re.compile(rf"lock (?:inc|dec|add|sub|xadd) dword ptr \[[a-z]\w*{AT}")
# Of some struct: not of the stack, and not of a variable.
_LOADS = re.compile(rf"dword ptr \[(?!rsp|rbp|rip)[a-z]\w*{AT}")


def _x86_counts(one: Instruction, _after: Instruction | None) -> tuple[str, int] | None:
    match = _LOCKED.match(one.text)
    return ("", int(match[1] or "0", 0)) if match else None


def _x86_reads(one: Instruction) -> int | None:
    if one.name not in ("mov", "cmp", "test", "add", "sub") or one.text.startswith("lock"):
        return None
    match = _LOADS.search(one.operands)
    if not match or one.name not in ("cmp", "test") and one.operands.startswith("dword"):
        return None
    return int(match[1] or "0", 0)


# By one instruction, or by a loop: "ldxr w0, [x1]", "add w0, w0, #1", "stxr w2, w0, [x1]".  Which
# of them runs, the kernel finds out when it boots.  Capstone 4 knows no "stadd", Capstone 5 does.
_ARM64_ADDS = re.compile(r"(?:ld|st)add(?:a|l|al)? (?:w\d+, )?w\d+, \[(x\d+)\]")
_ARM64_LOOP = re.compile(r"ldxr (w\d+), \[(x\d+)\]")
_ARM64_LOADS = re.compile(r"ldr w\d+, \[x(?!29)\d+(?:, #(0x[0-9a-f]+|\d+))?\]")


def _arm64_counts(one: Instruction, after: Instruction | None) -> tuple[str, int] | None:
    if match := _ARM64_ADDS.fullmatch(one.text):
        return match[1], 0
    match = _ARM64_LOOP.fullmatch(one.text)
    adds = match and after and after.name in ("add", "sub") \
        and match[1] in after.operands.split(", ")[1:]
    return (match[2], 0) if match and adds else None


def _arm64_reads(one: Instruction) -> int | None:
    match = _ARM64_LOADS.fullmatch(one.text)
    return int(match[1] or "0", 0) if match else None


_RISCV_ADDS = re.compile(r"amoadd\.w(?:\.aq)?(?:\.?rl)? \w+, ?\w+, ?\((\w+)\)")
_RISCV_LOADS = re.compile(r"\w+, \[(?!sp|s0|tp|gp)\w+ \+ (0x[0-9a-f]+)\]")


def _riscv64_counts(one: Instruction, _after: Instruction | None) -> tuple[str, int] | None:
    match = _RISCV_ADDS.fullmatch(one.text)
    return (match[1], 0) if match else None


def _riscv64_reads(one: Instruction) -> int | None:
    match = _RISCV_LOADS.fullmatch(one.operands) if one.name in ("lw", "lwu") else None
    return int(match[1], 16) if match else None


SETS = {
    "x86_64": Set(_capstone("CS_ARCH_X86", "CS_MODE_64"),
                  ("rdi", "edi"), _x86, _x86_counts, _x86_reads,
                  frozenset(("int3", "nop", "ud2")),
                  # endbr64, and what the kernel puts there where no jump may come in.
                  frozenset((b"\xf3\x0f\x1e\xfa", b"\x66\x0f\x1f\x00", b"\x0f\x1f\x40\xd6"))),
    "arm64": Set(_capstone("CS_ARCH_ARM64", "CS_MODE_ARM"),
                 ("x0", "w0"), _arm64, _arm64_counts, _arm64_reads,
                 frozenset(("nop", "udf")),
                 # bti c, bti jc, paciasp
                 frozenset((b"\x5f\x24\x03\xd5", b"\xdf\x24\x03\xd5", b"\x3f\x23\x03\xd5"))),
    "riscv64": Set(Objdump, ("a0",), _riscv64, _riscv64_counts, _riscv64_reads,
                   frozenset(("nop", "unimp")), frozenset()),
}
